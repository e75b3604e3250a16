/* SPDX-License-Identifier: MIT */
#include "ckf_version.h"

#ifndef CKF_VERSION
#error "the Makefile defines CKF_VERSION"
#endif

const char *ckf_version(void)
{
	return CKF_VERSION;
}

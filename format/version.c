/* SPDX-License-Identifier: MIT */
#include "ckf_disk.h"

#ifndef CKF_VERSION
#error "the Makefile defines CKF_VERSION"
#endif

const char *ckf_version(void)
{
	return CKF_VERSION;
}

const char *ckf_format_version(void)
{
#define TEXT(x) #x
#define VERSION(major, minor) TEXT(major) "." TEXT(minor)
	return VERSION(CKF_VERSION_MAJOR, CKF_VERSION_MINOR);
}

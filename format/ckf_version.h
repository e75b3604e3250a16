/* SPDX-License-Identifier: MIT */
#ifndef CKF_VERSION_H
#define CKF_VERSION_H

/* The version of ckfast, such as "0.2.0". That of the format is in ckf_disk.h. */
const char *ckf_version(void);

#endif

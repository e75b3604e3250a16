/* SPDX-License-Identifier: MIT */
/*
 * The backend for AMD GPUs as functions of ckfast_sink.h. The public functions are ckf_amd_open()
 * and the like there; this is for tests and for callers inside ckfast.
 *
 * Devices are named by their number among the GPUs, from "0". There is no share: libhsakmt of
 * Debian 12 cannot export memory.
 */
#ifndef CKF_AMD_SINK_H
#define CKF_AMD_SINK_H

#include "ckfast_sink.h"

extern const struct ckf_sink_ops ckf_amd_sink_ops;

#endif

/* SPDX-License-Identifier: MIT */
/* UUIDs of GPUs as text. */
#ifndef CKF_UUID_H
#define CKF_UUID_H

#include <stdint.h>

#define CKF_GPU_UUID_TEXT_BYTES 41
/* "GPU-01234567-89ab-cdef-0123-456789abcdef", as nvidia-smi has it. Returns buf. */
const char *ckf_gpu_uuid_text(const uint8_t uuid[16], char buf[CKF_GPU_UUID_TEXT_BYTES]);

#endif

/* SPDX-License-Identifier: MIT */
/* UUIDs of GPUs as text. */
#include <stdbool.h>
#include <stdio.h>

#include "ckf_uuid.h"

const char *ckf_gpu_uuid_text(const uint8_t uuid[16], char buf[CKF_GPU_UUID_TEXT_BYTES])
{
	int n = snprintf(buf, CKF_GPU_UUID_TEXT_BYTES, "GPU");

	for (int i = 0; i < 16; i++) {
		const bool dash = i == 0 || i == 4 || i == 6 || i == 8 || i == 10;

		n += snprintf(buf + n, (size_t)(CKF_GPU_UUID_TEXT_BYTES - n), "%s%02x",
			      dash ? "-" : "", uuid[i]);
	}
	return buf;
}

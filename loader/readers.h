/* SPDX-License-Identifier: MIT */
/* How many targets of an image read from a disk at the same time. Private to the loader. */
#ifndef CKF_READERS_H
#define CKF_READERS_H

#include <stdbool.h>

#include "format/ckf_index.h"

/* True where the targets keep a disk busy with one direct read each. Goes through all ops. */
bool ckf_many_readers(const struct ckf_index *idx);

#endif

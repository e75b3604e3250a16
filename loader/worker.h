/* SPDX-License-Identifier: MIT */
/* One worker of a fill; private to the loader. */
#ifndef CKF_WORKER_H
#define CKF_WORKER_H

#include "fill.h"

/*
 * Takes part in the job until nothing is left to do or it has failed; errors and statistics go to
 * the job. may_uring: this thread ends afterwards, so that io_uring may be used in it (see io.c);
 * it is not the one that called ckf_fill().
 */
void fill_worker_run(struct fill_job *job, bool may_uring);

#endif

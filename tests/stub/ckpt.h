/* SPDX-License-Identifier: MIT */
/*
 * How one process asks the fake driver of another one for a checkpoint: by this block in the
 * library's data, found by its magic, read and written with process_vm_readv() and
 * process_vm_writev(). There is no descriptor that CRIU would have to dump.
 */
#ifndef STUB_CKPT_H
#define STUB_CKPT_H

#include "stub.h"

#define STUB_BLOCK_MAGIC "ckfast stub GPU\n" /* 16 bytes, no zero at the end */
#define STUB_BLOCK_ALIGN 64

enum stub_op {
	STUB_OP_LOCK = 1,
	STUB_OP_CHECKPOINT,
	STUB_OP_RESTORE,
	STUB_OP_UNLOCK,
	STUB_OP_STATE, /* changes nothing, but wants the thread, too */
};

struct stub_block {
	char magic[16];
	uint32_t tid; /* of the restore thread, in its own pid namespace; 0: there is none */
	uint32_t state;
	uint32_t request; /* the caller counts up, when all the rest is written */
	uint32_t done;	  /* the thread follows, when result is written */
	int32_t result;
	/* Of the request: */
	uint32_t op;
	uint32_t timeout_ms;
	uint32_t nr_pairs;
	struct stub_hw hw;
	CUcheckpointGpuPair pairs[STUB_MAX_GPUS];
};

#endif

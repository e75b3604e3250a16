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

/* How a job among several, which share the GPUs and their slots, is watched. All may be NULL. */
struct ckf_amd_watch {
	/* Asked by any thread before each slot and each clear, and while it waits for a slot:
	 * non-zero ends them with -ECANCELED. */
	int (*cancelled)(void *arg);
	void *arg;
	_Atomic uint64_t *done_bytes; /* what is copied or cleared is added */
};

/*
 * ckf_amd_import() in steps. watch may be NULL. Each object has to begin where the one before it
 * ends, or later; after an error of add there is only ckf_amd_release().
 */
int ckf_amd_objects_new(struct ckf_amd *amd, const struct ckf_amd_watch *watch,
			struct ckf_amd_objects **out, struct ckf_error *err);
int ckf_amd_objects_add(struct ckf_amd_objects *objects, const struct ckf_amd_object *o,
			struct ckf_error *err);
/* Of objects on one GPU, which is numbered from 0. */
uint64_t ckf_amd_objects_bytes(const struct ckf_amd_objects *objects, unsigned int gpu);

/* Of GPUs that are open with their engines; else 0. */
unsigned int ckf_amd_nr_gpus(const struct ckf_amd *amd);
unsigned int ckf_amd_nr_queues(const struct ckf_amd *amd, unsigned int gpu);
/* Some queue has failed: it stays so until all is closed and opened again. */
bool ckf_amd_failed(const struct ckf_amd *amd);

struct ckf_amd_slots {
	unsigned int total;
	unsigned int in_use; /* taken; a slot that is being copied from is not */
	uint32_t slot_bytes;
};
struct ckf_amd_slots ckf_amd_slots(struct ckf_amd *amd);

#endif

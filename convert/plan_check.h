/* SPDX-License-Identifier: MIT */
/* The rules of SPEC.md that hold between the index and the .img files of the same image. */
#ifndef CKF_PLAN_CHECK_H
#define CKF_PLAN_CHECK_H

#include "ckf_dump.h"
#include "format/ckf_index.h"

/*
 * R-pagemap (SPEC.md 4.6 rule 5): each target's ops are exactly the pages of its pagemap file or
 * table of device memory, and each of these has a target; R-gpu: the contents of device memory are
 * there. -EBADMSG.
 */
int plan_check_pagemaps(const struct ckf_index *idx, const struct ckf_dump *dump,
			struct ckf_error *err);

/*
 * Every op of a task lies in mappings of the task (SPEC.md section 7). *unknown counts the targets
 * of kind task that the dump has no task for; their places cannot be checked. -EBADMSG or -ENOMEM.
 */
int plan_check_places(const struct ckf_index *idx, const struct ckf_dump *dump, uint64_t *unknown,
		      struct ckf_error *err);

struct plan_range {
	uint64_t start;
	uint64_t end; /* exclusive */
};

/*
 * The mappings of a task as ascending ranges, those that touch joined. *ranges is malloc()ed.
 * -ENOMEM.
 */
int plan_task_ranges(const struct ckf_task *task, struct plan_range **ranges, uint64_t *nr);

#endif

/* SPDX-License-Identifier: MIT */
/*
 * In place of engine.c, queue.c and hsakmt.c where libhsakmt's headers are missing: there are no
 * engines, so nothing but open and close is ever called.
 */
#include <errno.h>

#include "engine.h"

int engines_open(const struct engines_opts *o, struct engines **out, struct ckf_error *err)
{
	(void)o;
	(void)out;
	return ckf_error_set(err, -EOPNOTSUPP, "ckfast was built without libhsakmt");
}

void engines_close(struct engines *e)
{
	(void)e;
}

#define NEVER(type, name, params) \
	type name params;         \
	type name params          \
	{                         \
		return (type)0;   \
	}
#pragma GCC diagnostic ignored "-Wunused-parameter"
NEVER(void *, engines_staging, (struct engines * e))
NEVER(unsigned int, engines_nr_gpus, (const struct engines *e))
NEVER(unsigned int, engines_nr_queues, (const struct engines *e, unsigned int gpu))
NEVER(struct engine_queue *, engines_queue, (struct engines * e, unsigned int gpu, unsigned int nr))
NEVER(int, engines_import,
      (struct engines * e, int fd, struct engine_mem *out, struct ckf_error *err))
NEVER(int, engines_alloc,
      (struct engines * e, unsigned int gpu, uint64_t bytes, struct engine_mem *out,
       struct ckf_error *err))
NEVER(void, engines_free, (struct engines * e, const struct engine_mem *mem))
NEVER(int, engine_copy,
      (struct engine_queue * q, const struct engine_copy *copies, size_t nr, uint32_t *seq,
       struct ckf_error *err))
NEVER(int, engine_clear,
      (struct engine_queue * q, uint64_t to, uint64_t bytes, uint32_t *seq, struct ckf_error *err))
NEVER(bool, engine_done, (const struct engine_queue *q, uint32_t seq))
NEVER(bool, engine_failed, (const struct engine_queue *q))
NEVER(int, engine_wait, (struct engine_queue * q, uint32_t seq, struct ckf_error *err))
NEVER(int, engine_drain, (struct engine_queue * q, struct ckf_error *err))

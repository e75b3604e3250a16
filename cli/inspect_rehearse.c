/* SPDX-License-Identifier: MIT */
/*
 * How long this machine takes to fill an image's memory: by filling a part of it.
 *
 * What a page costs depends on the machine, on its memory at the moment, on huge pages and on the
 * data. No model knows all of that, but the loader does: it fills some lanes of the plan, from all
 * over the image, into memory that is given back at once. The first time brings what it reads into
 * the page cache, and the quickest of those after it counts: a part takes as long to begin as the
 * whole, and whatever disturbs it is multiplied.
 */
#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/ckf_io_util.h"
#include "base/ckf_threads.h"
#include "ckf_inspect.h"

#define SAMPLE_BYTES (UINT64_C(128) << 20)
#define TIMES 3
#define GAP_BYTES CKF_HUGE_BYTES /* a longer one between two ops gets no memory */
#define HEADROOM_PART 8		 /* at most so much of the headroom that a memory cgroup leaves */

/* The lanes that are filled. */
struct sample {
	bool *takes; /* by lane of the image */
	uint64_t all_bytes;
	uint64_t taken_bytes;
};

/* Memory for the lanes of one target. */
struct place {
	struct ckf_dest *dests;
	size_t nr_dests;
	size_t max_dests;
	struct iovec *maps;
	size_t nr_maps;
	size_t max_maps;
};

static bool is_host(const struct ckf_target *t)
{
	return t->kind != CKF_TARGET_DEVICE && t->nr_ops;
}

/* Lanes at even distances, so that about the wanted bytes come together. */
static void choose(const struct ckf_index *idx, uint64_t want_bytes, struct sample *s)
{
	double part, debt = 0;

	for (uint64_t i = 0; i < idx->nr_lanes; i++)
		if (is_host(&idx->targets[idx->lanes[i].target]))
			s->all_bytes += idx->lanes[i].fill_bytes;
	part = s->all_bytes > want_bytes ? (double)want_bytes / (double)s->all_bytes : 1;
	for (uint64_t i = 0; i < idx->nr_lanes; i++) {
		const struct ckf_lane *l = &idx->lanes[i];

		if (!is_host(&idx->targets[l->target]))
			continue;
		debt += part * (double)l->fill_bytes;
		if (debt < (double)l->fill_bytes / 2)
			continue;
		debt -= (double)l->fill_bytes;
		s->takes[i] = true;
		s->taken_bytes += l->fill_bytes;
	}
}

static void place_free(struct place *p)
{
	for (size_t i = 0; i < p->nr_maps; i++)
		munmap(p->maps[i].iov_base, p->maps[i].iov_len);
	free(p->dests);
	free(p->maps);
}

/* Room for one more of nr elements, of which max have room. NULL without memory. */
static void *grow(void *array, size_t nr, size_t *max, size_t elem_bytes)
{
	void *p;

	if (nr < *max)
		return array;
	p = realloc(array, (*max * 2 + 16) * elem_bytes);
	if (p)
		*max = *max * 2 + 16;
	return p;
}

static bool add_dest(struct place *p, uint64_t start, uint64_t end, char *addr, uint32_t flags)
{
	struct ckf_dest *dests;

	if (start >= end)
		return true;
	dests = grow(p->dests, p->nr_dests, &p->max_dests, sizeof(*dests));
	if (!dests)
		return false;
	p->dests = dests;
	dests[p->nr_dests++] = (struct ckf_dest){ .start = start,
						  .end = end,
						  .addr = addr,
						  .flags = flags,
						  .prot = PROT_READ | PROT_WRITE };
	return true;
}

/* What a parent has pages of is a mapping of both, whose pages a restore compares one by one; other
 * memory of a child is as fresh as that of any task. */
static bool is_inherited(const struct ckf_index *idx, const struct ckf_target *t, uint64_t start,
			 uint64_t end)
{
	const struct ckf_target *parent = t->parent ? &idx->targets[t->parent - 1] : NULL;
	uint64_t op;

	if (!parent)
		return false;
	op = ckf_index_find_op(idx, parent, start);
	return op < parent->first_op + parent->nr_ops && ckf_op_addr(&idx->ops[op]) < end;
}

/* Fresh memory for [start, end) of a target, at the same place modulo a huge page. */
static bool add_memory(struct place *p, const struct ckf_index *idx, const struct ckf_target *t,
		       uint64_t start, uint64_t end)
{
	const bool shared = t->kind == CKF_TARGET_SHMEM;
	const size_t bytes = (size_t)(end - start) + 2 * CKF_HUGE_BYTES;
	const uint32_t flags = is_inherited(idx, t, start, end) ? CKF_DEST_SHARED
								: CKF_DEST_FRESH | CKF_DEST_HUGE;
	struct iovec *maps = grow(p->maps, p->nr_maps, &p->max_maps, sizeof(*maps));
	uint64_t addr;
	void *map;

	if (!maps)
		return false;
	p->maps = maps;
	map = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
		   (shared ? MAP_SHARED : MAP_PRIVATE) | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (map == MAP_FAILED)
		return false;
	maps[p->nr_maps++] = (struct iovec){ map, bytes };
	addr = ckf_align_up((uintptr_t)map, CKF_HUGE_BYTES) + start % CKF_HUGE_BYTES;
	return add_dest(p, start, end, (char *)(uintptr_t)addr, flags);
}

/* Memory for the ops of a lane, a piece for those that are close together. *at: where the dests so
 * far end. */
static bool place_lane(struct place *p, const struct ckf_index *idx, const struct ckf_target *t,
		       const struct ckf_lane *l, uint64_t *at)
{
	uint64_t start, end;

	for (uint64_t i = l->first_op, n; i < l->first_op + l->nr_ops; i += n) {
		start = ckf_op_addr(&idx->ops[i]);
		end = ckf_op_end(&idx->ops[i]);
		for (n = 1; i + n < l->first_op + l->nr_ops; n++) {
			if (ckf_op_addr(&idx->ops[i + n]) - end > GAP_BYTES)
				break;
			end = ckf_op_end(&idx->ops[i + n]);
		}
		if (!add_dest(p, *at, start, NULL, CKF_DEST_SKIP) ||
		    !add_memory(p, idx, t, start, end))
			return false;
		*at = end;
	}
	return true;
}

/* The lanes of the sample get memory, and all other addresses are passed over. */
static bool place_lanes(struct place *p, const struct ckf_index *idx, const struct ckf_target *t,
			const struct sample *s)
{
	uint64_t at = 0;

	for (uint32_t i = t->first_lane; i < t->first_lane + t->nr_lanes; i++)
		if (s->takes[i] && !place_lane(p, idx, t, &idx->lanes[i], &at))
			return false;
	return add_dest(p, at, CKF_MAX_ADDR, NULL, CKF_DEST_SKIP);
}

/* One time, in memory that its processes share. */
struct rehearsal {
	atomic_uint next;      /* target */
	atomic_ullong last_ns; /* when the last fill ended, ckf_now_ns() */
};

static bool fill_targets(struct rehearsal *r, const struct ckf_image *img, const struct sample *s)
{
	struct ckf_fill_opts opts = { .size = sizeof(opts), .dir_fd = -1 };
	const struct ckf_target *t;
	unsigned long long last_ns, end_ns = 0;
	unsigned int i;
	bool ok = true;

	opts.flags = CKF_FILL_NO_DIRECT;
	while (ok && (i = atomic_fetch_add(&r->next, 1)) < img->idx->nr_targets) {
		struct place p = { 0 };

		t = &img->idx->targets[i];
		if (is_host(t))
			ok = place_lanes(&p, img->idx, t, s) &&
			     (!p.nr_maps ||
			      !ckf_fill(img, t, p.dests, p.nr_dests, &opts, NULL, NULL));
		end_ns = ckf_now_ns();
		place_free(&p);
	}
	last_ns = atomic_load(&r->last_ns);
	while (last_ns < end_ns && !atomic_compare_exchange_weak(&r->last_ns, &last_ns, end_ns))
		;
	return ok;
}

/* A process that fills once the other end of the pipe is closed. -1: there can be none. */
static pid_t start_filling(struct rehearsal *r, const struct ckf_image *img, const struct sample *s,
			   const int *start)
{
	const pid_t pid = fork();
	char c;

	if (pid)
		return pid;
	close(start[1]);
	quick_exit(read(start[0], &c, 1) || !fill_targets(r, img, s));
}

/*
 * How long the fills take side by side, as those of a restore: in processes, since the threads of
 * one would wait for each other's page faults. -1: one failed.
 */
static double fill_side_by_side(struct rehearsal *r, const struct ckf_image *img,
				const struct sample *s)
{
	const uint64_t nr_targets = img->idx->nr_targets;
	const unsigned int nr = nr_targets < ckf_cpus() ? (unsigned int)nr_targets : ckf_cpus();
	pid_t *pids = calloc(nr, sizeof(*pids));
	uint64_t start_ns;
	bool ok = true;
	int start[2];

	if (!pids || pipe2(start, O_CLOEXEC)) {
		free(pids);
		return -1;
	}
	for (unsigned int i = 0; i < nr; i++)
		pids[i] = start_filling(r, img, s, start);
	close(start[0]);
	start_ns = ckf_now_ns();
	close(start[1]);
	for (unsigned int i = 0; i < nr; i++)
		ok &= insp_child_did(pids[i]);
	free(pids);
	return ok ? (double)(atomic_load(&r->last_ns) - start_ns) / 1e9 : -1;
}

static double fill_sample(const struct ckf_image *img, const struct sample *s)
{
	struct rehearsal *r = mmap(NULL, sizeof(*r), PROT_READ | PROT_WRITE,
				   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	double took;

	if (r == MAP_FAILED)
		return -1;
	took = fill_side_by_side(r, img, s);
	munmap(r, sizeof(*r));
	return took;
}

static double quickest(const struct ckf_image *img, const struct sample *s)
{
	double best = -1, took;

	for (unsigned int i = 0; i < TIMES; i++) {
		took = fill_sample(img, s);
		if (took < 0)
			return -1;
		if (best < 0 || took < best)
			best = took;
	}
	return best;
}

static uint64_t sample_bytes(void)
{
	int proc_fd = open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC);
	uint64_t headroom = CKF_UNLIMITED;

	if (proc_fd >= 0) {
		headroom = ckf_memcg_self(proc_fd);
		close(proc_fd);
	}
	headroom /= HEADROOM_PART;
	return headroom < SAMPLE_BYTES ? headroom : SAMPLE_BYTES;
}

double insp_rehearse(const struct insp *insp)
{
	const struct ckf_index *idx = insp->img->idx;
	struct sample s = { 0 };
	double took = -1;

	for (uint64_t i = 0; i < idx->nr_targets; i++)
		if (idx->targets[i].kind == CKF_TARGET_DEVICE)
			return -1;
	if (idx->nr_bases)
		return -1;
	s.takes = calloc(idx->nr_lanes + 1, sizeof(*s.takes));
	if (s.takes)
		choose(idx, sample_bytes(), &s);
	if (s.taken_bytes && fill_sample(insp->img, &s) >= 0)
		took = quickest(insp->img, &s);
	free(s.takes);
	if (took < 0)
		return -1;
	return took * (double)s.all_bytes / (double)s.taken_bytes;
}

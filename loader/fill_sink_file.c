/* SPDX-License-Identifier: MIT */
/*
 * ckf_fill_sink_file(): device memory from a plain dump. Workers take parts of the pages file, read
 * its data into slots, and clear where it has holes.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/ckf_io_util.h"
#include "sink.h"

#define UNIT_BYTES (32ull << 20)
#define PIECE_BYTES (512u << 10) /* holes are looked for at the start of each */

struct source {
	int fd;
	const struct ckf_gpu_dump *d;
	uint64_t *offs; /* per allocation: where it is in the file; and the length of the file */
};

/* Part of the file that goes to one dest. */
struct part {
	const struct ckf_sink_dest *dest;
	uint64_t off;
	uint64_t addr;
	uint64_t bytes;
};

struct walk {
	struct sink_worker *w;
	const struct source *src;
	uint32_t slot_used;
};

/* The allocation whose bytes are at off in the file. */
static uint32_t find_alloc(const struct source *src, uint64_t off)
{
	uint32_t lo = 0, hi = src->d->nr_allocs;

	while (lo < hi) {
		uint32_t mid = lo + (hi - lo) / 2;

		if (src->offs[mid + 1] <= off)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

/* The part that begins at off and ends at end or before. */
static int find_part(struct walk *k, uint64_t off, uint64_t end, struct part *part)
{
	const struct sink_job *job = k->w->job;
	const struct source *src = k->src;
	uint32_t lo = find_alloc(src, off);
	size_t dest;

	part->off = off;
	part->addr = src->d->allocs[lo].addr + (off - src->offs[lo]);
	part->bytes = (end < src->offs[lo + 1] ? end : src->offs[lo + 1]) - off;
	dest = lane_find_dest(job->ranges, job->nr_dests, part->addr);
	if (dest == job->nr_dests)
		return ckf_error_set(&k->w->err, -EINVAL,
				     "no memory was made for 0x%" PRIx64 " of the device",
				     part->addr);
	part->dest = &job->dests[dest];
	if (part->bytes > part->dest->end - part->addr)
		part->bytes = part->dest->end - part->addr;
	return 0;
}

static int clear_range(struct walk *k, uint64_t off, uint64_t end)
{
	struct part part;
	int ret = 0;

	for (; off < end && !ret; off += part.bytes) {
		ret = find_part(k, off, end, &part);
		if (ret)
			return ret;
		ret = sink_clear_add(k->w, part.dest, part.addr, part.bytes);
	}
	return ret;
}

/* Sees to it that there is room in a slot of this sink. */
static int need_slot(struct walk *k, struct ckf_sink *sink)
{
	int ret = 0;

	if (k->w->sink == sink && k->slot_used < k->w->slot.bytes)
		return 0;
	if (k->w->sink)
		ret = sink_slot_submit(k->w);
	k->slot_used = 0;
	return ret ? ret : sink_slot_take(k->w, sink);
}

static int copy_part(struct walk *k, struct part *part)
{
	struct sink_worker *w = k->w;
	uint32_t room;
	int ret;

	ret = need_slot(k, part->dest->sink);
	if (ret)
		return ret;
	room = w->slot.bytes - k->slot_used;
	if (part->bytes > room)
		part->bytes = room;
	ret = ckf_pread_all(k->src->fd, (char *)w->slot.addr + k->slot_used, part->bytes,
			    part->off);
	if (ret)
		return ckf_error_set(&w->err, ret, "cannot read the pages of device memory: %s",
				     ret == -EBADMSG ? "the file got shorter" : strerror(-ret));
	atomic_fetch_add(&w->job->progress, 1);
	w->stats.read_bytes += part->bytes;
	ret = sink_slot_add(w, part->dest, part->addr, k->slot_used, (uint32_t)part->bytes);
	k->slot_used += (uint32_t)part->bytes;
	return ret;
}

static int copy_range(struct walk *k, uint64_t off, uint64_t end)
{
	struct part part;
	int ret = 0;

	for (; off < end && !ret; off += part.bytes) {
		if (atomic_load(&k->w->job->failed))
			return 0;
		ret = find_part(k, off, end, &part);
		if (ret)
			return ret;
		ret = copy_part(k, &part);
	}
	return ret;
}

/* Where data begins at or after off, in whole pages, but not after end. */
static int seek_data(struct walk *k, uint64_t off, uint64_t end, uint64_t *at)
{
	off_t to = lseek(k->src->fd, (off_t)off, SEEK_DATA);

	*at = end;
	if (to < 0 && errno != ENXIO)
		return ckf_error_set(&k->w->err, -errno, "cannot find holes: %s", strerror(errno));
	if (to >= 0 && (uint64_t)to < end)
		*at = (uint64_t)to & ~(uint64_t)(CKF_PAGE_BYTES - 1);
	return 0;
}

/*
 * Never asks where data ends: the answer would be far away in a file without holes, and the kernel
 * looks at every page up to there. A small hole after data is read like data.
 */
static int fill_unit(struct walk *k, uint64_t unit)
{
	uint64_t off = unit * UNIT_BYTES, end = off + UNIT_BYTES, data, next;
	int ret = 0;

	if (end > k->src->d->bytes)
		end = k->src->d->bytes;
	for (; off < end && !ret; off = next) {
		ret = seek_data(k, off, end, &data);
		if (ret)
			break;
		next = ckf_align_up(data + 1, PIECE_BYTES);
		if (next > end)
			next = end;
		ret = clear_range(k, off, data);
		if (!ret && data < end)
			ret = copy_range(k, data, next);
	}
	return ret;
}

static int fill(struct sink_worker *w)
{
	struct walk k = { .w = w, .src = w->job->arg };
	uint64_t unit;
	int ret = 0;

	while (!ret && sink_next_unit(w, &unit))
		ret = fill_unit(&k, unit);
	if (!ret && w->sink && !atomic_load(&w->job->failed))
		ret = sink_slot_submit(w);
	return ret;
}

static uint32_t sink_of_unit(const struct sink_job *job, uint64_t unit)
{
	const struct source *src = job->arg;

	return sink_of_addr(job, src->d->allocs[find_alloc(src, unit * UNIT_BYTES)].addr);
}

static int source_init(struct source *src, struct ckf_error *err)
{
	const struct ckf_gpu_dump *d = src->d;
	struct stat st;

	if (fstat(src->fd, &st))
		return ckf_error_set(err, -errno, "cannot stat the pages of device memory: %s",
				     strerror(errno));
	if ((uint64_t)st.st_size != d->bytes)
		return ckf_error_set(err, -EBADMSG,
				     "R-gpu: length of the pages file of process %u, got %llu, "
				     "want %" PRIu64,
				     d->pid, (unsigned long long)st.st_size, d->bytes);
	src->offs = malloc(((size_t)d->nr_allocs + 1) * sizeof(*src->offs));
	if (!src->offs)
		return ckf_error_set(err, -ENOMEM, "no memory for the plan");
	src->offs[0] = 0;
	for (uint32_t i = 0; i < d->nr_allocs; i++)
		src->offs[i + 1] = src->offs[i] + ckf_gpu_pages_bytes(&d->allocs[i]);
	(void)posix_fadvise(src->fd, 0, 0, POSIX_FADV_SEQUENTIAL);
	return 0;
}

int ckf_fill_sink_file(int pages_fd, const struct ckf_gpu_dump *d, const struct ckf_sink_ops *ops,
		       const struct ckf_sink_dest *dests, size_t nr_dests,
		       const struct ckf_fill_opts *opts, struct ckf_fill_stats *stats,
		       struct ckf_error *err)
{
	struct source src = { .fd = pages_fd, .d = d };
	struct sink_job job = {
		.ops = ops,
		.dests = dests,
		.nr_dests = nr_dests,
		.fill = fill,
		.arg = &src,
		.nr_units = (d->bytes + UNIT_BYTES - 1) / UNIT_BYTES,
	};
	int ret;

	ret = sink_job_init(&job, opts, stats, err);
	if (!ret)
		ret = source_init(&src, err);
	if (!ret)
		ret = sink_job_order(&job, sink_of_unit, err);
	if (!ret)
		ret = sink_job_run(&job, d->bytes, err);
	free(src.offs);
	sink_job_fini(&job, stats);
	return ret;
}

/* SPDX-License-Identifier: MIT */
/*
 * Gathers what ckfast inspect prints. Reads the index and the small .img files, and of the pack a
 * few chunks, to time them; never a pages file.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "convert/ckf_model.h"
#include "convert/ckf_decode_costs.h"
#include "base/ckf_io_util.h"
#include "base/ckf_threads.h"
#include "ckf_inspect.h"

/* Of each codec, at most, or a few more. */
#define CHUNKS_TIMED 12

/* CRIU's VMA status bits, criu/include/image.h. */
#define VMA_FILE_PRIVATE (1u << 6)
#define VMA_FILE_SHARED (1u << 7)
#define VMA_ANON_SHARED (1u << 8)
#define VMA_ANON_PRIVATE (1u << 9)
#define VMA_AREA_SYSVIPC (1u << 10)

static const struct {
	const char *name;
	const char *key;
} mem_names[INSP_MEM_END] = {
	[INSP_MEM_ANON] = { "private anonymous", "private_anonymous" },
	[INSP_MEM_FILE] = { "private file", "private_file" },
	[INSP_MEM_SHARED_ANON] = { "shared anonymous", "shared_anonymous" },
	[INSP_MEM_SHARED_FILE] = { "shared file, memfd", "shared_file" },
	[INSP_MEM_SYSV] = { "SysV shm", "sysv_shm" },
	[INSP_MEM_OTHER] = { "other", "other" },
};

const char *insp_mem_name(enum insp_mem mem)
{
	return mem_names[mem].name;
}

const char *insp_mem_key(enum insp_mem mem)
{
	return mem_names[mem].key;
}

static enum insp_mem vma_mem(const struct ckf_vma *vma)
{
	if (vma->status & VMA_AREA_SYSVIPC)
		return INSP_MEM_SYSV;
	if (vma->status & VMA_ANON_PRIVATE)
		return INSP_MEM_ANON;
	if (vma->status & VMA_FILE_PRIVATE)
		return INSP_MEM_FILE;
	if (vma->status & VMA_ANON_SHARED)
		return INSP_MEM_SHARED_ANON;
	if (vma->status & VMA_FILE_SHARED)
		return INSP_MEM_SHARED_FILE;
	return INSP_MEM_OTHER;
}

/* Sums of sizes from files: a sum that does not fit says so by its size. */
static void add(uint64_t *sum, uint64_t bytes)
{
	if (ckf_add_overflow(*sum, bytes, sum))
		*sum = UINT64_MAX;
}

static int vma_cmp(const void *a, const void *b)
{
	const struct ckf_vma *const *x = a;
	const struct ckf_vma *const *y = b;

	return ((*x)->start > (*y)->start) - ((*x)->start < (*y)->start);
}

/* Pages by the kind of the mapping that they lie in; a run may span several. */
static void add_pages(struct insp_task *it, const struct ckf_vma **vmas, uint64_t nr_vmas)
{
	uint64_t v = 0;

	for (uint64_t i = 0; i < it->pages->nr_runs; i++) {
		const struct ckf_run *run = &it->pages->runs[i];
		uint64_t at = run->vaddr;
		uint64_t end = at + ckf_pages_to_bytes(run->nr_pages);

		while (at < end) {
			enum insp_mem mem = INSP_MEM_OTHER;
			uint64_t stop = end;

			while (v < nr_vmas && vmas[v]->end <= at)
				v++;
			if (v < nr_vmas && vmas[v]->start <= at) {
				mem = vma_mem(vmas[v]);
				stop = vmas[v]->end < end ? vmas[v]->end : end;
			} else if (v < nr_vmas && vmas[v]->start < end) {
				stop = vmas[v]->start;
			}
			add(&it->page_bytes[mem], stop - at);
			at = stop;
		}
	}
}

static int gather_task(struct insp *insp, struct insp_task *it)
{
	uint64_t nr_vmas = it->task ? it->task->nr_vmas : 0;
	const struct ckf_vma **vmas = calloc(nr_vmas + 1, sizeof(struct ckf_vma *));

	if (!vmas)
		return -ENOMEM;
	for (uint64_t i = 0; i < nr_vmas; i++) {
		const struct ckf_vma *vma = &it->task->vmas[i];

		vmas[i] = vma;
		add(&it->mapped_bytes[vma_mem(vma)], vma->end - vma->start);
	}
	qsort(vmas, nr_vmas, sizeof(*vmas), vma_cmp);
	it->pages = ckf_dump_find_pagemap(insp->dump, CKF_TARGET_TASK, it->pid);
	if (it->pages)
		add_pages(it, vmas, nr_vmas);
	free(vmas);
	for (int mem = 0; mem < INSP_MEM_END; mem++) {
		add(&it->all_mapped_bytes, it->mapped_bytes[mem]);
		add(&it->all_page_bytes, it->page_bytes[mem]);
		add(&insp->mapped_bytes[mem], it->mapped_bytes[mem]);
		add(&insp->page_bytes[mem], it->page_bytes[mem]);
	}
	if (it->task)
		insp->nr_threads += it->task->nr_threads;
	return 0;
}

static int pid_cmp(const void *a, const void *b)
{
	const uint32_t *x = a;
	const uint32_t *y = b;

	return (*x > *y) - (*x < *y);
}

/* The tasks of the tree, then pagemaps of tasks that it does not have. */
static int list_tasks(struct insp *insp)
{
	const struct ckf_dump *dump = insp->dump;
	uint32_t *pids = calloc(dump->nr_tasks + 1, sizeof(*pids));
	struct insp_task *it;

	insp->tasks = calloc(dump->nr_tasks + dump->nr_pagemaps + 1, sizeof(*insp->tasks));
	if (!pids || !insp->tasks) {
		free(pids);
		return -ENOMEM;
	}
	it = insp->tasks;
	for (uint64_t i = 0; i < dump->nr_tasks; i++, it++) {
		it->task = &dump->tasks[i];
		it->pid = it->task->pid;
		pids[i] = it->task->pid;
	}
	qsort(pids, dump->nr_tasks, sizeof(*pids), pid_cmp);
	for (uint64_t i = 0; i < dump->nr_pagemaps; i++) {
		const struct ckf_pagemap *pm = &dump->pagemaps[i];
		uint32_t pid = (uint32_t)pm->id;

		if (pm->kind != CKF_TARGET_TASK)
			continue;
		if (pm->id != pid || !bsearch(&pid, pids, dump->nr_tasks, sizeof(*pids), pid_cmp))
			(it++)->pid = pm->id;
	}
	insp->nr_tasks = (uint64_t)(it - insp->tasks);
	free(pids);
	return 0;
}

static int gather_dump(struct insp *insp)
{
	const struct ckf_dump *dump = insp->dump;
	int rc;

	rc = list_tasks(insp);
	for (uint64_t i = 0; !rc && i < insp->nr_tasks; i++)
		rc = gather_task(insp, &insp->tasks[i]);
	for (uint64_t i = 0; i < dump->nr_pagemaps; i++) {
		const struct ckf_pagemap *pm = &dump->pagemaps[i];

		if (pm->kind == CKF_TARGET_DEVICE) {
			add(&insp->device_bytes, pm->gpu->bytes);
			continue;
		}
		add(&insp->all_page_bytes, ckf_pages_to_bytes(pm->nr_pages));
		add(&insp->parent_bytes, ckf_pages_to_bytes(pm->nr_pages - pm->nr_local_pages));
		if (pm->kind == CKF_TARGET_SHMEM) {
			insp->nr_shmem++;
			add(&insp->shmem_bytes, ckf_pages_to_bytes(pm->nr_pages));
		}
	}
	return rc;
}

static void gather_target(struct insp *insp, uint64_t i)
{
	const struct ckf_index *idx = insp->img->idx;
	const struct ckf_target *t = &idx->targets[i];
	struct insp_target *it = &insp->targets[i];

	for (uint64_t o = t->first_op; o < t->first_op + t->nr_ops; o++) {
		const struct ckf_op *op = &idx->ops[o];
		uint64_t bytes = ckf_pages_to_bytes(op->nr_pages);

		it->fill_bytes += bytes;
		if (idx->chunks[op->chunk].codec == CKF_CODEC_ZERO)
			it->zero_bytes += bytes;
		else if (ckf_op_flags(op) & CKF_OP_INHERIT)
			it->inherit_bytes += bytes;
		if (ckf_op_flags(op) & CKF_OP_DIRECT)
			it->direct_bytes += bytes;
	}
	for (uint32_t l = t->first_lane; l < t->first_lane + t->nr_lanes; l++) {
		it->read_bytes += idx->lanes[l].read_bytes;
		if (idx->lanes[l].fill_bytes > it->max_lane_bytes)
			it->max_lane_bytes = idx->lanes[l].fill_bytes;
	}
	insp->sum.fill_bytes += it->fill_bytes;
	insp->sum.zero_bytes += it->zero_bytes;
	insp->sum.inherit_bytes += it->inherit_bytes;
	insp->sum.direct_bytes += it->direct_bytes;
	insp->sum.read_bytes += it->read_bytes;
	if (it->max_lane_bytes > insp->sum.max_lane_bytes)
		insp->sum.max_lane_bytes = it->max_lane_bytes;
}

/* Counts a chunk. Returns the bytes that it has decoded, unless they are zero. */
static uint64_t gather_chunk(struct insp *insp, const struct ckf_chunk *c)
{
	uint64_t bytes = ckf_pages_to_bytes(c->nr_pages);
	struct insp_codec *codec = &insp->codecs[c->codec];

	codec->nr_chunks++;
	codec->decoded_bytes += bytes;
	codec->stored_bytes += c->stored_bytes;
	if (c->base) {
		insp->bases[c->base - 1].nr_chunks++;
		insp->bases[c->base - 1].decoded_bytes += bytes;
		insp->bases[c->base - 1].stored_bytes += c->stored_bytes;
		insp->base_bytes += c->stored_bytes;
	} else {
		insp->stored_bytes += c->stored_bytes;
	}
	return c->codec != CKF_CODEC_ZERO ? bytes : 0;
}

/*
 * Adds the time that a chunk takes to decode. One that cannot be read or decoded is left out:
 * whether the pack is whole is for ckfast verify to say.
 */
static void time_chunk(const struct ckf_chunk *c, int pack_fd, uint64_t pack_start,
		       struct ckf_codec_ctx *codecs, uint64_t *sum_bytes, uint64_t *sum_ns)
{
	size_t bytes = (size_t)ckf_pages_to_bytes(c->nr_pages);
	uint8_t *stored = malloc(c->stored_bytes), *decoded = malloc(bytes);
	uint64_t ns;

	if (stored && decoded &&
	    !ckf_pread_all(pack_fd, stored, c->stored_bytes, pack_start + c->pack_off) &&
	    !ckf_decode_time(codecs, &ckf_clock_real, c->codec, stored, c->stored_bytes, decoded,
			     bytes, &ns)) {
		*sum_bytes += bytes;
		*sum_ns += ns;
	}
	free(stored);
	free(decoded);
}

/*
 * Codecs decode some data several times as fast as other. So some chunks of each codec, from all
 * over the own pack, tell how fast this CPU decodes these; the speeds of the model stand for the
 * rest.
 */
static void time_chunks(struct insp *insp)
{
	const struct ckf_index *idx = insp->img->idx;
	uint64_t seen[CKF_CODEC_END] = { 0 }, bytes[CKF_CODEC_END] = { 0 };
	uint64_t ns[CKF_CODEC_END] = { 0 };
	struct ckf_codec_ctx *codecs = NULL;
	int fd = ckf_image_open_pack(insp->img, insp->img->dir_fd, 0, NULL);

	insp->speeds = ckf_model_speeds;
	if (fd >= 0 && !ckf_codec_ctx_new(&codecs)) {
		if (!insp->archive)
			(void)posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM);
		for (uint64_t i = 0; i < idx->nr_chunks; i++) {
			const struct ckf_chunk *c = &idx->chunks[i];
			uint64_t step = insp->codecs[c->codec].nr_chunks / CHUNKS_TIMED + 1;

			if (c->codec > CKF_CODEC_RAW && !c->base && seen[c->codec]++ % step == 0)
				time_chunk(c, fd, insp->img->pack_start, codecs, &bytes[c->codec],
					   &ns[c->codec]);
		}
	}
	for (uint32_t k = 0; k < CKF_CODEC_END; k++) {
		if (ns[k])
			insp->speeds.decode[k] = (uint64_t)((double)bytes[k] * 1e9 / (double)ns[k]);
	}
	ckf_codec_ctx_free(codecs);
	if (fd >= 0)
		close(fd);
}

static int gather_image(struct insp *insp)
{
	const struct ckf_index *idx = insp->img->idx;
	uint64_t unique_bytes = 0, used_bytes;
	struct stat st;

	insp->targets = calloc(idx->nr_targets + 1, sizeof(*insp->targets));
	insp->bases = calloc(idx->nr_bases + 1, sizeof(*insp->bases));
	if (!insp->targets || !insp->bases)
		return -ENOMEM;
	for (uint32_t i = 0; i < idx->nr_bases; i++)
		ckf_image_check_base(insp->img, i + 1, &insp->bases[i].err);
	if (insp->archive)
		insp->idx_bytes = ckf_members_find(insp->dir.members, CKF_IDX_NAME)->bytes;
	else if (!fstatat(insp->img->dir_fd, CKF_IDX_NAME, &st, AT_SYMLINK_NOFOLLOW))
		insp->idx_bytes = (uint64_t)st.st_size;
	for (uint64_t i = 0; i < idx->nr_chunks; i++)
		unique_bytes += gather_chunk(insp, &idx->chunks[i]);
	for (uint64_t i = 0; i < idx->nr_files; i++) {
		insp->nr_files[idx->files[i].kind]++;
		add(&insp->file_bytes[idx->files[i].kind], idx->files[i].size_bytes);
	}
	for (uint64_t i = 0; i < idx->nr_targets; i++)
		gather_target(insp, i);
	for (uint64_t i = 0; i < idx->nr_huge; i++) {
		uint64_t bytes = (uint64_t)idx->huge[i].nr_huge * CKF_HUGE_BYTES;

		insp->targets[idx->huge[i].target].huge_bytes += bytes;
		insp->sum.huge_bytes += bytes;
	}
	used_bytes = insp->sum.fill_bytes - insp->sum.zero_bytes;
	insp->dup_bytes = used_bytes > unique_bytes ? used_bytes - unique_bytes : 0;
	insp->nr_extents = (idx->pack_bytes + idx->extent_bytes - 1) / idx->extent_bytes;
	return ckf_model_work(idx, &insp->work);
}

const char *insp_feature_name(unsigned int bit)
{
	static const char *const names[] = { "lz4",	  "zstd",	 "bf16",
					     "bases",	  "devices",	 "packed",
					     "page-sums", "sized-pages", "headed-pages" };

	return bit < sizeof(names) / sizeof(names[0]) ? names[bit] : NULL;
}

const char *insp_task_name(const struct insp *insp, uint64_t pid, char *buf, size_t buf_bytes)
{
	for (uint64_t i = 0; i < insp->nr_tasks; i++)
		if (insp->tasks[i].pid == pid && insp->tasks[i].task)
			return cli_escape(insp->tasks[i].task->comm, buf, buf_bytes);
	return "(not in pstree.img)";
}

double insp_lane_balance(const struct insp_target *it, uint64_t nr_lanes)
{
	if (!nr_lanes || !it->fill_bytes)
		return 0;
	return (double)it->max_lane_bytes * (double)nr_lanes / (double)it->fill_bytes;
}

void insp_measure(struct insp *insp)
{
	insp->process_s = insp_process_s();
	insp->core_s = insp_rehearse(insp);
	if (insp->core_s < 0)
		time_chunks(insp);
}

double insp_estimate_s(const struct insp *insp, const struct ckf_storage *s)
{
	const double criu_s = ckf_model_tasks_s(insp->work.nr_tasks, insp->process_s, ckf_cpus()) +
			      ckf_model_cold_s(&insp->work, s);

	if (insp->core_s >= 0)
		return criu_s + ckf_model_fill_of_s(&insp->work, s, insp->core_s);
	return criu_s + ckf_model_fill_s(&insp->speeds, &insp->work, s, ckf_pool_threads(0));
}

uint64_t insp_restored_bytes(const struct insp *insp)
{
	return insp->sum.fill_bytes - insp->sum.inherit_bytes;
}

static int open_dir(struct insp *insp, struct ckf_error *err)
{
	int ret;

	insp->dir.fd = -1;
	if (ckf_checkpoint_probe(insp->path)) {
		ret = ckf_checkpoint_open(insp->path, &insp->archive, err);
		if (!ret)
			insp->dir = *ckf_archive_dir(insp->archive);
		return ret;
	}
	insp->dir.fd = open(insp->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (insp->dir.fd < 0)
		return ckf_error_set(err, -errno, "cannot open: %s", strerror(errno));
	return 0;
}

int insp_open(const char *path, const struct cli_bases *bases, struct insp *insp,
	      struct ckf_error *err)
{
	const struct ckf_image_opts opts = {
		.size = sizeof(opts),
		.base_dirs = bases->dirs,
		.nr_base_dirs = bases->nr,
		.no_bases = true,
	};
	int rc, why = 0;

	memset(insp, 0, sizeof(*insp));
	insp->path = path;
	rc = open_dir(insp, err);
	if (!rc &&
	    (insp->archive ? ckf_archive_is_fast(insp->archive) : ckf_image_probe(insp->dir.fd)))
		rc = ckf_image_open_dir(&insp->dir, &opts, &insp->img, err);
	if (!rc)
		rc = ckf_dump_open_dir(&insp->dir, insp->img != NULL, &insp->dump, err);
	if (!rc && !insp->img)
		why = ckf_dump_check(insp->dump, &insp->incomplete);
	/* There is nothing to show of what a failed dump has left. */
	if (!rc && why && why != -ENOENT && !insp->dump->nr_tasks && !insp->dump->nr_pagemaps)
		rc = ckf_error_set(err, why, "%s", insp->incomplete.msg);
	if (!rc && why == -ENOENT)
		rc = ckf_error_set(err, -ENOENT,
				   "neither a fast image nor a CRIU dump: there is no ckfast.idx, "
				   "no inventory.img and no pagemap");
	if (rc)
		return rc;
	rc = gather_dump(insp);
	if (!rc && insp->img)
		rc = gather_image(insp);
	if (rc)
		ckf_error_set(err, rc, "no memory for what is to be shown");
	return rc;
}

void insp_close(struct insp *insp)
{
	ckf_dump_close(insp->dump);
	ckf_image_close(insp->img);
	ckf_archive_close(insp->archive);
	if (!insp->archive && insp->dir.fd >= 0)
		close(insp->dir.fd);
	free(insp->tasks);
	free(insp->targets);
	free(insp->bases);
}

/* SPDX-License-Identifier: MIT */
/*
 * What a directory and an archive have in common: the pages of the dump become the pack, and all
 * that is known of them the index. What codecs are chosen for is decided here.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/ckf_io_util.h"
#include "ckf_model.h"
#include "conversion.h"
#include "loader/ckf_memory.h"
#include "plan.h"
#include "source.h"

/* A smaller dump is restored in no time from anything: not worth a measurement. */
#define MEASURE_FROM_BYTES (256ull << 20)
/* Chunks are about as long. */
#define SAMPLE_PAGES 16u
#define NR_SAMPLES 48u

int ckf_conversion_check_unchanged(struct ckf_conversion *c, const struct ckf_file *f)
{
	struct stat st;
	bool gone = fstatat(c->dir.fd, f->name, &st, 0) != 0;

	if (gone && errno != ENOENT)
		return ckf_error_set(c->err, -errno, "cannot stat %s: %s", f->name,
				     strerror(errno));
	if (gone || !ckf_file_unchanged(f, &st))
		return ckf_error_set(c->err, -EBADMSG, "%s changed while it was read", f->name);
	return 0;
}

static const struct ckf_task *target_task(const struct ckf_conversion *c, uint64_t target)
{
	const struct ckf_pagemap *pm = &c->dump->pagemaps[target];

	return pm->kind == CKF_TARGET_TASK ? ckf_dump_find_task(c->dump, pm->id) : NULL;
}

static bool is_packed(const struct ckf_conversion *c, uint64_t target)
{
	const int64_t file = c->pages_file[target];

	return file != CKF_NO_FILE && c->list.files[file].kind == CKF_FILE_CUT_PAGES;
}

/* Those of the pages file of a target. A plain one may have more than its pagemap names. */
static uint64_t local_pages(const struct ckf_conversion *c, uint64_t target)
{
	if (c->pages_file[target] == CKF_NO_FILE)
		return 0;
	if (is_packed(c, target))
		return c->dump->pagemaps[target].nr_local_pages;
	return ckf_file_page_bytes(&c->list.files[c->pages_file[target]]) / CKF_PAGE_BYTES;
}

/* The runs of a target are of no use any more: they may take more memory than all the rest. */
static void drop_runs(struct ckf_conversion *c, uint64_t target)
{
	struct ckf_pagemap *pm = &c->dump->pagemaps[target];

	if (c->open_streams[target] || c->target <= target)
		return;
	free(pm->runs);
	pm->runs = NULL;
	pm->nr_runs = 0;
}

/* The pack is for those only who may read all of the pages files that it holds. */
static int narrow_access(struct ckf_conversion *c, const struct ckf_stream *s,
			 struct ckf_error *err)
{
	struct ckf_access a, dir;
	struct ckf_file_part part;
	int ret = ckf_chain_open_pages(&c->chain, &s->origin, &part, err);

	if (ret)
		return ret;
	ret = ckf_access_get_part(&part, &a);
	close(part.fd);
	if (!ret && s->origin.level)
		ret = ckf_access_get(c->chain.levels[s->origin.level].dir.fd, &dir);
	if (ret)
		return ckf_error_set(err, ret, "cannot stat a pages file: %s", strerror(-ret));
	ckf_access_narrow(&c->out.memory, &a);
	/* The image's own directory gets the mode of the dump's. */
	if (s->origin.level)
		ckf_access_narrow_by_dir(&c->out.memory, &dir);
	else
		c->list.files[c->pages_file[s->target]].mode &= a.mode;
	return 0;
}

/* The stream of one level of the target at hand; *s stays NULL where that level has no pages. */
static int make_stream(struct ckf_conversion *c, struct ckf_stream **s, struct ckf_error *err)
{
	const struct ckf_pagemap *pm = &c->dump->pagemaps[c->target];
	int64_t file = c->pages_file[c->target];
	struct ckf_parent_query q = {
		.chain = &c->chain,
		.level = c->level,
		.pm = pm,
		.task = target_task(c, c->target),
		.runs = c->level == 1 ? pm->runs : c->left.runs,
		.nr_runs = c->level == 1 ? pm->nr_runs : c->left.nr_runs,
	};
	struct ckf_leftover left = { 0 };
	int ret;

	if (!c->level) {
		const uint64_t pages = local_pages(c, c->target);
		const bool packed = is_packed(c, c->target);

		if (file == CKF_NO_FILE || (packed && !pages))
			return 0;
		ret = ckf_stream_local(pm, pages, q.task, s, err);
		if (!ret)
			(*s)->is_file = !packed;
		return ret;
	}
	ret = ckf_stream_parent(&q, s, &left, err);
	free(c->left.runs);
	c->left = left;
	if (!ret && !(*s)->nr_pages) {
		ckf_stream_free(*s);
		*s = NULL;
	}
	return ret;
}

/* Workers of one server, say. */
static bool has_twin(const struct ckf_conversion *c)
{
	uint64_t pages = c->dump->pagemaps[c->target].nr_local_pages;

	for (uint64_t i = c->target + 1; i < c->dump->nr_pagemaps; i++) {
		uint64_t n = c->dump->pagemaps[i].nr_local_pages;

		if (n >= pages / 2 && n / 2 <= pages)
			return true;
	}
	return false;
}

static bool more_levels(const struct ckf_conversion *c)
{
	const struct ckf_pagemap *pm = &c->dump->pagemaps[c->target];

	if (c->level == 1)
		return pm->nr_pages > pm->nr_local_pages;
	return c->level == 0 || c->left.nr_runs > 0;
}

/* The bytes of compressed pages files lie behind all that is restored. */
static int next_bytes(struct ckf_conversion *c, struct ckf_stream **s, struct ckf_error *err)
{
	int ret = 0;

	while (!*s && !ret && c->bytes_target < c->dump->nr_pagemaps) {
		uint64_t target = c->bytes_target++;
		int64_t file = c->pages_file[target];

		if (!is_packed(c, target))
			continue;
		ret = ckf_stream_bytes(&c->dump->pagemaps[target], c->list.files[file].size_bytes,
				       s, err);
		if (!ret)
			(*s)->target = target;
	}
	return ret;
}

/* *s stays NULL at the end. */
static int next_pages(struct ckf_conversion *c, struct ckf_stream **s, struct ckf_error *err)
{
	int ret = 0;

	while (!*s && !ret && c->target < c->dump->nr_pagemaps) {
		if (!more_levels(c)) {
			free(c->left.runs);
			c->left = (struct ckf_leftover){ 0 };
			c->level = 0;
			c->target++;
			drop_runs(c, c->target - 1);
			continue;
		}
		ret = make_stream(c, s, err);
		c->level++;
		if (*s) {
			(*s)->target = c->target;
			(*s)->has_twin = has_twin(c);
		}
	}
	return ret;
}

static int next_stream(void *arg, struct ckf_stream **s, struct ckf_error *err)
{
	struct ckf_conversion *c = arg;
	int ret;

	*s = NULL;
	ret = next_pages(c, s, err);
	if (!ret && !*s)
		ret = next_bytes(c, s, err);
	if (ret || !*s)
		return ret;
	ret = narrow_access(c, *s, err);
	if (ret)
		return ret;
	c->open_streams[(*s)->target]++;
	return 1;
}

static void stream_done(void *arg, const struct ckf_stream *s)
{
	struct ckf_conversion *c = arg;

	c->open_streams[s->target]--;
	drop_runs(c, s->target);
}

/* All that goes through the pipeline: the pages, and compressed pages files as they are. */
static uint64_t pipeline_bytes(const struct ckf_conversion *c)
{
	uint64_t bytes = c->stats.page_bytes;

	for (uint64_t i = 0; i < c->list.nr_files; i++) {
		if (c->list.files[i].kind == CKF_FILE_CUT_PAGES)
			bytes += ckf_file_page_bytes(&c->list.files[i]);
	}
	return bytes;
}

/*
 * Whether the pack, which is at most as long as what it is made of, may stay in the page cache: a
 * restore right afterwards then finds it there, as a stock one finds the dump. Others need memory,
 * too.
 */
static bool fits_cache(const struct ckf_conversion *c)
{
	int proc_fd = open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC);
	uint64_t available;

	if (proc_fd < 0 || ckf_memory_available(proc_fd, &available))
		available = 0;
	if (proc_fd >= 0)
		close(proc_fd);
	return pipeline_bytes(c) <= available / 2;
}

static int read_pages(struct ckf_conversion *c, uint64_t target, uint64_t page, uint32_t nr_pages,
		      uint8_t *data)
{
	struct ckf_origin origin = ckf_origin_of(&c->dump->pagemaps[target]);
	const struct ckf_extent x = { page & CKF_MAX_FILE_PAGES, (uint16_t)nr_pages };
	struct ckf_place at = { .origin = origin, .extents = { x }, .nr = 1 };
	struct ckf_file_part part;
	int ret;

	if (is_packed(c, target))
		return ckf_place_read(&c->chain, &at, data, c->err);
	ret = ckf_chain_open_pages(&c->chain, &origin, &part, c->err);
	if (ret)
		return ret;
	/* No more than that into the page cache: the file is read elsewhere next. */
	if (!part.member)
		(void)posix_fadvise(part.fd, 0, 0, POSIX_FADV_RANDOM);
	ret = ckf_pread_all(part.fd, data, (size_t)ckf_pages_to_bytes(nr_pages),
			    part.off + ckf_origin_head_bytes(&origin) + ckf_pages_to_bytes(page));
	close(part.fd);
	return ret ? ckf_error_set(c->err, ret, "cannot read a sample of the pages: %s",
				   strerror(-ret))
		   : 0;
}

/* Up to SAMPLE_PAGES pages from a place of the local pages files, or none where they are zero. */
static int read_sample(struct ckf_conversion *c, uint64_t page, uint8_t *data, uint32_t *nr_pages)
{
	uint64_t i = 0, left = 0;
	int ret;

	*nr_pages = 0;
	for (; i < c->dump->nr_pagemaps; i++) {
		left = local_pages(c, i);
		if (page < left)
			break;
		page -= left;
	}
	if (i == c->dump->nr_pagemaps)
		return 0;
	left -= page;
	if (left > SAMPLE_PAGES)
		left = SAMPLE_PAGES;
	ret = read_pages(c, i, page, (uint32_t)left, data);
	if (ret)
		return ret;
	if (!ckf_is_zero(data, (size_t)ckf_pages_to_bytes(left)))
		*nr_pages = (uint32_t)left;
	return 0;
}

/* How fast the pages of this dump decode: from samples at places that depend on its size alone. */
static int measure_costs(struct ckf_conversion *c, struct ckf_decode_costs *costs)
{
	uint8_t *data = aligned_alloc(CKF_PAGE_BYTES, SAMPLE_PAGES * CKF_PAGE_BYTES);
	struct ckf_worker *w = ckf_worker_new(CKF_ENCODE_SCRATCH_BYTES);
	uint64_t pages = 0;
	uint32_t nr_pages;
	int ret;

	for (uint64_t i = 0; i < c->dump->nr_pagemaps; i++)
		pages += local_pages(c, i);
	ret = data && w ? 0 : -ENOMEM;
	for (uint64_t i = 0; i < NR_SAMPLES && !ret; i++) {
		ret = read_sample(c, pages / NR_SAMPLES * i, data, &nr_pages);
		if (!ret && nr_pages)
			ret = ckf_decode_costs_sample(costs, w, &ckf_clock_real, data, nr_pages);
	}
	if (!ret)
		ret = ckf_decode_costs_finish(costs, w, &ckf_clock_real);
	ckf_worker_free(w);
	free(data);
	return ret ? ckf_error_set(c->err, ret, "cannot measure: %s", strerror(-ret)) : 0;
}

/* After this, opts.storage says what codecs are chosen for. */
static void choose_storage(struct ckf_conversion *c)
{
	struct ckf_storage *s = &c->opts.storage;
	const int dir_fd = c->archive ? c->out.parent_fd : c->out.dir_fd;

	if (s->bytes_per_s)
		return;
	if (ckf_storage_is_ram(dir_fd))
		ckf_profile_get(CKF_PROFILE_RAM, s);
	else if (c->stats.page_bytes < MEASURE_FROM_BYTES)
		ckf_profile_get(CKF_PROFILE_NVME, s);
	else
		ckf_storage_measure(dir_fd, s);
}

/* A storage that the user has named and that is slower than memory is meant. */
static enum ckf_encode_goal goal_of(const struct ckf_conversion *c, const struct ckf_storage *named)
{
	struct ckf_storage ram;

	ckf_profile_get(CKF_PROFILE_RAM, &ram);
	if (c->opts.smallest)
		return CKF_GOAL_SMALL;
	return named->bytes_per_s && named->bytes_per_s < ram.bytes_per_s ? CKF_GOAL_FAST
									  : CKF_GOAL_FAST_WARM;
}

/* What codecs are chosen for, and by which speeds. */
static int choose_encoding(struct ckf_conversion *c)
{
	struct ckf_encode_opts *e = &c->encode;

	e->codec = c->opts.codec;
	e->level = c->opts.level;
	e->costs = &c->costs;
	e->goal = goal_of(c, &c->opts.storage);
	ckf_decode_costs_default(&c->costs);
	if (e->codec != CKF_CODEC_AUTO || e->goal == CKF_GOAL_SMALL)
		return 0;
	choose_storage(c);
	e->storage = c->opts.storage;
	return c->stats.page_bytes < MEASURE_FROM_BYTES ? 0 : measure_costs(c, &c->costs);
}

static int convert_pages(struct ckf_conversion *c)
{
	struct ckf_pipeline_opts p = {
		.user = &c->opts,
		.chain = &c->chain,
		.bases = c->bases,
		.pack_fd = c->pack_fd,
		.pack_start = c->pack_start,
		.encode = c->encode,
		.keep_cached = !c->opts.no_cache && fits_cache(c),
		.total_bytes = pipeline_bytes(c),
		.next_stream = next_stream,
		.stream_done = stream_done,
		.arg = c,
	};
	int ret;

	ret = ckf_build_init(&c->build, c->opts.extent_bytes, c->dump->nr_pagemaps, c->err);
	if (!ret)
		ret = ckf_pipeline_run(&p, &c->build, c->err);
	/* Later matches were compared with what the files had then. */
	for (uint64_t i = 0; i < c->list.nr_files && !ret && !c->archive; i++) {
		if (ckf_file_has_pages(&c->list.files[i]))
			ret = ckf_conversion_check_unchanged(c, &c->list.files[i]);
	}
	return ret;
}

/* Gives the files what the build knows of them, in the order of names. */
static int finish_files(struct ckf_conversion *c)
{
	uint64_t nr = 0;
	uint64_t *order = malloc((size_t)(c->dump->nr_pagemaps + 1) * sizeof(*order));
	int ret;

	if (!order)
		return ckf_error_set(c->err, -ENOMEM, "no memory for the index");
	for (uint64_t i = 0; i < c->list.nr_files; i++) {
		if (ckf_file_has_pages(&c->list.files[i]))
			order[nr++] = c->pagemap_of[i];
	}
	ret = ckf_build_order_refs(&c->build, order, nr, c->err);
	for (uint64_t k = 0; k < nr && !ret; k++) {
		const struct ckf_build_pages *p = &c->build.pages[order[k]];
		struct ckf_file *f = &c->list.files[c->pages_file[order[k]]];

		f->first_ref = p->first_ref;
		f->nr_refs = p->nr_refs;
		f->checksum = p->checksum;
	}
	free(order);
	return ret;
}

static int make_index(struct ckf_conversion *c)
{
	struct ckf_build *b = &c->build;
	int ret = ckf_build_finish(b, c->err);

	if (!ret)
		ret = finish_files(c);
	if (ret)
		return ret;
	c->idx = (struct ckf_index){
		.storage = c->opts.storage,
		.pack_bytes = b->pack_bytes,
		.extent_bytes = c->opts.extent_bytes,
		.max_chunk_pages = CKF_CUT_MAX_PAGES,
		.version_major = CKF_VERSION_MAJOR,
		.version_minor = CKF_VERSION_MINOR,
		.page_sums = true,
		.chunks = b->chunks,
		.nr_chunks = b->nr_chunks,
		.refs = b->refs,
		.nr_refs = b->nr_refs,
		.files = c->list.files,
		.nr_files = c->list.nr_files,
		.targets = b->targets,
		.nr_targets = b->nr_targets,
		.ops = b->ops,
		.nr_ops = b->nr_ops,
	};
	b->ops = NULL; /* the plan may replace them */
	for (uint64_t i = 0; i < b->nr_targets; i++) {
		const struct ckf_pagemap *pm = &c->dump->pagemaps[i];

		b->targets[i].kind = pm->kind;
		b->targets[i].id = pm->id;
		b->targets[i].file = (uint32_t)ckf_file_list_find(&c->list, pm->name);
	}
	ret = c->bases ? ckf_bases_list(c->bases, &c->idx, c->out.path, c->err) : 0;
	if (ret)
		return ret;
	return ckf_plan_build(&c->idx, c->dump, c->err);
}

int ckf_conversion_make(struct ckf_conversion *c)
{
	int ret = choose_encoding(c);

	if (!ret)
		ret = convert_pages(c);
	if (!ret)
		ret = make_index(c);
	return ret;
}

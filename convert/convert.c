/* SPDX-License-Identifier: MIT */
/* ckf_convert(): from the directory of a dump to the directory of a fast image. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "format/ckf_codec.h"
#include "loader/ckf_image.h"
#include "base/ckf_io_util.h"
#include "base/ckf_opts.h"
#include "base/ckf_threads.h"
#include "ckf_model.h"
#include "conversion.h"
#include "img.h"
#include "memory.h"
#include "plan.h"
#include "user.h"

/* A chunk that does not fit into the rest of an extent leaves it empty: large ones waste less. */
#define DEFAULT_EXTENT_BYTES CKF_MAX_EXTENT_BYTES
/* A smaller dump is restored in no time from anything: not worth a measurement. */
#define MEASURE_FROM_BYTES (256ull << 20)
/* Chunks are about as long. */
#define SAMPLE_PAGES 16u
#define NR_SAMPLES 48u

static int check_opts(const struct ckf_conversion *c)
{
	const struct ckf_convert_opts *o = &c->opts;
	int min = 0, max = 0;

	if (o->codec != CKF_CODEC_AUTO && o->codec != CKF_CODEC_RAW && o->codec != CKF_CODEC_LZ4 &&
	    o->codec != CKF_CODEC_ZSTD && o->codec != CKF_CODEC_BF16)
		return ckf_error_set(c->err, -EINVAL, "unknown codec %d", o->codec);
	if (o->codec != CKF_CODEC_AUTO)
		ckf_codec_levels((uint32_t)o->codec, &min, &max);
	if (o->smallest && o->codec != CKF_CODEC_AUTO)
		return ckf_error_set(c->err, -EINVAL, "the smallest image is not one of one codec");
	if (o->level && (o->level < min || o->level > max))
		return ckf_error_set(c->err, -EINVAL,
				     "level %d is not one of this codec (%d to %d)", o->level, min,
				     max);
	if (o->storage.bytes_per_s && !o->storage.nr_cores)
		return ckf_error_set(c->err, -EINVAL, "no core is there to decode");
	if (o->extent_bytes != CKF_MIN_EXTENT_BYTES && o->extent_bytes != 8u << 20 &&
	    o->extent_bytes != CKF_MAX_EXTENT_BYTES)
		return ckf_error_set(c->err, -EINVAL, "an extent has 4, 8 or 16 MiB, not %u bytes",
				     o->extent_bytes);
	return 0;
}

static int copy_verbatim(struct ckf_conversion *c, struct ckf_file *f)
{
	struct ckf_copy copy = { .name = f->name, .want_bytes = f->size_bytes };
	int ret;

	ret = ckf_open_of_dump(&c->dir, f->name, &copy.src);
	if (ret)
		return ckf_error_set(c->err, ret, "cannot open %s: %s", f->name, strerror(-ret));
	copy.dst_fd = ckf_output_create(&c->out, f->name, c->err);
	if (copy.dst_fd < 0) {
		close(copy.src.fd);
		return copy.dst_fd;
	}
	if (ckf_access_has_acl(copy.src.fd))
		f->mode &= ~(uint32_t)S_IRWXG;
	ret = ckf_copy_file(&copy, &c->opts, &f->checksum, c->err);
	close(copy.src.fd);
	if (ret)
		close(copy.dst_fd);
	else
		ret = ckf_finish_image_file(&c->out, copy.dst_fd, f, c->err);
	c->stats.other_bytes += f->size_bytes;
	return ret;
}

static int copy_files(struct ckf_conversion *c)
{
	int ret = 0;

	for (uint64_t i = 0; i < c->list.nr_files && !ret; i++) {
		struct ckf_file *f = &c->list.files[i];

		if (f->kind == CKF_FILE_VERBATIM)
			ret = copy_verbatim(c, f);
		else if (f->kind == CKF_FILE_SYMLINK)
			f->checksum = ckf_hash64(f->target, strlen(f->target));
	}
	return ret;
}

static const struct ckf_task *target_task(const struct ckf_conversion *c, uint64_t target)
{
	const struct ckf_pagemap *pm = &c->dump->pagemaps[target];

	return pm->kind == CKF_TARGET_TASK ? ckf_dump_find_task(c->dump, pm->id) : NULL;
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
		c->list.files[c->pages_file[c->target]].mode &= a.mode;
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
		if (file == CKF_NO_FILE)
			return 0;
		return ckf_stream_local(pm,
					ckf_file_page_bytes(&c->list.files[file]) / CKF_PAGE_BYTES,
					q.task, s, err);
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

static int next_stream(void *arg, struct ckf_stream **s, struct ckf_error *err)
{
	struct ckf_conversion *c = arg;
	int ret;

	*s = NULL;
	while (c->target < c->dump->nr_pagemaps) {
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
		if (ret)
			return ret;
		if (*s) {
			ret = narrow_access(c, *s, err);
			if (ret)
				return ret;
			(*s)->target = c->target;
			(*s)->has_twin = has_twin(c);
			c->open_streams[c->target]++;
			return 1;
		}
	}
	return 0;
}

static void stream_done(void *arg, const struct ckf_stream *s)
{
	struct ckf_conversion *c = arg;

	c->open_streams[s->target]--;
	drop_runs(c, s->target);
}

/* Later matches were compared with what the file had then. */
static int check_unchanged(struct ckf_conversion *c, const struct ckf_file *f)
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

/*
 * Whether the pack, which is at most as long as the pages, may stay in the page cache: a restore
 * right afterwards then finds it there, as a stock one finds the dump. Others need memory, too.
 */
static bool fits_cache(const struct ckf_conversion *c)
{
	int proc_fd = open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC);
	uint64_t available = proc_fd >= 0 ? ckf_memory_available(proc_fd) : 0;

	if (proc_fd >= 0)
		close(proc_fd);
	return c->stats.page_bytes <= available / 2;
}

/* Up to SAMPLE_PAGES pages from a place of the local pages files, or none where they are zero. */
static int read_sample(struct ckf_conversion *c, uint64_t page, uint8_t *data, uint32_t *nr_pages)
{
	uint64_t i = 0, left = 0;
	struct ckf_origin origin;
	struct ckf_file_part part;
	int ret;

	*nr_pages = 0;
	for (; i < c->dump->nr_pagemaps; i++) {
		left = c->pages_file[i] == CKF_NO_FILE
			       ? 0
			       : ckf_file_page_bytes(&c->list.files[c->pages_file[i]]) /
					 CKF_PAGE_BYTES;
		if (page < left)
			break;
		page -= left;
	}
	if (i == c->dump->nr_pagemaps)
		return 0;
	left -= page;
	if (left > SAMPLE_PAGES)
		left = SAMPLE_PAGES;
	origin = ckf_origin_of(&c->dump->pagemaps[i]);
	ret = ckf_chain_open_pages(&c->chain, &origin, &part, c->err);
	if (ret)
		return ret;
	/* No more than that into the page cache: the file is read elsewhere next. */
	if (!part.member)
		(void)posix_fadvise(part.fd, 0, 0, POSIX_FADV_RANDOM);
	ret = ckf_pread_all(part.fd, data, (size_t)ckf_pages_to_bytes(left),
			    part.off + ckf_origin_head_bytes(&origin) + ckf_pages_to_bytes(page));
	close(part.fd);
	if (ret)
		return ckf_error_set(c->err, ret, "cannot read a sample of the pages: %s",
				     strerror(-ret));
	if (!ckf_is_zero(data, (size_t)ckf_pages_to_bytes(left)))
		*nr_pages = (uint32_t)left;
	return 0;
}

/* How fast the pages of this dump decode: from samples at places that depend on its size alone. */
static int measure_costs(struct ckf_conversion *c, struct ckf_decode_costs *costs)
{
	uint8_t *data = aligned_alloc(CKF_PAGE_BYTES, SAMPLE_PAGES * CKF_PAGE_BYTES);
	struct ckf_worker w = { 0 };
	uint64_t pages = 0;
	uint32_t nr_pages;
	int ret;

	for (uint64_t i = 0; i < c->list.nr_files; i++) {
		if (ckf_file_has_pages(&c->list.files[i]))
			pages += ckf_file_page_bytes(&c->list.files[i]) / CKF_PAGE_BYTES;
	}
	w.scratch = aligned_alloc(CKF_PAGE_BYTES, CKF_ENCODE_SCRATCH_BYTES);
	ret = data && w.scratch ? ckf_codec_ctx_new(&w.codec) : -ENOMEM;
	for (uint64_t i = 0; i < NR_SAMPLES && !ret; i++) {
		ret = read_sample(c, pages / NR_SAMPLES * i, data, &nr_pages);
		if (!ret && nr_pages)
			ret = ckf_decode_costs_sample(costs, &w, &ckf_clock_real, data, nr_pages);
	}
	if (!ret)
		ret = ckf_decode_costs_finish(costs, &w, &ckf_clock_real);
	ckf_codec_ctx_free(w.codec);
	free(w.scratch);
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
		.total_bytes = c->stats.page_bytes,
		.next_stream = next_stream,
		.stream_done = stream_done,
		.arg = c,
	};
	int ret;

	ret = ckf_build_init(&c->build, c->opts.extent_bytes, c->dump->nr_pagemaps, c->err);
	if (!ret)
		ret = ckf_pipeline_run(&p, &c->build, c->err);
	for (uint64_t i = 0; i < c->list.nr_files && !ret && !c->archive; i++) {
		if (ckf_file_has_pages(&c->list.files[i]))
			ret = check_unchanged(c, &c->list.files[i]);
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

static void fill_stats(struct ckf_conversion *c)
{
	struct ckf_convert_stats *s = &c->stats;

	s->zero_bytes = c->build.zero_bytes;
	s->dup_bytes = c->build.dup_bytes;
	s->base_bytes = c->build.base_bytes;
	s->nr_bases = c->idx.nr_bases;
	s->stored_bytes = c->build.stored_bytes;
	s->pack_bytes = c->idx.pack_bytes;
	s->nr_chunks = c->idx.nr_chunks;
	s->nr_tasks = c->dump->nr_tasks;
	s->nr_left_out = c->list.nr_left_out;
	s->storage = c->opts.storage;
}

/* In place, what is left out would be lost. */
static int check_complete(const struct ckf_conversion *c)
{
	if (!c->list.nr_left_out && !c->has_tails)
		return 0;
	return ckf_error_set(c->err, -EINVAL,
			     "some of it cannot be in a fast image: convert it to another "
			     "directory, or remove what the warnings name");
}

/* fast NULL: in place. */
static int open_output(struct ckf_conversion *c, const char *fast)
{
	int ret;

	if (!fast)
		return ckf_output_open_in_place(&c->out, &c->in_place, CKF_IDX_NAME, c->err);
	ret = ckf_output_open(&c->out, fast, CKF_IDX_NAME, c->opts.force, c->err);
	if (ret)
		return ret;
	ret = ckf_output_check_outside(&c->out, c->dir.fd, c->err);
	if (!ret)
		ret = ckf_output_like_dir(&c->out, c->dir.fd, c->err);
	return ret;
}

/* Reads the image before it takes the place of what it is made from. */
static int check_in_place(struct ckf_conversion *c)
{
	const struct ckf_verify_opts v = { .size = sizeof(v), .threads = c->opts.threads };
	const struct ckf_image_opts o = {
		.size = sizeof(o),
		.base_dirs = c->opts.bases,
		.nr_base_dirs = c->opts.nr_bases,
	};
	struct ckf_image *img = NULL;
	int ret = ckf_image_open_opts(c->out.dir_fd, &o, &img, c->err);

	if (!ret)
		ret = ckf_verify(img, &v, NULL, c->err);
	if (!ret)
		ret = ckf_verify_plan(img, NULL, c->err);
	ckf_image_close(img);
	for (uint64_t i = 0; i < c->list.nr_files && !ret; i++) {
		if (c->list.files[i].kind == CKF_FILE_VERBATIM)
			ret = check_unchanged(c, &c->list.files[i]);
	}
	return ret;
}

static int put_into_place(struct ckf_conversion *c)
{
	int ret = ckf_user_stop(&c->opts, c->err);

	if (!ret)
		ret = ckf_output_seal(&c->out, CKF_IDX_PARTIAL_NAME, CKF_IDX_NAME, c->err);
	if (!ret && c->out.in_place)
		ret = check_in_place(c);
	if (!ret)
		ret = ckf_output_commit(&c->out, c->err);
	return ret;
}

static int convert_into(struct ckf_conversion *c, const char *fast)
{
	int ret = open_output(c, fast);

	if (!ret && c->bases)
		ret = ckf_bases_check_outside(c->bases, &c->out, c->err);
	if (!ret)
		ret = copy_files(c);
	if (!ret) {
		c->pack_fd = ckf_output_create(&c->out, CKF_PACK_NAME, c->err);
		if (c->pack_fd < 0)
			ret = c->pack_fd;
	}
	if (!ret)
		ret = ckf_conversion_make(c);
	if (!ret && !c->out.memory.known)
		ckf_access_narrow_by_dir(&c->out.memory, &c->out.dir);
	if (!ret)
		ret = ckf_write_index(&c->out, &c->idx, c->pack_fd, &c->stats.idx_bytes, c->err);
	if (!ret) {
		ret = ckf_finish_memory_file(&c->out, c->pack_fd, CKF_PACK_NAME, c->err);
		c->pack_fd = -1;
	}
	if (!ret)
		ret = ckf_write_readme(&c->out, &c->idx, c->err);
	if (!ret)
		ret = put_into_place(c);
	if (!ret)
		ckf_warn_own(&c->out, &c->opts);
	if (c->pack_fd >= 0)
		close(c->pack_fd);
	ckf_output_close(&c->out, c->opts.warn, c->opts.arg);
	return ret;
}

static void convert_free(struct ckf_conversion *c)
{
	free(c->idx.ops);
	free(c->idx.lanes);
	free(c->idx.huge);
	free(c->idx.bases);
	ckf_bases_free(c->bases);
	ckf_build_fini(&c->build);
	ckf_chain_fini(&c->chain);
	ckf_file_list_free(&c->list);
	ckf_dump_close(c->dump);
	free(c->pages_file);
	free(c->pagemap_of);
	free(c->open_streams);
	free(c->left.runs);
	if (c->dir.fd >= 0)
		close(c->dir.fd);
	ckf_archive_close(c->archive);
	free(c);
}

int ckf_convert(const char *dump, const char *fast, const struct ckf_convert_opts *opts,
		struct ckf_convert_stats *stats, struct ckf_error *err)
{
	struct ckf_conversion *c = calloc(1, sizeof(*c));
	const bool archive = ckf_archive_probe(dump);
	uint64_t start = ckf_now_ns();
	int ret;

	if (!c)
		return ckf_error_set(err, -ENOMEM, "no memory to convert");
	c->err = err;
	c->dump_path = dump;
	c->dir.fd = -1;
	c->pack_fd = -1;
	ret = ckf_opts_get(opts, &c->opts, err);
	if (!ret && stats)
		ret = CKF_OPTS_CHECK(ckf_convert_stats, stats, err);
	if (!c->opts.extent_bytes)
		c->opts.extent_bytes = DEFAULT_EXTENT_BYTES;
	if (!ret)
		ret = check_opts(c);
	if (!ret)
		ret = archive ? ckf_conversion_open_archive(c, fast) : ckf_conversion_open(c);
	if (!ret)
		ret = ckf_conversion_claim(c);
	if (!ret)
		ret = ckf_file_list_check(&c->list, c->err);
	if (!ret)
		ckf_file_list_warn(&c->list, &c->opts);
	if (!ret && !fast && !archive)
		ret = check_complete(c);
	if (!ret && c->opts.nr_bases)
		ret = ckf_bases_open(c->opts.bases, c->opts.nr_bases, &c->bases, c->err);
	if (!ret)
		ret = archive ? ckf_conversion_into_archive(c, fast) : convert_into(c, fast);
	if (!ret)
		fill_stats(c);
	c->stats.ns = ckf_now_ns() - start;
	if (!ret && stats)
		ckf_opts_give(stats, &c->stats, sizeof(c->stats));
	convert_free(c);
	return ret;
}

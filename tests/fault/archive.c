/* SPDX-License-Identifier: MIT */
/*
 * Checkpoint archives, and layouts of images with such layers, there and back; and a dump that is
 * converted in its own place.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ckfast.h"
#include "convert/sha256.h"
#include "tests/unit/archive_maker.h"
#include "tests/unit/dump_maker.h"
#include "world.h"

static const struct ckf_convert_opts options = {
	.size = sizeof(options),
	.codec = CKF_CODEC_LZ4,
	.threads = 2,
	/* What asks for memory takes failures for none; unit/memory tests that. */
	.no_cache = true,
};

/* The archives are in w->archives, a directory of their own. */
static void path_of(const char *dir, const char *name, char path[192])
{
	snprintf(path, 192, "%.127s/%s", dir, name);
}

static int convert(struct world *w, const char *name, struct ckf_error *err)
{
	char in[192], out[192];

	path_of(w->archives, name, in);
	path_of(w->out, "result", out);
	return ckf_convert(in, out, &options, NULL, err);
}

static int extract(struct world *w, const char *name, struct ckf_error *err)
{
	char in[192], out[192];

	path_of(w->archives, name, in);
	path_of(w->out, "result", out);
	return ckf_extract(in, out, &options, err);
}

static int run_convert(struct world *w, struct ckf_error *err)
{
	return convert(w, "in.tar.gz", err);
}

static int run_extract(struct world *w, struct ckf_error *err)
{
	return extract(w, "fast.tar", err);
}

static int run_layout(struct world *w, struct ckf_error *err)
{
	return convert(w, "layout.tar", err);
}

static int run_layout_back(struct world *w, struct ckf_error *err)
{
	return extract(w, "fast-layout.tar", err);
}

/* The archives are as they were; a result is whole and alone, or nothing. */
static const char *check(struct world *w, int ret, bool may_leave, uint64_t want)
{
	const long entries = dir_entries(w->out);
	const char *bad = NULL;

	if (dir_sum(w->archives, SUM_TIMES) != w->archives_sum)
		return "an archive has changed";
	if (!ret && dir_sum(w->out, 0) != want)
		bad = "the result is not what it should be, or not alone";
	else if (ret && entries && !may_leave)
		bad = "something is left of what failed";
	if (entries) {
		dm_remove(w->out);
		need(!mkdir(w->out, 0755), "cannot make a directory");
	}
	return bad;
}

static const char *check_convert(struct world *w, int ret, bool may_leave)
{
	return check(w, ret, may_leave, w->archive_fast_sum);
}

static const char *check_extract(struct world *w, int ret, bool may_leave)
{
	return check(w, ret, may_leave, w->archive_back_sum);
}

static const char *check_layout(struct world *w, int ret, bool may_leave)
{
	return check(w, ret, may_leave, w->layout_fast_sum);
}

static const char *check_layout_back(struct world *w, int ret, bool may_leave)
{
	return check(w, ret, may_leave, w->layout_back_sum);
}

/* In out there is a dump again, whatever an earlier run has left. */
static void prepare_in_place(struct world *w)
{
	struct ckf_error err = { 0 };
	char place[192];

	path_of(w->out, "result", place);
	if (dir_entries(w->out) == 1 && dir_sum(place, 0) == w->place_dump_sum)
		return;
	dm_remove(w->out);
	need(!mkdir(w->out, 0755), "cannot make a directory");
	need(!ckf_extract(w->place_fast, place, &options, &err), err.msg);
}

static int run_in_place(struct world *w, struct ckf_error *err)
{
	char place[192];

	path_of(w->out, "result", place);
	return ckf_convert(place, NULL, &options, NULL, err);
}

/* The dump or the image, whole; beside the image may be what could not be removed. */
static const char *check_in_place(struct world *w, int ret, bool may_leave)
{
	const char *bad = NULL;
	char place[192];
	uint64_t sum;

	path_of(w->out, "result", place);
	sum = dir_sum(place, 0);
	if (sum != w->place_fast_sum && (!ret || sum != w->place_dump_sum))
		bad = "what is there is neither dump nor image";
	else if (ret && sum == w->place_dump_sum && dir_entries(w->out) != 1 && !may_leave)
		bad = "something is left beside the dump";
	if (!ret || bad) {
		dm_remove(w->out);
		need(!mkdir(w->out, 0755), "cannot make a directory");
	}
	return bad;
}

/* What is left to do after the exchange: all is well without. */
#define REMOVE_POINTS (1ull << FAULT_OPEN | 1ull << FAULT_OPENDIR | 1ull << FAULT_READDIR)

const struct op archive_ops[] = {
	{ "in-place", 0, REMOVE_POINTS, prepare_in_place, run_in_place, check_in_place },
	{ "archive", 0, 0, NULL, run_convert, check_convert },
	{ "archive-back", 0, 0, NULL, run_extract, check_extract },
	{ "layout", 0, 0, NULL, run_layout, check_layout },
	{ "layout-back", 0, 0, NULL, run_layout_back, check_layout_back },
	{ 0 },
};

/* A blob of a layout, named by its digest. */
static void add_blob(struct am_tar *t, const void *p, size_t bytes, char hex[CKF_SHA256_HEX + 1])
{
	char name[128];

	ckf_sha256_mem(p, bytes, hex);
	snprintf(name, sizeof(name), "blobs/sha256/%s", hex);
	am_add(t, name, '0', p, bytes);
}

/* A layout with the image of a checkpoint, whose only layer is the archive. */
static void make_layout(struct world *w, const struct am_tar *layer)
{
	char layer_hex[CKF_SHA256_HEX + 1], hex[CKF_SHA256_HEX + 1], text[1024], path[192];
	struct ckf_error err = { 0 };
	struct am_tar t = { 0 };
	int n;

	am_add_text(&t, "oci-layout", '0', "{\"imageLayoutVersion\":\"1.0.0\"}");
	add_blob(&t, layer->p, layer->bytes, layer_hex);
	n = snprintf(text, sizeof(text), "{\"rootfs\":{\"diff_ids\":[\"sha256:%s\"]}}", layer_hex);
	add_blob(&t, text, (size_t)n, hex);
	n = snprintf(text, sizeof(text),
		     "{\"config\":{\"digest\":\"sha256:%s\",\"size\":%d},"
		     "\"layers\":[{\"digest\":\"sha256:%s\",\"size\":%zu}],"
		     "\"annotations\":{\"org.criu.checkpoint.name\":\"first\"}}",
		     hex, n, layer_hex, layer->bytes);
	add_blob(&t, text, (size_t)n, hex);
	n = snprintf(text, sizeof(text),
		     "{\"manifests\":[{\"mediaType\":"
		     "\"application/vnd.oci.image.manifest.v1+json\","
		     "\"digest\":\"sha256:%s\",\"size\":%d}]}",
		     hex, n);
	am_add(&t, "index.json", '0', text, (size_t)n);
	am_add_end(&t);
	path_of(w->archives, "layout.tar", path);
	am_write_file(path, t.p, t.bytes);
	free(t.p);
	path_of(w->archives, "fast-layout.tar", text);
	need(!ckf_convert(path, text, &options, NULL, &err), err.msg);
}

/* An archive of a small dump, the same compressed, and what is made of that. */
static void make_archives(struct world *w)
{
	struct ckf_error err = { 0 };
	void *state = NULL;
	struct am_env *e;
	struct am_tar fast;
	char path[192];
	uint8_t *buf;

	need(!am_setup(&state), "cannot make a dump");
	e = state;
	am_add_text(&e->tar, "config.dump", '0', "{}");
	am_add_dump(e, &e->tar, "checkpoint/");
	am_add_end(&e->tar);
	buf = malloc(2 * e->tar.bytes);
	need(buf, "no memory");
	path_of(w->archives, "in.tar.gz", path);
	am_write_file(path, buf, am_gzip(&e->tar, buf, 2 * e->tar.bytes));
	free(buf);
	make_layout(w, &e->tar);
	need(!ckf_convert(path, e->fast, &options, NULL, &err), err.msg);
	am_read_file(e->fast, &fast);
	path_of(w->archives, "fast.tar", path);
	am_write_file(path, fast.p, fast.bytes);
	free(fast.p);
	snprintf(w->place_fast, sizeof(w->place_fast), "%.100s/place", w->base);
	need(!ckf_convert(e->dump, w->place_fast, &options, NULL, &err), err.msg);
	w->place_dump_sum = dir_sum(e->dump, 0);
	w->place_fast_sum = dir_sum(w->place_fast, 0);
	am_teardown(&state);
}

void archive_init(struct world *w)
{
	struct ckf_error err = { 0 };

	close(dm_mkdir(w->base, "archives", w->archives, sizeof(w->archives)));
	make_archives(w);
	w->archives_sum = dir_sum(w->archives, SUM_TIMES);
	need(!run_convert(w, &err), err.msg);
	w->archive_fast_sum = dir_sum(w->out, 0);
	check_convert(w, 0, false);
	need(!run_extract(w, &err), err.msg);
	w->archive_back_sum = dir_sum(w->out, 0);
	check_extract(w, 0, false);
	need(!run_layout(w, &err), err.msg);
	w->layout_fast_sum = dir_sum(w->out, 0);
	check_layout(w, 0, false);
	need(!run_layout_back(w, &err), err.msg);
	w->layout_back_sum = dir_sum(w->out, 0);
	check_layout_back(w, 0, false);
	need(w->layout_fast_sum && w->layout_back_sum, "cannot read layouts");
	need(w->archives_sum && w->archive_fast_sum && w->archive_back_sum, "cannot read archives");
}

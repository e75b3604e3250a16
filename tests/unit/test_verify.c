/* SPDX-License-Identifier: MIT */
/*
 * ckf_verify() on a small image made here: passes when whole, and names the first broken byte of
 * the pack whatever the number of threads.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "format/ckf_codec.h"
#include "format/ckf_sum.h"
#include "loader/ckf_image.h"

#define EXTENT_BYTES CKF_MIN_EXTENT_BYTES
#define NR_EXTENTS 6
#define CHUNK_PAGES 256 /* 1 MiB */
#define CHUNK_BYTES ((size_t)CHUNK_PAGES * CKF_PAGE_BYTES)
#define PER_EXTENT 3 /* a fourth would fit: there is padding */
#define NR_STORED (NR_EXTENTS * PER_EXTENT)
#define NR_CHUNKS (1 + NR_STORED)
/* The last stored chunk belongs to no file; the zero chunk and chunk 1 are there twice. */
#define NR_REFS (NR_CHUNKS - 1 + 2)

static const char inventory[] = "not read by the loader";
static const char pagemap[] = "nor is this";

struct image {
	char dir[32];
	int dir_fd;
	struct ckf_index idx;
	struct ckf_chunk chunks[NR_CHUNKS];
	uint32_t refs[NR_REFS];
	struct ckf_file files[3];
	struct ckf_target target;
	struct ckf_op ops[NR_CHUNKS];
	struct ckf_lane lane;
	char *pack;
};

/* Compressible, different in each chunk, never zero. */
static void fill_chunk(char *p, uint32_t nr)
{
	for (size_t i = 0; i < CHUNK_BYTES; i++)
		p[i] = (char)(1 + (i / 64 + nr) % 100);
}

static void write_file(const struct image *im, const char *name, const void *p, size_t bytes)
{
	int fd = openat(im->dir_fd, name, O_WRONLY | O_CREAT | O_TRUNC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, p, bytes), bytes);
	close(fd);
}

static void store_chunks(struct image *im, char *decoded)
{
	struct ckf_codec_ctx *ctx;

	assert_int_equal(ckf_codec_ctx_new(&ctx), 0);
	im->chunks[0] = (struct ckf_chunk){ .nr_pages = CHUNK_PAGES,
					    .checksum = ckf_hash64_zeros(CHUNK_BYTES) };
	for (uint32_t i = 0; i < NR_STORED; i++) {
		struct ckf_chunk *c = &im->chunks[1 + i];
		uint64_t off = (uint64_t)(i / PER_EXTENT) * EXTENT_BYTES +
			       i % PER_EXTENT * CHUNK_BYTES + CKF_PAGE_BYTES;
		int64_t stored = CHUNK_BYTES;

		c->pack_off = off;
		c->nr_pages = CHUNK_PAGES;
		c->codec = (uint8_t)(CKF_CODEC_RAW + i % 3);
		fill_chunk(decoded, i);
		c->checksum = ckf_hash64(decoded, CHUNK_BYTES);
		if (c->codec == CKF_CODEC_RAW)
			memcpy(im->pack + off, decoded, CHUNK_BYTES);
		else
			stored = ckf_encode(ctx, c->codec, 0, decoded, CHUNK_BYTES, im->pack + off,
					    CHUNK_BYTES);
		assert_true(stored > 0);
		c->stored_bytes = (uint32_t)stored;
	}
	ckf_codec_ctx_free(ctx);
}

/* pages-1.img: zeros, all chunks but the last, chunk 1 again, zeros again. */
static void make_refs(struct image *im)
{
	char *all = calloc(NR_REFS, CHUNK_BYTES);

	assert_non_null(all);
	for (uint32_t i = 0; i < NR_CHUNKS - 1; i++)
		im->refs[i] = i;
	im->refs[NR_CHUNKS - 1] = 1;
	im->refs[NR_CHUNKS] = 0;
	for (uint32_t i = 0; i < NR_REFS; i++)
		if (im->refs[i])
			fill_chunk(all + i * CHUNK_BYTES, im->refs[i] - 1);
	im->files[2] = (struct ckf_file){ .name = "pages-1.img",
					  .kind = CKF_FILE_PAGES,
					  .size_bytes = NR_REFS * CHUNK_BYTES,
					  .checksum = ckf_hash64(all, NR_REFS * CHUNK_BYTES),
					  .nr_refs = NR_REFS };
	free(all);
}

static void make_plan(struct image *im)
{
	uint64_t read_bytes = 0;

	for (uint32_t i = 0; i < NR_CHUNKS; i++) {
		im->ops[i] = (struct ckf_op){ .place = 0x10000000 + i * CHUNK_BYTES,
					      .chunk = i,
					      .nr_pages = CHUNK_PAGES };
		read_bytes += im->chunks[i].stored_bytes;
	}
	im->target = (struct ckf_target){ .id = 1,
					  .kind = CKF_TARGET_TASK,
					  .nr_pages = NR_CHUNKS * CHUNK_PAGES,
					  .nr_ops = NR_CHUNKS,
					  .nr_lanes = 1,
					  .file = 1 };
	im->lane = (struct ckf_lane){ .nr_ops = NR_CHUNKS,
				      .read_bytes = read_bytes,
				      .fill_bytes = NR_CHUNKS * CHUNK_BYTES };
}

/* Writes index and pack as they are described in im now. */
static void write_image(struct image *im)
{
	struct ckf_error err = { 0 };
	size_t idx_bytes;
	void *buf;

	im->idx.chunks = im->chunks;
	im->idx.refs = im->refs;
	im->idx.files = im->files;
	im->idx.targets = &im->target;
	im->idx.ops = im->ops;
	im->idx.lanes = &im->lane;
	assert_int_equal(ckf_index_encode(&im->idx, &buf, &idx_bytes, &err), 0);
	ckf_pack_header_encode(&im->idx, (struct ckf_disk_pack_header *)im->pack);
	write_file(im, CKF_IDX_NAME, buf, idx_bytes);
	write_file(im, CKF_PACK_NAME, im->pack, im->idx.pack_bytes);
	free(buf);
}

static int setup(void **state)
{
	struct image *im = calloc(1, sizeof(*im));
	char *decoded = malloc(CHUNK_BYTES);

	assert_non_null(im);
	assert_non_null(decoded);
	strcpy(im->dir, "/tmp/test_verify.XXXXXX");
	assert_non_null(mkdtemp(im->dir));
	im->dir_fd = open(im->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_true(im->dir_fd >= 0);
	im->pack = calloc(NR_EXTENTS, EXTENT_BYTES);
	assert_non_null(im->pack);
	store_chunks(im, decoded);
	free(decoded);
	make_refs(im);
	make_plan(im);
	im->files[0] = (struct ckf_file){ .name = "inventory.img",
					  .kind = CKF_FILE_VERBATIM,
					  .size_bytes = sizeof(inventory),
					  .checksum = ckf_hash64(inventory, sizeof(inventory)) };
	im->files[1] = (struct ckf_file){ .name = "pagemap-1.img",
					  .kind = CKF_FILE_VERBATIM,
					  .size_bytes = sizeof(pagemap),
					  .checksum = ckf_hash64(pagemap, sizeof(pagemap)) };
	write_file(im, "inventory.img", inventory, sizeof(inventory));
	write_file(im, "pagemap-1.img", pagemap, sizeof(pagemap));
	im->idx.pack_bytes = (uint64_t)NR_EXTENTS * EXTENT_BYTES;
	im->idx.extent_bytes = EXTENT_BYTES;
	im->idx.max_chunk_pages = CHUNK_PAGES;
	im->idx.version_major = CKF_VERSION_MAJOR;
	im->idx.version_minor = CKF_VERSION_MINOR;
	im->idx.nr_chunks = NR_CHUNKS;
	im->idx.nr_refs = NR_REFS;
	im->idx.nr_files = 3;
	im->idx.nr_targets = 1;
	im->idx.nr_ops = NR_CHUNKS;
	im->idx.nr_lanes = 1;
	write_image(im);
	*state = im;
	return 0;
}

static int teardown(void **state)
{
	static const char *const names[] = { CKF_IDX_NAME, CKF_PACK_NAME, "inventory.img",
					     "pagemap-1.img" };
	struct image *im = *state;

	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
		unlinkat(im->dir_fd, names[i], 0);
	close(im->dir_fd);
	rmdir(im->dir);
	free(im->pack);
	free(im);
	return 0;
}

static void flip(const struct image *im, const char *name, off_t off)
{
	int fd = openat(im->dir_fd, name, O_RDWR);
	char c;

	assert_true(fd >= 0);
	assert_int_equal(pread(fd, &c, 1, off), 1);
	c ^= 0x40;
	assert_int_equal(pwrite(fd, &c, 1, off), 1);
	close(fd);
}

static void flip_chunk(const struct image *im, int chunk)
{
	const struct ckf_chunk *c = &im->chunks[chunk];

	flip(im, CKF_PACK_NAME, (off_t)(c->pack_off + c->stored_bytes / 2));
}

static int verify(const struct image *im, unsigned int threads, struct ckf_verify_stats *stats,
		  struct ckf_error *err)
{
	struct ckf_image *img;
	int rc;

	memset(err, 0, sizeof(*err));
	assert_int_equal(ckf_image_open(im->dir_fd, &img, err), 0);
	rc = ckf_verify(img, CKF_OPTS(ckf_verify_opts, .threads = threads), stats, err);
	assert_int_equal(rc, err->code);
	ckf_image_close(img);
	return rc;
}

/* Any number of threads finds the same, with want in the message. */
static void expect_corrupt(const struct image *im, const char *want)
{
	static const unsigned int threads[] = { 1, 2, NR_EXTENTS, 2 * NR_EXTENTS };
	struct ckf_error err;

	for (size_t i = 0; i < sizeof(threads) / sizeof(*threads); i++) {
		assert_int_equal(verify(im, threads[i], NULL, &err), -EBADMSG);
		if (!strstr(err.msg, want))
			fail_msg("%u threads: got \"%s\", want \"%s\"", threads[i], err.msg, want);
	}
}

static void test_whole(void **state)
{
	const struct image *im = *state;
	struct ckf_verify_stats stats = { .size = sizeof(stats) };
	struct ckf_error err;
	uint64_t stored_bytes = 0;

	for (int i = 0; i < NR_CHUNKS; i++)
		stored_bytes += im->chunks[i].stored_bytes;
	for (unsigned int threads = 0; threads < 2 * NR_EXTENTS; threads++) {
		assert_int_equal(verify(im, threads, &stats, &err), 0);
		assert_int_equal(stats.stored_bytes, stored_bytes);
		assert_int_equal(stats.decoded_bytes, NR_STORED * CHUNK_BYTES);
		assert_int_equal(stats.padding_bytes,
				 im->idx.pack_bytes - CKF_PAGE_BYTES - stored_bytes);
		assert_int_equal(stats.file_bytes, sizeof(inventory) + sizeof(pagemap));
	}
}

static void test_each_chunk(void **state)
{
	const struct image *im = *state;

	for (int i = 1; i < NR_CHUNKS; i++) {
		char want[64];

		snprintf(want, sizeof(want), "corrupt chunks[%d] at %llu", i,
			 (unsigned long long)im->chunks[i].pack_off);
		flip_chunk(im, i);
		expect_corrupt(im, want);
		flip_chunk(im, i);
	}
}

/* The first error in the pack wins over later ones. */
static void test_first_error(void **state)
{
	const struct image *im = *state;

	for (int i = NR_CHUNKS - 1; i >= 1; i--) {
		char want[64];

		snprintf(want, sizeof(want), "corrupt chunks[%d]", i);
		flip_chunk(im, i);
		expect_corrupt(im, want);
	}
}

static void expect_padding(const struct image *im, uint64_t off)
{
	char want[64];

	snprintf(want, sizeof(want), "corrupt pack at %llu: R-padding", (unsigned long long)off);
	flip(im, CKF_PACK_NAME, (off_t)off);
	expect_corrupt(im, want);
	flip(im, CKF_PACK_NAME, (off_t)off);
}

static void test_padding(void **state)
{
	const struct image *im = *state;
	const struct ckf_chunk *lz4 = &im->chunks[2];

	assert_int_equal(lz4->codec, CKF_CODEC_LZ4);
	/* From the first byte behind a chunk to the last one of the pack. */
	expect_padding(im, lz4->pack_off + lz4->stored_bytes);
	expect_padding(im, lz4->pack_off + lz4->stored_bytes + 1000);
	expect_padding(im, im->chunks[3].pack_off - 1);
	expect_padding(im, EXTENT_BYTES - 1);
	expect_padding(im, EXTENT_BYTES);
	expect_padding(im, im->idx.pack_bytes - 1);
}

static void test_verbatim_file(void **state)
{
	const struct image *im = *state;

	flip(im, "pagemap-1.img", 3);
	expect_corrupt(im, "corrupt files[1]");
}

static void swap_chunks(struct image *im)
{
	uint32_t ref = im->refs[2];

	im->refs[2] = im->refs[3];
	im->refs[3] = ref;
	write_image(im);
}

/* All chunks are right, but together they are not the file that the index names. */
static void test_pages_file(void **state)
{
	struct image *im = *state;
	swap_chunks(im);
	expect_corrupt(im, "corrupt files[2]");
}

/* The same with a checksum that is made of those of the pages. */
static void test_page_sums(void **state)
{
	struct image *im = *state;
	struct ckf_sum *sum = ckf_sum_new();
	uint64_t hashes[CHUNK_PAGES];
	char *pages = malloc(CHUNK_BYTES);
	struct ckf_verify_stats stats = { .size = sizeof(stats) };
	struct ckf_error err;

	assert_non_null(pages);
	for (uint32_t i = 0; i < NR_REFS; i++) {
		memset(pages, 0, CHUNK_BYTES);
		if (im->refs[i])
			fill_chunk(pages, im->refs[i] - 1);
		ckf_hash_pages(pages, CHUNK_PAGES, hashes);
		ckf_sum_hashes(sum, hashes, CHUNK_PAGES);
	}
	im->idx.page_sums = true;
	write_image(im);
	expect_corrupt(im, "corrupt files[2] at 0: R-file");
	im->files[2].checksum = ckf_sum_value(sum);
	write_image(im);
	assert_int_equal(verify(im, 4, &stats, &err), 0);
	swap_chunks(im);
	expect_corrupt(im, "corrupt files[2] at 0: R-file");
	ckf_sum_free(sum);
	free(pages);
}

static void test_no_pages(void **state)
{
	struct image *im = *state;
	struct ckf_verify_stats stats = { .size = sizeof(stats) };
	struct ckf_error err;

	im->idx.nr_chunks = 0;
	im->idx.nr_refs = 0;
	im->idx.nr_files = 3;
	im->idx.nr_targets = 0;
	im->idx.nr_ops = 0;
	im->idx.nr_lanes = 0;
	im->idx.pack_bytes = CKF_PAGE_BYTES;
	im->files[2].size_bytes = 0;
	im->files[2].nr_refs = 0;
	im->files[2].checksum = ckf_hash64("", 0);
	write_image(im);
	assert_int_equal(verify(im, 4, &stats, &err), 0);
	assert_int_equal(stats.stored_bytes, 0);
	assert_int_equal(stats.padding_bytes, 0);
	im->files[2].checksum++;
	write_image(im);
	expect_corrupt(im, "corrupt files[2]");
}

struct seen {
	unsigned int calls;
	uint64_t last;
	uint64_t total;
};

static void on_progress(void *arg, const struct ckf_progress *p)
{
	struct seen *seen = arg;

	assert_true(p->done_bytes >= seen->last);
	assert_true(p->done_bytes <= p->total_bytes);
	seen->last = p->done_bytes;
	seen->total = p->total_bytes;
	seen->calls++;
}

static void test_progress(void **state)
{
	const struct image *im = *state;
	struct seen seen = { 0 };
	const struct ckf_verify_opts opts = {
		.size = sizeof(opts), .threads = 2, .progress = on_progress, .arg = &seen
	};
	struct ckf_image *img;

	assert_int_equal(ckf_image_open(im->dir_fd, &img, NULL), 0);
	assert_int_equal(ckf_verify(img, &opts, NULL, NULL), 0);
	ckf_image_close(img);
	assert_true(seen.calls > 1);
	assert_int_equal(seen.last, seen.total);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_whole),     TEST(test_each_chunk),	TEST(test_first_error),
		TEST(test_padding),   TEST(test_verbatim_file), TEST(test_pages_file),
		TEST(test_page_sums), TEST(test_no_pages),	TEST(test_progress),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

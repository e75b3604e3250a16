/* SPDX-License-Identifier: MIT */
/*
 * The golden images: one of each version of the format, made once by tests/golden/make.sh and never
 * again. Every later reader has to read them, with these results, and to write the newest of them
 * byte for byte as it is, and older ones but for their number.
 *
 * A test that fails here is right: it is the code that broke the format.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "ckfast.h"
#include "format/ckf_codec.h"
#include "loader/ckf_fill_sink.h"
#include "loader/ckf_image.h"
#include "dump_maker.h"
#include "img_fix.h"
#include "mem_sink.h"

#define BACKGROUND 0xa5
#define MAX_AREAS 6

/* What make.sh has printed. */
struct area {
	uint32_t kind;
	uint32_t flags; /* of its dest */
	uint64_t id;
	uint64_t start;
	uint64_t nr_pages;
	uint64_t hash; /* of all its pages; those that no op fills are zeros */
};

struct entry {
	const char *name;
	uint8_t kind;
	uint64_t size_bytes;
	uint64_t hash;
	uint32_t mode;
	uint32_t uid;
	uint32_t gid;
	int64_t mtime_sec;
	uint32_t mtime_nsec;
	uint64_t page_sum; /* the checksum, where it is not that of the contents */
};

static const struct area areas_0[] = {
	{ CKF_TARGET_TASK, 0, 1, 0x10000, 4, 0x6bd4e7e1de546e66 },
	{ CKF_TARGET_TASK, 0, 1, 0x20000, 16, 0x89380e6acca83f52 },
	{ CKF_TARGET_TASK, CKF_DEST_HUGE, 1, 0x7f0000000000, 2048, 0x471c1831c1afae6c },
	{ CKF_TARGET_TASK, 0, 7, 0x10000, 4, 0xcac1ccec10b288e3 },
	{ CKF_TARGET_TASK, 0, 7, 0x20000, 17, 0x7973560f9e2ba2a0 },
	{ CKF_TARGET_SHMEM, 0, 77, 0, 13, 0xd88b107aa6573285 },
};

static const struct entry entries_0[] = {
	{ "empty", 1, 0, 0x2d06800538d394c2, 0644, 0, 0, -5, 123456789, 0 },
	{ "inventory.img", 1, 12, 0xe1c14316b1a88bdb, 0644, 0, 0, 1700000000, 123456789, 0 },
	{ "mm-1.img", 1, 113, 0xa15f63568a2ded57, 0600, 1000, 100, 1700000000, 123456789, 0 },
	{ "mm-7.img", 1, 82, 0x62ffdad07328a7db, 0644, 0, 0, 1700000000, 123456789, 0 },
	{ "mm-9.img", 1, 59, 0xa35e20a186d14282, 0644, 0, 0, 1700000000, 123456789, 0 },
	{ "other.bin", 1, 15, 0x782b85ef853f9d39, 04751, 0, 0, 0, 0, 0 },
	{ "pagemap-1.img", 1, 94, 0x96885bd795365261, 0644, 0, 0, 1700000000, 123456789, 0 },
	{ "pagemap-7.img", 1, 56, 0xcf6564c5b7bd3849, 0644, 0, 0, 1700000000, 123456789, 0 },
	{ "pagemap-9.img", 1, 14, 0xcf643afe47a3394e, 0644, 0, 0, 1700000000, 123456789, 0 },
	{ "pagemap-shmem-77.img", 1, 40, 0xa564e592f2a427d1, 0644, 0, 0, 1700000000, 123456789, 0 },
	{ "pages-1.img", 2, 6340608, 0xc43abecd4598bc54, 0644, 0, 0, 1700000000, 123456789, 0 },
	{ "pages-2.img", 2, 49152, 0x327701fac8fc58a1, 0644, 0, 0, 1700000000, 123456789, 0 },
	{ "pages-3.img", 2, 36864, 0xcb4f9e77bb190624, 0644, 0, 0, 1700000000, 123456789, 0 },
	{ "pages-4.img", 2, 0, 0x2d06800538d394c2, 0644, 0, 0, 1700000000, 123456789, 0 },
	{ "parent", 3, 11, 0x925cd2e664f5c8d8, 0777, 0, 0, 1700000000, 123456789, 0 },
	{ "pstree.img", 1, 50, 0xab884da0b2f31b17, 0644, 0, 0, 1700000000, 123456789, 0 },
};

static const struct area areas_1[] = {
	{ CKF_TARGET_TASK, 0, 5, 0x10000, 24, 0x7b61b83be81e2436 },
	{ CKF_TARGET_TASK, 0, 5, 0x40000, 34, 0xd960f6dd9da8decd },
	{ CKF_TARGET_DEVICE, 0, 5, 0x7f0000000000, 1024, 0x093116441764007f },
	{ CKF_TARGET_DEVICE, 0, 5, 0x7f0001000000, 512, 0xffbf243dbce6d9aa },
};

static const struct entry entries_1[] = {
	{ "ckfast-gpu-5.img", 1, 320, 0xa0a71630c33aa9ea, 0644, 0, 0, 1700000000, 123456789, 0 },
	{ "ckfast-gpu-pages-5.img", 2, 6291456, 0x3aaf2a1963a2ec9b, 0644, 0, 0, 1700000000,
	  123456789, 0 },
	{ "inventory.img", 1, 12, 0xe1c14316b1a88bdb, 0644, 0, 0, 1700000000, 123456789, 0 },
	{ "mm-5.img", 1, 82, 0x730c0fb19f4b26af, 0644, 0, 0, 1700000000, 123456789, 0 },
	{ "pagemap-5.img", 1, 70, 0xe675db0c2e2dab11, 0644, 0, 0, 1700000000, 123456789, 0 },
	{ "pages-1.img", 2, 651264, 0xa6c1082aa042d034, 0644, 0, 0, 1700000000, 123456789, 0 },
	{ "pstree.img", 1, 22, 0xd1987390de40eefc, 0644, 0, 0, 1700000000, 123456789, 0 },
};

static const struct area areas_2[] = {
	{ CKF_TARGET_TASK, 0, 5, 0x10000, 41, 0x2f7cab982eb76470 },
	{ CKF_TARGET_TASK, 0, 5, 0x40000, 96, 0x3bc68548e08300c1 },
};

static const struct area areas_3[] = {
	{ CKF_TARGET_TASK, 0, 5, 0x10000, 30, 0xeab145539cb638c5 },
};

static const struct area areas_4[] = {
	{ CKF_TARGET_TASK, 0, 5, 0x10000, 3, 0x815529b0fb852227 },
	{ CKF_TARGET_DEVICE, 0, 5, 0x7f0000000000, 512, 0x6375f28d38f1187a },
	{ CKF_TARGET_DEVICE, 0, 5, 0x7f0000400000, 512, 0x70f58c97de81321d },
	{ CKF_TARGET_DEVICE, 0, 6, 0x7f0000800000, 1024, 0x1afca988fd17070c },
};

static const struct area areas_5[] = {
	{ CKF_TARGET_TASK, 0, 5, 0x10000, 8, 0x0a64fba34023a8cc },
	{ CKF_TARGET_DEVICE, 0, 30064771098, 0, 13, 0x9ec1d0b77c1975ed },
	{ CKF_TARGET_DEVICE, 0, 30064771098, 0x200000, 3, 0x815529b0fb852227 },
};

static const struct area areas_6[] = {
	{ CKF_TARGET_TASK, 0, 5, 0x10000, 8, 0x0a64fba34023a8cc },
	{ CKF_TARGET_DEVICE, 0, 38654705664, 0, 13, 0x9ec1d0b77c1975ed },
	{ CKF_TARGET_DEVICE, 0, 38654705666, 0, 3, 0x7abe9dcbd54c8171 },
};

static const struct area areas_7[] = {
	{ CKF_TARGET_TASK, 0, 5, 0x10000, 11, 0x31a48cca3227db25 },
	{ CKF_TARGET_SHMEM, 0, 77, 0, 2, 0x620797930ab0991a },
};

static const struct entry entries_2[] = {
	{ "inventory.img", 1, 12, 0xe1c14316b1a88bdb, 0644, 0, 0, 1700000000, 123456789, 0 },
	{ "mm-5.img", 1, 82, 0x28d57ff9a8f39a70, 0644, 0, 0, 1700000000, 123456789, 0 },
	{ "pagemap-5.img", 1, 98, 0xfac62f276c6176ab, 0644, 0, 0, 1700000000, 123456789, 0 },
	{ "pages-1.img", 2, 675840, 0x74cbcd818b844cb9, 0644, 0, 0, 1700000000, 123456789, 0 },
	{ "pstree.img", 1, 22, 0xd1987390de40eefc, 0644, 0, 0, 1700000000, 123456789, 0 },
};

static const struct entry entries_3[] = {
	{ "inventory.img", 1, 12, 0xe1c14316b1a88bdb, 0644, 0, 0, 1700000000, 123456789, 0 },
	{ "mm-5.img", 1, 59, 0x067ae7cda6522278, 0644, 0, 0, 1700000000, 123456789, 0 },
	{ "pagemap-5.img", 1, 42, 0x82ebfa311ddc16ba, 0644, 0, 0, 1700000000, 123456789, 0 },
	{ "pagemap-shmem-6.img", 1, 14, 0xa77aa2218ed2ccc1, 0644, 0, 0, 1700000000, 123456789, 0 },
	{ "pages-1.img", 2, 110592, 0x972062dc5c5d4d0b, 0644, 0, 0, 1700000000, 123456789,
	  0x05d89a9315f2119a },
	{ "pages-2.img", 2, 0, 0x2d06800538d394c2, 0644, 0, 0, 1700000000, 123456789, 0 },
	{ "pstree.img", 1, 22, 0xd1987390de40eefc, 0644, 0, 0, 1700000000, 123456789, 0 },
};

static const struct entry entries_4[] = {
	{ "ckfast-gpu-5.img", 1, 400, 0x05dd83e8e07bc2c7, 0644, 0, 0, 1700000000, 123456789, 0 },
	{ "ckfast-gpu-6.img", 1, 352, 0xf22524ffc2b604e9, 0644, 0, 0, 1700000000, 123456789, 0 },
	{ "ckfast-gpu-pages-5.img", 2, 4194304, 0x59925c1d15c2d289, 0644, 0, 0, 1700000000,
	  123456789, 0x47da96a61bb28967 },
	{ "ckfast-gpu-pages-6.img", 2, 4194304, 0x1afca988fd17070c, 0644, 0, 0, 1700000000,
	  123456789, 0x7209077000080690 },
	{ "inventory.img", 1, 12, 0xe1c14316b1a88bdb, 0644, 0, 0, 1700000000, 123456789, 0 },
	{ "mm-5.img", 1, 59, 0xa1aefdfcaf7b8695, 0644, 0, 0, 1700000000, 123456789, 0 },
	{ "pagemap-5.img", 1, 28, 0xd9ea9c69c676164e, 0644, 0, 0, 1700000000, 123456789, 0 },
	{ "pages-1.img", 2, 12288, 0x815529b0fb852227, 0644, 0, 0, 1700000000, 123456789,
	  0x40241c9e83079dc0 },
	{ "pstree.img", 1, 22, 0xd1987390de40eefc, 0644, 0, 0, 1700000000, 123456789, 0 },
};

static const struct entry entries_5[] = {
	{ "amdgpu-kfd-7.img", 1, 404, 0x9de8f7be9428db7e, 0644, 0, 0, 1700000000, 123456789, 0 },
	{ "amdgpu-pages-7-001a.img", 4, 65544, 0x910a5aeb95d9bcb8, 0644, 0, 0, 1700000000,
	  123456789, 0x22885637ceebcdf8 },
	{ "amdgpu-pages-7-beef.img", 1, 4104, 0x9c40471e34640806, 0644, 0, 0, 1700000000, 123456789,
	  0 },
	{ "inventory.img", 1, 12, 0xe1c14316b1a88bdb, 0644, 0, 0, 1700000000, 123456789, 0 },
	{ "mm-5.img", 1, 59, 0x3433fcd46dec2a4d, 0644, 0, 0, 1700000000, 123456789, 0 },
	{ "pagemap-5.img", 1, 28, 0x0d1acec099ec11a6, 0644, 0, 0, 1700000000, 123456789, 0 },
	{ "pages-1.img", 2, 32768, 0x0a64fba34023a8cc, 0644, 0, 0, 1700000000, 123456789,
	  0x7d12ff2b8a1312b4 },
	{ "pstree.img", 1, 22, 0xd1987390de40eefc, 0644, 0, 0, 1700000000, 123456789, 0 },
};

static const struct entry entries_6[] = {
	{ "amdgpu-drm-pages-9-128-0000.img", 5, 53256, 0x4492e7065b5f35ea, 0644, 0, 0, 1700000000,
	  123456789, 0xf8f03ff05790877e },
	{ "amdgpu-drm-pages-9-128-0001.img", 1, 4104, 0x7ac0d1751db565c3, 0644, 0, 0, 1700000000,
	  123456789, 0 },
	{ "amdgpu-drm-pages-9-128-0002.img", 5, 12296, 0x3793dbc7044d146d, 0644, 0, 0, 1700000000,
	  123456789, 0xe8fcaf08c4404dda },
	{ "amdgpu-renderD-9.img", 1, 166, 0x125e668cc9180560, 0644, 0, 0, 1700000000, 123456789,
	  0 },
	{ "inventory.img", 1, 12, 0xe1c14316b1a88bdb, 0644, 0, 0, 1700000000, 123456789, 0 },
	{ "mm-5.img", 1, 59, 0x3433fcd46dec2a4d, 0644, 0, 0, 1700000000, 123456789, 0 },
	{ "pagemap-5.img", 1, 28, 0x0d1acec099ec11a6, 0644, 0, 0, 1700000000, 123456789, 0 },
	{ "pages-1.img", 2, 32768, 0x0a64fba34023a8cc, 0644, 0, 0, 1700000000, 123456789,
	  0x7d12ff2b8a1312b4 },
	{ "pstree.img", 1, 22, 0xd1987390de40eefc, 0644, 0, 0, 1700000000, 123456789, 0 },
};

static const struct entry entries_7[] = {
	{ "inventory.img", 1, 12, 0xe1c14316b1a88bdb, 0644, 0, 0, 1700000000, 123456789, 0 },
	{ "mm-5.img", 1, 59, 0x6716053f894739ae, 0644, 0, 0, 1700000000, 123456789, 0 },
	{ "pagemap-5.img", 1, 28, 0x6c282f95a3ce700c, 0644, 0, 0, 1700000000, 123456789, 0 },
	{ "pagemap-shmem-77.img", 1, 26, 0xcb9c0f95b6a922fd, 0644, 0, 0, 1700000000, 123456789, 0 },
	{ "pages-1.img", 6, 7192, 0x59e642ef198d3bc1, 0644, 0, 0, 1700000000, 123456789,
	  0x10a2ec19cfccafc3 },
	{ "pages-2.img", 6, 0, 0x2d06800538d394c2, 0644, 0, 0, 1700000000, 123456789,
	  0x2d06800538d394c2 },
	{ "pstree.img", 1, 22, 0xd1987390de40eefc, 0644, 0, 0, 1700000000, 123456789, 0 },
};

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static struct version {
	const char *path; /* from where the tests are run */
	uint16_t minor;
	uint64_t idx_hash;
	uint64_t pack_hash;
	uint64_t decoded_pages;
	const struct area *areas;
	size_t nr_areas;
	const struct entry *entries;
	size_t nr_entries;
} versions[] = {
	{ "tests/golden/v1.0", 0, 0x4a9f4f8a6f852423, 0x51f80f7445eb8d2a, 268, areas_0,
	  COUNT(areas_0), entries_0, COUNT(entries_0) },
	{ "tests/golden/v1.1/fast", 1, 0x1de86260bafa9d40, 0x3273aad07ca20b9c, 351, areas_1,
	  COUNT(areas_1), entries_1, COUNT(entries_1) },
	{ "tests/golden/v1.2/fast", 2, 0xdecf43f91706280a, 0xe8cb61d0742f8817, 93, areas_2,
	  COUNT(areas_2), entries_2, COUNT(entries_2) },
	{ "tests/golden/v1.3", 3, 0x9894666c72704b5b, 0x45a3c16622a05bd3, 20, areas_3,
	  COUNT(areas_3), entries_3, COUNT(entries_3) },
	{ "tests/golden/v1.4", 4, 0xfba29906be4610c2, 0x1b74637e04f208ea, 11, areas_4,
	  COUNT(areas_4), entries_4, COUNT(entries_4) },
	{ "tests/golden/v1.5", 5, 0x49e7de94d5f1cbdc, 0xc9c233a1f6db47ed, 11, areas_5,
	  COUNT(areas_5), entries_5, COUNT(entries_5) },
	{ "tests/golden/v1.6", 6, 0xd96caec41b10b8b5, 0x7566bbfba23bd108, 11, areas_6,
	  COUNT(areas_6), entries_6, COUNT(entries_6) },
	{ "tests/golden/v1.7", 7, 0x9c514cf9e120441d, 0x7b77ff6f217de8c3, 10, areas_7,
	  COUNT(areas_7), entries_7, COUNT(entries_7) },
};

struct golden {
	const struct version *v;
	int dir_fd;
	struct ckf_image *img;
};

static void expect_ok(int ret, const struct ckf_error *err)
{
	if (ret)
		fail_msg("%d: %s", ret, err->msg);
}

static int setup(void **state)
{
	static struct golden g;
	struct ckf_error err = { 0 };

	g.v = *state;
	g.dir_fd = open(g.v->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (g.dir_fd < 0)
		fail_msg("no %s: run from the root of the repository", g.v->path);
	expect_ok(ckf_image_open(g.dir_fd, &g.img, &err), &err);
	*state = &g;
	return 0;
}

static int teardown(void **state)
{
	struct golden *g = *state;

	ckf_image_close(g->img);
	close(g->dir_fd);
	return 0;
}

static uint8_t *read_file(int dir_fd, const char *name, size_t *bytes)
{
	int fd = openat(dir_fd, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	struct stat st;
	uint8_t *p;

	assert_true(fd >= 0);
	assert_int_equal(fstat(fd, &st), 0);
	*bytes = (size_t)st.st_size;
	p = malloc(*bytes + 1);
	assert_non_null(p);
	assert_int_equal(read(fd, p, *bytes), *bytes);
	close(fd);
	return p;
}

static uint64_t file_hash(int dir_fd, const char *name)
{
	size_t bytes;
	uint8_t *p = read_file(dir_fd, name, &bytes);
	uint64_t hash = ckf_hash64(p, bytes);

	free(p);
	return hash;
}

/* Nobody has made it again. */
static void test_unchanged(void **state)
{
	const struct golden *g = *state;

	assert_int_equal(file_hash(g->dir_fd, CKF_IDX_NAME), g->v->idx_hash);
	assert_int_equal(file_hash(g->dir_fd, CKF_PACK_NAME), g->v->pack_hash);
}

static void test_verify(void **state)
{
	const struct golden *g = *state;
	struct ckf_verify_stats stats = { .size = sizeof(stats) };
	struct ckf_error err = { 0 };

	for (unsigned int threads = 1; threads <= 2; threads++) {
		expect_ok(ckf_verify(g->img, CKF_OPTS(ckf_verify_opts, .threads = threads), &stats,
				     &err),
			  &err);
		assert_int_equal(stats.decoded_bytes, ckf_pages_to_bytes(g->v->decoded_pages));
	}
}

static void test_entries(void **state)
{
	const struct golden *g = *state;

	assert_int_equal(g->img->idx->nr_files, g->v->nr_entries);
	for (size_t i = 0; i < g->v->nr_entries; i++) {
		const struct ckf_file *f = &g->img->idx->files[i];
		const struct entry *e = &g->v->entries[i];

		assert_string_equal(f->name, e->name);
		assert_int_equal(f->kind, e->kind);
		assert_int_equal(f->size_bytes, e->size_bytes);
		assert_int_equal(f->checksum, e->page_sum ? e->page_sum : e->hash);
		assert_int_equal(f->mode, e->mode);
		assert_int_equal(f->uid, e->uid);
		assert_int_equal(f->gid, e->gid);
		assert_true(f->mtime_sec == e->mtime_sec);
		assert_int_equal(f->mtime_nsec, e->mtime_nsec);
		if (f->kind == CKF_FILE_SYMLINK)
			assert_string_equal(f->target, "../previous");
		else
			assert_null(f->target);
	}
}

/* Memory at the same place modulo 2 MiB; mapped has to be unmapped, with 2 MiB more. */
static char *map_area(const struct area *a, void **mapped)
{
	uint64_t bytes = ckf_pages_to_bytes(a->nr_pages) + CKF_HUGE_BYTES;

	*mapped = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_ptr_not_equal(*mapped, MAP_FAILED);
	return (char *)ckf_align_up((uintptr_t)*mapped, CKF_HUGE_BYTES);
}

/* Fills the areas of one target that are mapped at addrs, with flags for all of their dests. */
static void fill(const struct golden *g, const struct area *first, size_t nr, char **addrs,
		 uint32_t flags)
{
	int64_t t = ckf_index_find_target(g->img->idx, first->kind, first->id);
	struct ckf_fill_opts opts = { .size = sizeof(opts), .dir_fd = -1, .threads = 2 };
	struct ckf_error err = { 0 };
	struct ckf_dest dests[MAX_AREAS];

	assert_true(t >= 0);
	for (size_t i = 0; i < nr; i++)
		dests[i] = (struct ckf_dest){
			.start = first[i].start,
			.end = first[i].start + ckf_pages_to_bytes(first[i].nr_pages),
			.addr = addrs[i],
			.prot = PROT_READ | PROT_WRITE,
			.flags = flags | first[i].flags,
		};
	expect_ok(ckf_fill(g->img, &g->img->idx->targets[t], dests, nr, &opts, NULL, &err), &err);
}

/* The same for device memory: addrs get the bytes. */
static void fill_device(const struct golden *g, const struct area *first, size_t nr, char **addrs)
{
	int64_t t = ckf_index_find_target(g->img->idx, first->kind, first->id);
	struct ckf_fill_opts opts = { .size = sizeof(opts), .dir_fd = -1, .threads = 2 };
	struct ckf_sink_opts sink_opts = {
		.size = sizeof(sink_opts), .slot_bytes = 4u << 20, .nr_slots = 2, .nr_streams = 1
	};
	struct ckf_sink_dest dests[MAX_AREAS];
	struct ckf_error err = { 0 };
	struct ckf_sink *sink;

	assert_true(t >= 0);
	expect_ok(mem_sink_ops.open(&sink_opts, &sink, &err), &err);
	for (size_t i = 0; i < nr; i++) {
		uint64_t bytes = ckf_pages_to_bytes(first[i].nr_pages);

		dests[i] = (struct ckf_sink_dest){ first[i].start, first[i].start + bytes, sink,
						   NULL };
		expect_ok(mem_sink_ops.alloc(sink, bytes, &dests[i].mem, &err), &err);
	}
	expect_ok(ckf_fill_sink(g->img, &g->img->idx->targets[t], &mem_sink_ops, dests, nr, &opts,
				NULL, &err),
		  &err);
	for (size_t i = 0; i < nr; i++) {
		memcpy(addrs[i], mem_sink_bytes(dests[i].mem), dests[i].end - dests[i].start);
		mem_sink_ops.free(dests[i].mem);
	}
	mem_sink_ops.close(sink);
}

static void test_fill(void **state)
{
	const struct golden *g = *state;
	const struct area *areas = g->v->areas;
	void *mapped[MAX_AREAS];
	char *addrs[MAX_AREAS];
	size_t n;

	assert_true(g->v->nr_areas <= MAX_AREAS);
	for (size_t i = 0; i < g->v->nr_areas; i++)
		addrs[i] = map_area(&areas[i], &mapped[i]);
	for (size_t i = 0; i < g->v->nr_areas; i += n) {
		for (n = 1; i + n < g->v->nr_areas && areas[i + n].kind == areas[i].kind &&
			    areas[i + n].id == areas[i].id;
		     n++)
			;
		if (areas[i].kind == CKF_TARGET_DEVICE)
			fill_device(g, &areas[i], n, &addrs[i]);
		else
			fill(g, &areas[i], n, &addrs[i], CKF_DEST_FRESH);
	}
	for (size_t i = 0; i < g->v->nr_areas; i++) {
		uint64_t bytes = ckf_pages_to_bytes(areas[i].nr_pages);

		if (ckf_hash64(addrs[i], bytes) != areas[i].hash)
			fail_msg("area %zu has something else in it", i);
		munmap(mapped[i], bytes + CKF_HUGE_BYTES);
	}
}

/* A child gets what is its parent's as the parent has it: pages with that flag are left alone. */
static void test_inherit(void **state)
{
	const struct golden *g = *state;
	const struct area *child = &areas_0[3];
	void *mapped[2];
	char *addrs[2];

	for (size_t i = 0; i < 2; i++) {
		addrs[i] = map_area(&child[i], &mapped[i]);
		memset(addrs[i], BACKGROUND, ckf_pages_to_bytes(child[i].nr_pages));
	}
	fill(g, child, 2, addrs, CKF_DEST_SHARED);
	/* 3 pages inherited, 1 not; 5 inherited, 3 not, 8 without an op, 1 not. */
	for (size_t page = 0; page < 4; page++)
		assert_int_equal((uint8_t)addrs[0][page * CKF_PAGE_BYTES + 9] == BACKGROUND,
				 page < 3);
	for (size_t page = 0; page < 17; page++)
		assert_int_equal((uint8_t)addrs[1][page * CKF_PAGE_BYTES + 9] == BACKGROUND,
				 page < 5 || (page >= 8 && page < 16));
	for (size_t i = 0; i < 2; i++)
		munmap(mapped[i], ckf_pages_to_bytes(child[i].nr_pages) + CKF_HUGE_BYTES);
}

/* What is written now differs from an older minor version in its number and the checksum alone. */
static void same_but_minor(const void *now, const void *old, size_t minor_off, size_t sum_off,
			   size_t bytes)
{
	const uint8_t *a = now, *b = old;
	const size_t minor_end = minor_off + sizeof(ckf_le16), sum_end = sum_off + sizeof(ckf_le64);

	assert_memory_equal(a, b, minor_off);
	assert_memory_equal(a + minor_end, b + minor_end, sum_off - minor_end);
	assert_memory_equal(a + sum_end, b + sum_end, bytes - sum_end);
}

/* The newest version: all of it. */
static void same_but_older(const struct golden *g, const void *now, const void *old,
			   const size_t offs[2], size_t bytes)
{
	if (g->v->minor == CKF_VERSION_MINOR)
		assert_memory_equal(now, old, bytes);
	else
		same_but_minor(now, old, offs[0], offs[1], bytes);
}

/* The version that is written now, from the decoded index. */
static void test_encode(void **state)
{
	static const size_t idx_offs[] = { offsetof(struct ckf_disk_header, version_minor),
					   offsetof(struct ckf_disk_header, checksum) };
	static const size_t pack_offs[] = { offsetof(struct ckf_disk_pack_header, version_minor),
					    offsetof(struct ckf_disk_pack_header, checksum) };
	const struct golden *g = *state;
	struct ckf_disk_pack_header h;
	size_t idx_bytes, want_bytes;
	uint8_t *want = read_file(g->dir_fd, CKF_IDX_NAME, &want_bytes);
	void *idx;

	assert_int_equal(g->img->idx->version_major, CKF_VERSION_MAJOR);
	assert_int_equal(g->img->idx->version_minor, g->v->minor);
	assert_int_equal(ckf_index_encode(g->img->idx, &idx, &idx_bytes, NULL), 0);
	assert_int_equal(idx_bytes, want_bytes);
	same_but_older(g, idx, want, idx_offs, want_bytes);
	free(idx);
	free(want);
	ckf_pack_header_encode(g->img->idx, &h);
	want = read_file(g->dir_fd, CKF_PACK_NAME, &want_bytes);
	same_but_older(g, &h, want, pack_offs, sizeof(h));
	free(want);
}

static void test_extract(void **state)
{
	const struct golden *g = *state;
	struct ckf_error err = { 0 };
	char base[64], out[128];
	int dir;

	dm_tempdir(base);
	snprintf(out, sizeof(out), "%s/dump", base);
	expect_ok(ckf_extract(g->v->path, out, NULL, &err), &err);
	dir = open(out, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_true(dir >= 0);
	for (size_t i = 0; i < g->v->nr_entries; i++) {
		const struct entry *e = &g->v->entries[i];
		struct stat st;

		assert_int_equal(fstatat(dir, e->name, &st, AT_SYMLINK_NOFOLLOW), 0);
		assert_int_equal(st.st_size, e->size_bytes);
		assert_true(st.st_mtim.tv_sec == e->mtime_sec);
		assert_int_equal(S_ISLNK(st.st_mode), e->kind == CKF_FILE_SYMLINK);
		if (S_ISREG(st.st_mode))
			assert_int_equal(file_hash(dir, e->name), e->hash);
	}
	close(dir);
	dm_remove(base);
}

#define OF(test, i) cmocka_unit_test_prestate_setup_teardown(test, setup, teardown, &versions[i])
#define EACH(test)                                                                                 \
	OF(test, 0), OF(test, 1), OF(test, 2), OF(test, 3), OF(test, 4), OF(test, 5), OF(test, 6), \
		OF(test, 7)

int main(void)
{
	const struct CMUnitTest tests[] = {
		EACH(test_unchanged), EACH(test_verify), EACH(test_entries), EACH(test_fill),
		OF(test_inherit, 0),  EACH(test_encode), EACH(test_extract),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

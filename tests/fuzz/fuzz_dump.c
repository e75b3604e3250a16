/* SPDX-License-Identifier: MIT */
/*
 * A hostile dump, read, converted, verified and extracted. The input is the dump as an archive: one
 * byte of options, then files, each
 *
 *	1 byte	name: a position in names[], and the bit of the directory that it is in
 *	1 byte	kind: see enum kind
 *	2 bytes	length of what follows
 *
 * What convert refuses leaves nothing behind and has a message; what it takes, verify takes too,
 *and extract gives back with every byte. The mutator knows the archive, the records of CRIU's
 *images and their protobuf messages; inputs that are no archive become one of a few good dumps.
 */
#include <dirent.h>
#include <errno.h>

/* Fuzz targets are linked without the helpers of the unit tests. */
#include "tests/unit/dump_maker.c"
#include "tests/unit/needs_maker.c"
#include "dump_names.h"
#include "proto_mutate.c"

#include "ckfast_needs.h"
#include "convert/ckf_model.h"
#include "format/ckf_codec.h"
#include "format/gpu_disk.h"
#include "loader/ckf_image.h"

#define MAX_FILES 48
#define MAX_PAGES 80
#define IN_PARENT 0x80 /* of the byte that names a file */
#define ADDR 0x10000000ull
#define CONVERT 8 /* of the options: else it is only read, a hundred times as often */
#define AMD 16	  /* likewise: with the memory of AMD GPUs */

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t bytes, size_t max_bytes, unsigned int seed);

#define NR_NAMES (sizeof(names) / sizeof(names[0]))

enum kind {
	KIND_BYTES, /* a file with these contents */
	KIND_PAGES, /* a file of pages: each byte is the value of one, see dm_page() */
	KIND_TABLE, /* a table of device memory, whose checksum is made right */
	KIND_LINK,
	KIND_DIR,
	KIND_FIFO,
	KIND_SIZED,	  /* a message behind its length */
	KIND_SIZED_PAGES, /* as KIND_PAGES, behind their length */
	NR_KINDS
};

struct file {
	uint8_t name;
	uint8_t kind;
	uint16_t bytes;
	const uint8_t *data;
};

struct archive {
	uint8_t options;
	uint32_t nr;
	struct file files[MAX_FILES];
};

static char root[64];
static int root_fd = -1;

/* False when the bytes do not end with a file. */
static bool unpack(struct archive *a, const uint8_t *data, size_t bytes)
{
	memset(a, 0, sizeof(*a));
	if (!bytes)
		return false;
	a->options = *data++;
	for (bytes--; bytes >= 4 && a->nr < MAX_FILES;) {
		struct file *f = &a->files[a->nr++];

		f->name = data[0];
		f->kind = data[1] % NR_KINDS;
		f->bytes = (uint16_t)(data[2] | data[3] << 8);
		f->data = data + 4;
		if (f->bytes > bytes - 4)
			return false;
		data += 4 + f->bytes;
		bytes -= 4 + (size_t)f->bytes;
	}
	return !bytes && a->nr;
}

/* Files that no longer fit are left out. */
static size_t pack(const struct archive *a, uint8_t *out, size_t max_bytes)
{
	size_t bytes = 0;

	out[bytes++] = a->options;
	for (uint32_t i = 0; i < a->nr; i++) {
		const struct file *f = &a->files[i];

		if (f->bytes + 4u > max_bytes - bytes)
			continue;
		out[bytes++] = f->name;
		out[bytes++] = f->kind;
		out[bytes++] = (uint8_t)f->bytes;
		out[bytes++] = (uint8_t)(f->bytes >> 8);
		memcpy(out + bytes, f->data, f->bytes);
		bytes += f->bytes;
	}
	return bytes;
}

static const char *name_of(const struct file *f)
{
	return names[(f->name & ~IN_PARENT) % NR_NAMES];
}

/* ---- the dump as files ---- */

static void write_pages(int dir, const struct file *f)
{
	static uint8_t buf[8 + MAX_PAGES * CKF_PAGE_BYTES];
	const uint32_t nr = f->bytes < MAX_PAGES ? f->bytes : MAX_PAGES;
	const ckf_le64 head = ckf_put64(nr * CKF_PAGE_BYTES);
	const size_t head_bytes = f->kind == KIND_SIZED_PAGES ? sizeof(head) : 0;

	memcpy(buf, &head, head_bytes);
	for (uint32_t i = 0; i < nr; i++)
		dm_page(f->data[i], buf + head_bytes + i * CKF_PAGE_BYTES);
	dm_write(dir, name_of(f), buf, head_bytes + nr * CKF_PAGE_BYTES);
}

static void write_sized(int dir, const struct file *f)
{
	static uint8_t buf[8 + UINT16_MAX];
	const ckf_le64 head = ckf_put64(f->bytes);

	memcpy(buf, &head, sizeof(head));
	memcpy(buf + sizeof(head), f->data, f->bytes);
	dm_write(dir, name_of(f), buf, sizeof(head) + f->bytes);
}

static void write_table(int dir, const struct file *f)
{
	uint8_t *copy = malloc(f->bytes + 1u);
	struct ckf_disk_gpu_header *h = (void *)copy;

	if (!copy)
		abort();
	memcpy(copy, f->data, f->bytes);
	if (f->bytes >= sizeof(*h)) {
		h->checksum = ckf_put64(0);
		h->checksum = ckf_put64(ckf_hash64(copy, f->bytes));
	}
	dm_write(dir, name_of(f), copy, f->bytes);
	free(copy);
}

static void write_file(int dir, const struct file *f)
{
	const char *name = name_of(f);
	struct stat st;
	char target[64];

	/* The first of a name counts. */
	if (!fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW))
		return;
	switch (f->kind) {
	case KIND_SIZED:
		write_sized(dir, f);
		break;
	case KIND_PAGES:
	case KIND_SIZED_PAGES:
		write_pages(dir, f);
		break;
	case KIND_TABLE:
		write_table(dir, f);
		break;
	case KIND_LINK:
		snprintf(target, sizeof(target), "%.*s", (int)f->bytes, (const char *)f->data);
		/* Nowhere but within the directory that all is in. */
		if (strcmp(target, "../parent") != 0 && strchr(target, '/'))
			snprintf(target, sizeof(target), "pages-1.img");
		if (symlinkat(target, dir, name))
			mkdirat(dir, name, 0755);
		break;
	case KIND_DIR:
		mkdirat(dir, name, 0755);
		break;
	case KIND_FIFO:
		mkfifoat(dir, name, 0644);
		break;
	default:
		dm_write(dir, name, f->data, f->bytes);
	}
}

static int open_dir(const char *name)
{
	int fd = openat(root_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		abort();
	return fd;
}

static void write_dump(const struct archive *a)
{
	int dirs[2];

	if (mkdirat(root_fd, "dump", 0755) || mkdirat(root_fd, "parent", 0755))
		abort();
	dirs[0] = open_dir("dump");
	dirs[1] = open_dir("parent");
	for (uint32_t i = 0; i < a->nr; i++)
		write_file(dirs[!!(a->files[i].name & IN_PARENT)], &a->files[i]);
	close(dirs[0]);
	close(dirs[1]);
}

static void remove_tree(const char *name)
{
	char path[128];
	struct stat st;

	snprintf(path, sizeof(path), "%s/%s", root, name);
	if (!lstat(path, &st))
		dm_remove(path);
}

/* ---- what has to hold ---- */

static void bad(const char *what, const struct ckf_error *err)
{
	fprintf(stderr, "%s: %d, %s\n", what, err->code, err->msg);
	abort();
}

/* A refusal has one of the codes that say something about the dump, and a message. */
static void check_refusal(const char *what, int ret, const struct ckf_error *err)
{
	static const int codes[] = { EBADMSG, EOPNOTSUPP, E2BIG,   ENOENT, EINVAL,
				     EEXIST,  ELOOP,	  ENOTDIR, EISDIR };

	if (ret != err->code || !err->msg[0])
		bad(what, err);
	for (size_t i = 0; i < sizeof(codes) / sizeof(codes[0]); i++) {
		if (ret == -codes[i])
			return;
	}
	bad(what, err);
}

static uint8_t *read_all_of(int dir, const char *name, size_t *bytes)
{
	int fd = openat(dir, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	uint8_t *buf = NULL;
	struct stat st;

	if (fd < 0)
		return NULL;
	if (!fstat(fd, &st) && S_ISREG(st.st_mode)) {
		*bytes = (size_t)st.st_size;
		buf = malloc(*bytes + 1);
		if (!buf || pread(fd, buf, *bytes, 0) != (ssize_t)*bytes)
			abort();
	}
	close(fd);
	return buf;
}

/* Convert tells of what it leaves out, and of a pages file that does not end with a page. Of its
 * own files in a dump it tells without names. */
static char told[1 << 14];

static void hear(void *arg, const char *msg)
{
	size_t len = strlen(told);

	(void)arg;
	snprintf(told + len, sizeof(told) - len, "%s\n", msg);
}

static bool is_left_out(const char *name)
{
	size_t len = strlen(name);

	if (!strcmp(name, CKF_IDX_NAME))
		return true;
	for (const char *at = told; (at = strstr(at, name)); at++) {
		if ((at == told || at[-1] == '\n') && at[len] == ' ')
			return true;
	}
	return false;
}

static void check_extracted(void)
{
	int dump = open_dir("dump"), back = open_dir("back");

	for (size_t i = 0; i < NR_NAMES; i++) {
		size_t bytes = 0, back_bytes = 0;
		uint8_t *want = read_all_of(dump, names[i], &bytes);
		uint8_t *got = read_all_of(back, names[i], &back_bytes);

		if (want && !is_left_out(names[i]) &&
		    (!got || bytes != back_bytes || memcmp(want, got, bytes) != 0)) {
			fprintf(stderr, "extract: %s is not as in the dump\n", names[i]);
			abort();
		}
		free(want);
		free(got);
	}
	close(dump);
	close(back);
}

static void check_verify(const char *fast)
{
	struct ckf_error err = { 0 };
	struct ckf_image *img = NULL;
	int fd = open_dir(fast), ret;

	ret = ckf_image_open(fd, &img, &err);
	if (!ret)
		ret = ckf_verify(img, CKF_OPTS(ckf_verify_opts, .threads = 1), NULL, &err);
	if (ret)
		bad("verify", &err);
	ckf_image_close(img);
	close(fd);
}

/* Nothing is in the directory but what this program has put there. */
static void check_clean(void)
{
	DIR *dir = fdopendir(open_dir("."));
	struct dirent *de;

	while ((de = readdir(dir))) {
		if (de->d_name[0] != '.' && strcmp(de->d_name, "dump") != 0 &&
		    strcmp(de->d_name, "parent") != 0) {
			fprintf(stderr, "left behind: %s\n", de->d_name);
			abort();
		}
	}
	closedir(dir);
}

static void read_needs(int dir)
{
	struct ckf_path_info path = { .size = sizeof(path) };
	struct ckf_needs_info info = { .size = sizeof(info) };
	struct ckf_error err = { 0 };
	struct ckf_needs *n = NULL;
	int ret = ckf_needs_read(dir, &n, &err);

	if (ret) {
		check_refusal("needs", ret, &err);
		return;
	}
	ckf_needs_get_info(n, &info);
	for (uint64_t i = 0; i < info.nr_paths; i++)
		if (ckf_needs_get_path(n, i, &path) || path.kind > CKF_PATH_SOCKET ||
		    strlen(path.path) > CKF_IMG_MAX_RECORD_BYTES)
			abort();
	ckf_needs_free(n);
}

static void read_dump(void)
{
	struct ckf_error err = { 0 };
	struct ckf_dump *d = NULL;
	int ret = ckf_dump_openat(root_fd, "dump", &d, &err);

	if (ret)
		check_refusal("open", ret, &err);
	else
		read_needs(d->dir.fd);
	ckf_dump_close(d);
}

static void convert_dump(uint8_t options)
{
	static const int codecs[] = { CKF_CODEC_AUTO, CKF_CODEC_RAW, CKF_CODEC_LZ4,
				      CKF_CODEC_ZSTD };
	struct ckf_convert_opts opts = { .size = sizeof(opts),
					 .codec = codecs[options % 4],
					 .threads = 1,
					 .no_uring = true,
					 .no_direct = true,
					 .amd = options & AMD,
					 .warn = hear };
	char dump[80], fast[80], back[80];
	struct ckf_convert_stats stats = { .size = sizeof(stats) };
	struct ckf_error err = { 0 };
	int ret;

	ckf_profile_get(options / 4 % 2 ? CKF_PROFILE_NETWORK : CKF_PROFILE_RAM, &opts.storage);
	snprintf(dump, sizeof(dump), "%s/dump", root);
	snprintf(fast, sizeof(fast), "%s/fast", root);
	snprintf(back, sizeof(back), "%s/back", root);
	told[0] = 0;
	ret = ckf_convert(dump, fast, &opts, &stats, &err);
	if (ret) {
		check_refusal("convert", ret, &err);
		check_clean();
		return;
	}
	check_verify("fast");
	memset(&err, 0, sizeof(err));
	if (ckf_extract(fast, back, &opts, &err))
		bad("extract", &err);
	check_extracted();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	struct archive a;

	if (!unpack(&a, data, bytes))
		return 0;
	write_dump(&a);
	read_dump();
	if (a.options & CONVERT)
		convert_dump(a.options);
	remove_tree("dump");
	remove_tree("parent");
	remove_tree("fast");
	remove_tree("back");
	return 0;
}

/* ---- good dumps, to begin with ---- */

static uint8_t arena[64 << 10]; /* contents of files that are not in the input */
static size_t arena_bytes;

static void *arena_copy(const void *p, size_t bytes)
{
	void *copy = arena + arena_bytes;

	if (bytes > sizeof(arena) - arena_bytes)
		abort();
	memcpy(copy, p, bytes);
	arena_bytes += bytes;
	return copy;
}

static uint8_t number_of(const char *name)
{
	for (uint8_t i = 0; i < NR_NAMES; i++) {
		if (!strcmp(names[i], name))
			return i;
	}
	abort();
}

static void add_file(struct archive *a, uint8_t where, const char *name, uint8_t kind,
		     const void *data, size_t bytes)
{
	if (a->nr == MAX_FILES)
		abort();
	a->files[a->nr++] = (struct file){ number_of(name) | where, kind, (uint16_t)bytes,
					   arena_copy(data, bytes) };
}

/* Some of these are alike, zero, or equal to their neighbours. */
static void add_pages(struct archive *a, uint8_t where, const char *name, uint8_t first, size_t nr)
{
	uint8_t values[MAX_PAGES];

	for (size_t i = 0; i < nr; i++)
		values[i] = i % 9 == 4 ? 0 : (uint8_t)(first + i % 20);
	add_file(a, where, name, KIND_PAGES, values, nr);
}

/* What dump_maker.c has written to the directory. */
static void add_images(struct archive *a, uint8_t where, int dir)
{
	for (size_t i = 0; i < NR_NAMES; i++) {
		size_t bytes = 0;
		uint8_t *contents = read_all_of(dir, names[i], &bytes);

		if (contents && !strncmp(names[i], "amdgpu-", 7))
			add_file(a, where, names[i], KIND_SIZED, contents + 8, bytes - 8);
		else if (contents)
			add_file(a, where, names[i], KIND_BYTES, contents, bytes);
		free(contents);
	}
}

static void make_tasks(int dir)
{
	struct ckf_vma vmas[] = {
		{ .start = ADDR, .end = ADDR + (64 << 12), .prot = 3, .flags = 0x22, .status = 1 },
		{ .start = ADDR + (1 << 21),
		  .end = ADDR + (3 << 21),
		  .prot = 3,
		  .flags = 0x22,
		  .status = 1,
		  .madv = 1 << 14 },
		{ .start = ADDR + (4 << 21),
		  .end = ADDR + (4 << 21) + (8 << 12),
		  .shmid = 7,
		  .prot = 3,
		  .flags = 0x21,
		  .status = 1 },
	};
	const struct ckf_task tasks[] = {
		{ .pid = 1, .comm = "one", .vmas = vmas, .nr_vmas = 3 },
		{ .pid = 2, .ppid = 1, .comm = "two", .vmas = vmas, .nr_vmas = 2 },
	};

	dm_inventory(dir);
	dm_tasks(dir, tasks, 2);
	nm_files(dir);
	nm_fs(dir, 1);
	nm_namespaces(dir, 1, 1, 2);
	nm_machine(dir);
}

static void add_gpu(struct archive *a)
{
	struct ckf_gpu_device device = { .name = "a" };
	struct ckf_gpu_alloc allocs[] = { { .addr = 4 << 20, .bytes = 16 << 12 },
					  { .addr = 8 << 20, .bytes = 4 << 12 } };
	struct ckf_gpu_dump d = {
		.pid = 1, .devices = &device, .nr_devices = 1, .allocs = allocs, .nr_allocs = 2
	};
	size_t bytes;
	void *buf;

	if (ckf_gpu_dump_encode(&d, &buf, &bytes, NULL))
		abort();
	add_file(a, 0, "ckfast-gpu-1.img", KIND_TABLE, buf, bytes);
	free(buf);
	add_pages(a, 0, "ckfast-gpu-pages-1.img", 3, 20);
}

static void make_amd(int dir)
{
	static const struct dm_amd_object objects[] = { { 0x1a, 1, 9 << 12 },
							{ 0x1a, 2, 3 << 12 } };
	static const uint64_t sizes[] = { 9 << 12, 1 << 12 };

	dm_amd_table(dir, 7, 1, &objects[0].gpu_id, 1, objects, 2);
	dm_render_table(dir, 9, 128, sizes, 2);
}

static void add_amd(struct archive *a)
{
	static const uint8_t nr[] = { 12, 9, 1 };
	static const char *const files[] = { "amdgpu-pages-7-001a.img",
					     "amdgpu-drm-pages-9-128-0000.img",
					     "amdgpu-drm-pages-9-128-0001.img" };

	a->options |= AMD;
	for (size_t i = 0; i < 3; i++) {
		add_pages(a, 0, files[i], 3, nr[i]);
		a->files[a->nr - 1].kind = KIND_SIZED_PAGES;
	}
}

#define NR_GOOD 6

/* Tasks alone; with shared memory; on a parent; with device memory; as old CRIU wrote them, among
 * other things; with memory of AMD GPUs. */
static void make_good(struct archive *a, uint32_t which)
{
	static const enum dm_style styles[NR_GOOD] = { DM_42, DM_41, DM_42, DM_41, DM_OLD, DM_42 };
	const uint32_t parent = which == 2 ? DM_PARENT : DM_PRESENT;
	const struct dm_entry entries[] = { { ADDR, 8, DM_PRESENT },
					    { ADDR + (16 << 12), 20, parent },
					    { ADDR + (1 << 21), 30, DM_PRESENT } };
	const struct dm_entry shared[] = { { 0, 5, DM_PRESENT }, { 6 << 12, 2, DM_PRESENT } };
	int dir;

	memset(a, 0, sizeof(*a));
	arena_bytes = 0;
	a->options = (uint8_t)which;
	if (mkdirat(root_fd, "good", 0755))
		abort();
	dir = open_dir("good");
	make_tasks(dir);
	dm_pagemap(dir, "pagemap-1.img", 1, styles[which], entries, 3);
	dm_pagemap(dir, "pagemap-2.img", 2, styles[which], entries, 1);
	if (which == 1)
		dm_pagemap(dir, "pagemap-shmem-7.img", 3, styles[which], shared, 2);
	if (which == 5)
		make_amd(dir);
	add_images(a, 0, dir);
	add_pages(a, 0, "pages-1.img", 1, which == 2 ? 38 : 58);
	add_pages(a, 0, "pages-2.img", 1, 8);
	if (which == 1)
		add_pages(a, 0, "pages-3.img", 40, 7);
	if (which == 2) {
		dm_pagemap(dir, "pagemap-1.img", 1, DM_42,
			   &(struct dm_entry){ entries[1].vaddr, 20, DM_PRESENT }, 1);
		add_images(a, IN_PARENT, dir);
		add_pages(a, IN_PARENT, "pages-1.img", 30, 20);
		add_file(a, 0, "parent", KIND_LINK, "../parent", 9);
	}
	if (which == 3)
		add_gpu(a);
	if (which == 5)
		add_amd(a);
	if (which == 4)
		add_file(a, 0, "stats-dump", KIND_LINK, "files.img", 9);
	close(dir);
	remove_tree("good");
}

/* ---- mutations ---- */

#define MAX_RECORDS 64

struct record {
	const uint8_t *data;
	uint32_t bytes;
};

/* The records of an image, or 0 when the file is none. *head_bytes: its magics. */
static uint32_t split(const struct file *f, struct record *records, size_t *head_bytes)
{
	size_t at, bytes = f->bytes;
	uint32_t magic, len, nr = 0;

	if (bytes < 8)
		return 0;
	memcpy(&magic, f->data, sizeof(magic));
	*head_bytes = magic == COMMON_MAGIC ? 8 : 4;
	for (at = *head_bytes; at + 4 <= bytes && nr < MAX_RECORDS; at += 4 + (size_t)len) {
		memcpy(&len, f->data + at, sizeof(len));
		if (len > bytes - at - 4)
			return 0;
		records[nr++] = (struct record){ f->data + at + 4, len };
	}
	return nr;
}

static void put_record(struct pm_buf *out, const void *p, size_t bytes, uint32_t len)
{
	pm_put(out, &len, sizeof(len));
	pm_put(out, p, bytes);
}

/* One record changed, gone, there twice, or of a wrong length; or another magic. */
static void mutate_image(struct pm_buf *out, const struct file *f, uint64_t *state)
{
	struct record records[MAX_RECORDS];
	size_t head_bytes = 0;
	uint32_t nr = split(f, records, &head_bytes), how = pm_random(state) % 16, which;

	if (!nr || how == 15) {
		pm_mutate_bytes(out, f->data, f->bytes);
		return;
	}
	pm_put(out, f->data, head_bytes);
	which = pm_random(state) % nr;
	for (uint32_t i = 0; i < nr; i++) {
		const struct record *r = &records[i];
		struct pm_buf changed = { 0 };

		if (i != which || how == 12) {
			put_record(out, r->data, r->bytes, r->bytes);
		} else if (how == 14) {
			put_record(out, r->data, r->bytes, r->bytes + pm_random(state) % 8 - 4);
		} else if (how != 13) {
			pm_mutate(&changed, r->data, r->bytes, state, 0);
			put_record(out, changed.data, changed.bytes, (uint32_t)changed.bytes);
			if (how == 11)
				put_record(out, r->data, r->bytes, r->bytes);
		}
	}
	if (how == 12)
		out->data[pm_random(state) % head_bytes] ^= (uint8_t)(1 << pm_random(state) % 8);
}

/* A number at a multiple of four bytes. */
static void mutate_table(struct pm_buf *out, const struct file *f, uint64_t *state)
{
	uint64_t v = 0;
	size_t width = pm_random(state) % 2 ? 4 : 8, at;

	pm_put(out, f->data, f->bytes);
	if (out->bytes < 8)
		return;
	at = pm_random(state) % (out->bytes - 7) & ~(size_t)3;
	memcpy(&v, out->data + at, width);
	v = pm_number(state, v);
	memcpy(out->data + at, &v, width);
}

static void mutate_contents(struct file *f, uint64_t *state)
{
	struct pm_buf *out = calloc(1, sizeof(*out));

	if (!out)
		abort();
	if (f->kind == KIND_TABLE && pm_random(state) % 4)
		mutate_table(out, f, state);
	else if (f->kind == KIND_SIZED)
		pm_mutate(out, f->data, f->bytes, state, 0);
	else if (f->kind == KIND_BYTES)
		mutate_image(out, f, state);
	else
		pm_mutate_bytes(out, f->data, f->bytes);
	f->data = arena_copy(out->data, out->bytes);
	f->bytes = (uint16_t)out->bytes;
	free(out);
}

static void mutate_archive(struct archive *a, uint64_t *state)
{
	struct file *f = &a->files[pm_random(state) % a->nr];

	switch (pm_random(state) % 20) {
	case 0:
		*f = a->files[--a->nr];
		break;
	case 1:
		f->kind = (uint8_t)(pm_random(state) % NR_KINDS);
		break;
	case 2:
		f->name = (uint8_t)(pm_random(state) % NR_NAMES);
		break;
	case 3:
		f->name ^= IN_PARENT;
		break;
	case 4:
		if (a->nr < MAX_FILES) {
			a->files[a->nr] = *f;
			a->files[a->nr++].name = (uint8_t)pm_random(state);
		}
		break;
	case 5:
		a->options = (uint8_t)pm_random(state);
		break;
	default:
		mutate_contents(f, state);
	}
	if (!a->nr)
		make_good(a, 0);
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t bytes, size_t max_bytes, unsigned int seed)
{
	static uint8_t input[1 << 16];
	uint64_t state = seed;
	struct archive a;
	uint32_t rounds;

	arena_bytes = 0;
	memcpy(input, data, bytes < sizeof(input) ? bytes : sizeof(input));
	if (bytes > sizeof(input) || !unpack(&a, input, bytes) || !(pm_random(&state) % 64))
		make_good(&a, pm_random(&state) % NR_GOOD);
	rounds = pm_random(&state) % 5;
	for (uint32_t i = 0; i < rounds; i++)
		mutate_archive(&a, &state);
	return pack(&a, data, max_bytes);
}

static void at_end(void)
{
	if (root[0])
		dm_remove(root);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc;
	(void)argv;
	/* In memory: every input is a directory. */
	snprintf(root, sizeof(root), "/dev/shm/ckf-fuzz-XXXXXX");
	if (!mkdtemp(root)) {
		snprintf(root, sizeof(root), "/tmp/ckf-fuzz-XXXXXX");
		if (!mkdtemp(root))
			abort();
	}
	root_fd = open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (root_fd < 0 || atexit(at_end))
		abort();
	return 0;
}

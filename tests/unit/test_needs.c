/* SPDX-License-Identifier: MIT */
/* What a dump needs of a machine: read from images as CRIU writes them, and from damaged ones. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "ckfast_needs.h"
#include "convert/img.h"
#include "core.pb-c.h"
#include "cpuinfo.pb-c.h"
#include "dump_maker.h"
#include "fdinfo.pb-c.h"
#include "fs.pb-c.h"
#include "inventory.pb-c.h"
#include "mm.pb-c.h"
#include "mnt.pb-c.h"
#include "pstree.pb-c.h"
#include "remap-file-path.pb-c.h"

#define PID 100
#define THREAD 1100
#define CHILD 101

static char top[64];
static int dir;

static void put(int fd, const ProtobufCMessage *m)
{
	uint8_t buf[4096];
	size_t bytes = protobuf_c_message_get_packed_size(m);

	assert_true(bytes <= sizeof(buf));
	protobuf_c_message_pack(m, buf);
	dm_record(fd, buf, bytes);
}

/* An image of one record. */
static void put_image(const char *name, uint32_t magic, const ProtobufCMessage *m)
{
	int fd;

	unlinkat(dir, name, 0);
	fd = dm_image(dir, name, magic);
	put(fd, m);
	close(fd);
}

static void put_file(int fd, uint32_t id, const char *name, uint64_t bytes, uint32_t mode)
{
	FileEntry e = FILE_ENTRY__INIT;
	RegFileEntry reg = REG_FILE_ENTRY__INIT;
	FownEntry fown = FOWN_ENTRY__INIT;

	reg.id = id;
	reg.fown = &fown;
	reg.name = (char *)name;
	reg.has_size = bytes != CKF_UNLIMITED;
	reg.size = bytes;
	reg.has_mode = mode != 0;
	reg.mode = mode;
	e.type = FD_TYPES__REG;
	e.id = id;
	e.reg = &reg;
	put(fd, &e.base);
}

static void put_tcp(int fd, uint32_t state)
{
	FileEntry e = FILE_ENTRY__INIT;
	InetSkEntry isk = INET_SK_ENTRY__INIT;
	FownEntry fown = FOWN_ENTRY__INIT;
	SkOptsEntry opts = SK_OPTS_ENTRY__INIT;

	isk.proto = 6;
	isk.state = state;
	isk.fown = &fown;
	isk.opts = &opts;
	e.type = FD_TYPES__INETSK;
	e.isk = &isk;
	put(fd, &e.base);
}

static void put_unix(int fd, uint32_t uflags)
{
	FileEntry e = FILE_ENTRY__INIT;
	UnixSkEntry usk = UNIX_SK_ENTRY__INIT;
	FownEntry fown = FOWN_ENTRY__INIT;
	SkOptsEntry opts = SK_OPTS_ENTRY__INIT;

	usk.uflags = uflags;
	usk.fown = &fown;
	usk.opts = &opts;
	e.type = FD_TYPES__UNIXSK;
	e.usk = &usk;
	put(fd, &e.base);
}

static void put_files(void)
{
	int fd = dm_image(dir, "files.img", CKF_FILES_MAGIC);

	put_file(fd, 7, "/usr/bin/program", 1000, S_IFREG | 0755);
	put_file(fd, 3, "/work", CKF_UNLIMITED, S_IFDIR | 0700);
	put_file(fd, 5, "/", CKF_UNLIMITED, 0);
	put_file(fd, 4, "/tmp/unlinked", 5, S_IFREG | 0600);
	put_file(fd, 9, "/var/log/x", 77, S_IFREG | 0644);
	put_tcp(fd, 1);	 /* ESTABLISHED */
	put_tcp(fd, 10); /* LISTEN */
	put_tcp(fd, 7);	 /* CLOSE */
	put_tcp(fd, 8);	 /* CLOSE_WAIT */
	put_unix(fd, 0);
	put_unix(fd, 1);
	close(fd);
}

static void put_tasks(void)
{
	PstreeEntry e = PSTREE_ENTRY__INIT;
	uint32_t threads[] = { PID, THREAD }, garbage = 0xfeed;
	MmEntry mm = MM_ENTRY__INIT;
	FsEntry fs = FS_ENTRY__INIT;
	int fd = dm_image(dir, "pstree.img", CKF_PSTREE_MAGIC);

	e.pid = PID;
	e.sid = 50;
	e.n_threads = 2;
	e.threads = threads;
	put(fd, &e.base);
	/* A zombie. */
	e.pid = CHILD;
	e.ppid = PID;
	e.n_threads = 1;
	e.threads = &garbage;
	put(fd, &e.base);
	close(fd);
	mm.exe_file_id = 7;
	put_image("mm-100.img", CKF_MM_MAGIC, &mm.base);
	fs.cwd_id = 3;
	fs.root_id = 5;
	put_image("fs-100.img", CKF_FS_MAGIC, &fs.base);
}

static void put_core(const char *name, uint64_t xstate)
{
	CoreEntry core = CORE_ENTRY__INIT;
	ThreadInfoX86 info = THREAD_INFO_X86__INIT;
	UserX86RegsEntry regs = USER_X86_REGS_ENTRY__INIT;
	UserX86FpregsEntry fp = USER_X86_FPREGS_ENTRY__INIT;
	UserX86XsaveEntry xsave = USER_X86_XSAVE_ENTRY__INIT;

	core.mtype = CORE_ENTRY__MARCH__X86_64;
	core.thread_info = &info;
	info.gpregs = &regs;
	info.fpregs = &fp;
	fp.xsave = &xsave;
	xsave.xstate_bv = xstate;
	put_image(name, CKF_CORE_MAGIC, &core.base);
}

static void put_namespaces(uint32_t criu_pid_ns, uint32_t pid_ns)
{
	TaskKobjIdsEntry own = TASK_KOBJ_IDS_ENTRY__INIT, ids = TASK_KOBJ_IDS_ENTRY__INIT;
	InventoryEntry inv = INVENTORY_ENTRY__INIT;

	own.has_pid_ns_id = own.has_mnt_ns_id = true;
	own.pid_ns_id = criu_pid_ns;
	own.mnt_ns_id = 4;
	ids = own;
	ids.pid_ns_id = pid_ns;
	inv.root_ids = &own;
	put_image("inventory.img", CKF_INVENTORY_MAGIC, &inv.base);
	put_image("ids-100.img", CKF_IDS_MAGIC, &ids.base);
}

static void put_rest(void)
{
	RemapFilePathEntry remap = REMAP_FILE_PATH_ENTRY__INIT;
	CpuinfoX86Entry cpu = CPUINFO_X86_ENTRY__INIT, *cpus = &cpu;
	CpuinfoEntry info = CPUINFO_ENTRY__INIT;
	MntEntry mnt = MNT_ENTRY__INIT;
	uint32_t words[CKF_CPU_WORDS + 3] = { 1, 2, 3 };

	remap.orig_id = 4;
	remap.remap_id = 1;
	put_image("remap-fpath.img", CKF_REMAP_MAGIC, &remap.base);
	cpu.cpu_family = 6;
	cpu.model = 143;
	cpu.model_id = "Some CPU";
	cpu.capability = words;
	cpu.n_capability = CKF_CPU_WORDS + 3;
	info.n_x86_entry = 1;
	info.x86_entry = &cpus;
	put_image("cpuinfo.img", CKF_CPUINFO_MAGIC, &info.base);
	mnt.root = mnt.mountpoint = mnt.source = mnt.options = "/";
	put_image("mountpoints-12.img", CKF_MNTS_MAGIC, &mnt.base);
	mnt.ext_key = "data";
	put_image("mountpoints-13.img", CKF_MNTS_MAGIC, &mnt.base);
	dm_write(dir, "ghost-file-1.img", "0123456789", 10);
	dm_write(dir, "ghost-file-a.img", "0123456789", 10);
}

static int set_up(void **state)
{
	(void)state;
	dm_tempdir(top);
	dir = open(top, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	put_files();
	put_tasks();
	put_core("core-100.img", 7);
	put_core("core-1100.img", 0xe0);
	put_namespaces(1, 1);
	put_rest();
	return dir < 0;
}

static int tear_down(void **state)
{
	(void)state;
	close(dir);
	dm_remove(top);
	return 0;
}

static struct ckf_needs *read_needs(struct ckf_needs_info *info)
{
	struct ckf_needs *n = NULL;
	struct ckf_error err = { 0 };

	*info = (struct ckf_needs_info){ .size = sizeof(*info) };
	if (ckf_needs_read(dir, &n, &err))
		fail_msg("%s", err.msg);
	assert_int_equal(ckf_needs_get_info(n, info), 0);
	return n;
}

static void test_info(void **state)
{
	struct ckf_cpu_need cpu = { .size = sizeof(cpu) };
	struct ckf_needs_info info;
	struct ckf_needs *n = read_needs(&info);
	uint32_t id;

	(void)state;
	assert_int_equal(info.nr_tasks, 2);
	assert_int_equal(info.nr_ids, 3);
	assert_false(ckf_needs_get_id(n, 0, &id) || id != PID);
	assert_false(ckf_needs_get_id(n, 1, &id) || id != THREAD);
	assert_false(ckf_needs_get_id(n, 2, &id) || id != CHILD);
	assert_int_equal(ckf_needs_get_id(n, 3, &id), -EINVAL);
	assert_true(info.outer_session);
	assert_int_equal(info.xstate, 0xe7);
	assert_int_equal(info.own_ns, 0);
	assert_int_equal(info.nr_tcp, 2);
	assert_int_equal(info.nr_ext_unix, 1);
	assert_int_equal(info.nr_ext_mounts, 1);
	assert_int_equal(info.ghost_bytes, 20);
	assert_int_equal(info.nr_devices, 0);
	assert_int_equal(info.nr_cpus, 1);
	assert_int_equal(ckf_needs_get_cpu(n, 0, &cpu), 0);
	assert_int_equal(cpu.nr_words, CKF_CPU_WORDS);
	assert_int_equal(cpu.words[2], 3);
	assert_int_equal(cpu.family, 6);
	assert_int_equal(cpu.model, 143);
	assert_string_equal(cpu.name, "Some CPU");
	assert_int_equal(ckf_needs_get_cpu(n, 1, &cpu), -EINVAL);
	ckf_needs_free(n);
}

static void expect_path(const struct ckf_needs *n, uint64_t nr, const char *path, uint32_t kind,
			uint64_t bytes, uint32_t mode)
{
	struct ckf_path_info p = { .size = sizeof(p) };

	assert_int_equal(ckf_needs_get_path(n, nr, &p), 0);
	assert_string_equal(p.path, path);
	assert_int_equal(p.kind, kind);
	assert_int_equal(p.pid, kind == CKF_PATH_FILE ? 0 : PID);
	assert_true(p.bytes == bytes);
	assert_int_equal(p.mode, mode);
}

/* What is remapped need not be there. */
static void test_paths(void **state)
{
	struct ckf_path_info none = { 0 };
	struct ckf_needs_info info;
	struct ckf_needs *n = read_needs(&info);

	(void)state;
	assert_int_equal(info.nr_paths, 4);
	expect_path(n, 0, "/work", CKF_PATH_CWD, CKF_UNLIMITED, S_IFDIR | 0700);
	expect_path(n, 1, "/", CKF_PATH_ROOT, CKF_UNLIMITED, 0);
	expect_path(n, 2, "/usr/bin/program", CKF_PATH_EXE, 1000, S_IFREG | 0755);
	expect_path(n, 3, "/var/log/x", CKF_PATH_FILE, 77, S_IFREG | 0644);
	assert_int_equal(ckf_needs_get_path(n, 4, &none), -EINVAL);
	assert_int_equal(ckf_needs_get_path(n, 0, &none), -EINVAL);
	ckf_needs_free(n);
}

static void test_namespaces(void **state)
{
	struct ckf_needs_info info;

	(void)state;
	put_namespaces(1, 9);
	ckf_needs_free(read_needs(&info));
	assert_int_equal(info.own_ns, CLONE_NEWPID);
	/* Not known of one of them. */
	put_namespaces(0, 9);
	ckf_needs_free(read_needs(&info));
	assert_int_equal(info.own_ns, 0);
}

/* A directory without a dump, and a dump that has only what it must have. */
static void test_little(void **state)
{
	struct ckf_error err = { 0 };
	struct ckf_needs_info info;
	struct ckf_needs *n = NULL;
	char path[128];
	int own = dir;

	(void)state;
	dir = dm_mkdir(top, "little", path, sizeof(path));
	assert_int_equal(ckf_needs_read(dir, &n, &err), -ENOENT);
	put_tasks();
	n = read_needs(&info);
	assert_int_equal(info.nr_ids, 3);
	assert_int_equal(info.nr_paths + info.nr_cpus + info.xstate, 0);
	ckf_needs_free(n);
	close(dir);
	dir = own;
}

static const char *const images[] = {
	"pstree.img",  "core-100.img",	"core-1100.img",      "mm-100.img",
	"fs-100.img",  "files.img",	"remap-fpath.img",    "cpuinfo.img",
	"ids-100.img", "inventory.img", "mountpoints-12.img",
};

/* Reads, and asks for all that was read: with a sanitizer that shows what is not there. */
static int use_needs(struct ckf_error *err)
{
	struct ckf_path_info path = { .size = sizeof(path) };
	struct ckf_cpu_need cpu = { .size = sizeof(cpu) };
	struct ckf_needs_info info = { .size = sizeof(info) };
	struct ckf_needs *n = NULL;
	int ret = ckf_needs_read(dir, &n, err);
	size_t sum = 0;

	if (ret)
		return ret;
	assert_int_equal(ckf_needs_get_info(n, &info), 0);
	for (uint64_t i = 0; i < info.nr_paths; i++) {
		assert_int_equal(ckf_needs_get_path(n, i, &path), 0);
		sum += strlen(path.path);
	}
	for (uint64_t i = 0; i < info.nr_cpus; i++) {
		assert_int_equal(ckf_needs_get_cpu(n, i, &cpu), 0);
		sum += strlen(cpu.name);
	}
	assert_true(sum < SIZE_MAX);
	ckf_needs_free(n);
	return 0;
}

/* Each byte of each image, with other values, and each image cut short at each place. */
static void test_hostile(void **state)
{
	static const uint8_t masks[] = { 0x01, 0x80, 0xff };
	uint8_t good[4096], bad[4096];
	struct ckf_error err;
	ssize_t bytes;
	int fd;

	(void)state;
	for (size_t i = 0; i < sizeof(images) / sizeof(images[0]); i++) {
		unsigned int refused = 0;

		fd = openat(dir, images[i], O_RDONLY | O_CLOEXEC);
		bytes = read(fd, good, sizeof(good));
		close(fd);
		assert_in_range(bytes, 1, sizeof(good) - 1);
		for (ssize_t at = 0; at < bytes; at++) {
			for (size_t m = 0; m < sizeof(masks); m++) {
				memcpy(bad, good, (size_t)bytes);
				bad[at] ^= masks[m];
				dm_write(dir, images[i], bad, (size_t)bytes);
				err = (struct ckf_error){ 0 };
				if (use_needs(&err)) {
					assert_true(err.code == -EBADMSG || err.code == -ENOENT ||
						    err.code == -E2BIG);
					assert_true(*err.msg);
					refused++;
				}
			}
			dm_write(dir, images[i], good, (size_t)at);
			err = (struct ckf_error){ 0 };
			refused += use_needs(&err) != 0;
		}
		if (!refused)
			fail_msg("%s: nothing is refused", images[i]);
		dm_write(dir, images[i], good, (size_t)bytes);
	}
	err = (struct ckf_error){ 0 };
	assert_int_equal(use_needs(&err), 0);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_info),   TEST(test_paths),   TEST(test_namespaces),
		TEST(test_little), TEST(test_hostile),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

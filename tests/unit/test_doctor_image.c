/* SPDX-License-Identifier: MIT */
/* ckfast doctor with an image: each check of what it needs, in each of its states. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "convert/needs.h"
#include "doctor_world.h"
#include "dump_maker.h"
#include "needs_maker.h"

#define STATUS "/proc/self/status"
#define NVIDIA "/proc/driver/nvidia/version"
#define EXITED(text) DOCTOR_EXITED, 0, text
#define GIB (1ull << 30)

/* What a dump needs: set by hand, and asked for as that of a real one. */
static struct ckf_needs needs;
static struct need_path paths[4];
static struct need_device devices[3];
static struct need_cpu cpu;

static void check_cpu(struct doctor *d)
{
	doctor_check_cpu(d, &needs, &needs.info);
}

static void check_files(struct doctor *d)
{
	doctor_check_files(d, &needs, &needs.info);
}

static void check_devices(struct doctor *d)
{
	doctor_check_devices(d, &needs, &needs.info);
}

static void check_options(struct doctor *d)
{
	doctor_check_options(d, &needs.info);
}

static int set_up(void **state)
{
	needs = (struct ckf_needs){ .info = { .size = sizeof(needs.info) },
				    .paths = paths,
				    .devices = devices,
				    .cpus = &cpu };
	memset(paths, 0, sizeof(paths));
	memset(devices, 0, sizeof(devices));
	cpu = (struct need_cpu){ .info = { .size = sizeof(cpu.info) } };
	return dw_set_up(state);
}

static void test_cpu(void **state)
{
	(void)state;
	dw_expect(check_cpu, "cpu", DOCTOR_DEGRADED, "cannot be read");
	dw_put("/proc/cpuinfo", "model name\t: x\nflags\t\t: fpu sse2 avx avx2 avx512fx\n");
	dw_expect(check_cpu, "cpu", DOCTOR_OK, "no more is known");
	needs.info.xstate = 0x7;
	dw_expect(check_cpu, "cpu", DOCTOR_OK, "registers in use");
	needs.info.xstate = 0xe7;
	dw_expect(check_cpu, "cpu", DOCTOR_BROKEN, "the registers of avx512f, which");
	needs.info.xstate = 0;
	needs.info.nr_cpus = 1;
	cpu.info.nr_words = 10;
	cpu.info.words[0] = 1u << 26;
	cpu.info.words[9] = 1u << 5;
	dw_expect(check_cpu, "cpu", DOCTOR_OK, "all that the CPU of the dump has");
	cpu.info.words[9] |= 1u << 16 | 1u << 8;
	snprintf(cpu.name, sizeof(cpu.name), "Other CPU");
	dw_expect(check_cpu, "cpu", DOCTOR_BROKEN,
		  "of the dump, Other CPU has what this one lacks: bmi2 avx512f");
	/* CRIU's word 11 is leaf 7, register ECX, which is word 16 of Linux. */
	cpu.info.words[9] = 0;
	cpu.info.words[11] = 1u << 1;
	cpu.info.nr_words = 12;
	dw_expect(check_cpu, "cpu", DOCTOR_BROKEN, "lacks: avx512vbmi");
	/* Of words that the dump does not have nothing is known. */
	cpu.info.nr_words = 11;
	dw_expect(check_cpu, "cpu", DOCTOR_OK, "all that");
}

static void set_path(unsigned int nr, const char *path, uint32_t kind, uint64_t bytes,
		     uint32_t mode)
{
	paths[nr] = (struct need_path){ .path = (char *)path,
					.kind = kind,
					.bytes = bytes,
					.mode = mode,
					.pid = kind ? 17 : 0 };
	if (needs.info.nr_paths <= nr)
		needs.info.nr_paths = nr + 1;
}

static void put_socket(const char *path)
{
	char full[DOCTOR_PATH_BYTES];

	dw_put(path, "");
	dw_put(path, NULL);
	snprintf(full, sizeof(full), "%s%s", dw_root, path);
	assert_false(mknod(full, S_IFSOCK | 0600, 0));
}

/* CRIU compares the set-ID and sticky bits even with --skip-file-rwx-check. */
static void test_special_bits(void **state)
{
	static const mode_t bits[] = { S_ISUID, S_ISGID, S_ISVTX };
	char full[DOCTOR_PATH_BYTES];

	(void)state;
	dw_put("/work/log", "123");
	snprintf(full, sizeof(full), "%s/work/log", dw_root);
	for (size_t i = 0; i < sizeof(bits) / sizeof(bits[0]); i++) {
		set_path(0, "/work/log", CKF_PATH_FILE, 3, S_IFREG | bits[i] | 0644);
		assert_false(chmod(full, 0644));
		dw_expect(check_files, "files", DOCTOR_BROKEN, "set the mode");
		assert_false(chmod(full, bits[i] | 0644));
		dw_expect(check_files, "files", DOCTOR_OK, "all 1 ");
		assert_false(chmod(full, bits[i] | 0600));
		dw_expect(check_files, "files", DOCTOR_BROKEN, "or restore with --skip-file");
		set_path(0, "/work/log", CKF_PATH_FILE, 3, S_IFREG | 0644);
		dw_expect(check_files, "files", DOCTOR_BROKEN,
			  "other set-ID or sticky bits: /work");
	}
}

static void test_files(void **state)
{
	(void)state;
	dw_put("/bin/program", "12345");
	dw_put("/work/log", "123");
	set_path(0, "/bin/program", CKF_PATH_EXE, 5, S_IFREG | 0644);
	set_path(1, "/work", CKF_PATH_CWD, CKF_UNLIMITED, S_IFDIR | 0755);
	set_path(2, "/work/log", CKF_PATH_FILE, 3, 0);
	set_path(3, "/gone", CKF_PATH_FILE, 3, 0);
	paths[3].external = true;
	dw_expect(check_files, "programs", DOCTOR_OK, "all 1 ");
	dw_expect(check_files, "directories", DOCTOR_OK, "all 1 ");
	dw_expect(check_files, "files", DOCTOR_OK, "all 1 ");
	set_path(3, "/gone", CKF_PATH_FILE, 3, 0);
	dw_expect(check_files, "files", DOCTOR_BROKEN, "1 of 2 is gone: /gone");
	set_path(3, "relative", CKF_PATH_FILE, 3, 0);
	dw_expect(check_files, "files", DOCTOR_BROKEN, "1 of 2 is gone: relative");
	set_path(3, "/work/log", CKF_PATH_FILE, 4, 0);
	dw_expect(check_files, "files", DOCTOR_BROKEN, "1 of 2 is of another size: /work/log");
	set_path(3, "/work/log", CKF_PATH_FILE, 3, S_IFREG | 0600);
	dw_expect(check_files, "files", DOCTOR_BROKEN, "--skip-file-rwx-check");
	set_path(3, "/work", CKF_PATH_FILE, CKF_UNLIMITED, S_IFREG | 0755);
	dw_expect(check_files, "files", DOCTOR_BROKEN, "something else");
	dw_put("/bin/program", NULL);
	dw_expect(check_files, "programs", DOCTOR_BROKEN,
		  "1 of 1 is gone: /bin/program of task 17");
	assert_int_equal(json_array_size(json_object_get(dw_line("programs", 0)->facts, "paths")),
			 1);
	set_path(1, "/no/where", CKF_PATH_ROOT, CKF_UNLIMITED, 0);
	dw_expect(check_files, "directories", DOCTOR_BROKEN, "/no/where of task 17");
	assert_null(dw_line("sockets", 0));
	set_path(3, "/run/peer", CKF_PATH_SOCKET, CKF_UNLIMITED, S_IFSOCK);
	dw_expect(check_files, "sockets", DOCTOR_BROKEN, "1 of 1 is gone: /run/peer");
	put_socket("/run/peer");
	dw_expect(check_files, "sockets", DOCTOR_OK, "all 1 ");
	needs.info.own_ns = CLONE_NEWNS;
	dw_expect(check_files, "files", DOCTOR_OK, "not looked at: 4");
	needs.info.ghost_bytes = 4096;
	dw_expect(check_files, "unlinked", DOCTOR_OK, "4.0 KiB of unlinked files");
}

static void set_device(unsigned int nr, uint8_t uuid, uint64_t bytes)
{
	devices[nr] = (struct need_device){ .info = { .size = sizeof(devices[nr].info),
						      .bytes = bytes,
						      .total_bytes = 8 * GIB,
						      .uuid = { uuid } } };
	snprintf(devices[nr].name, sizeof(devices[nr].name), "GPU X");
	if (needs.info.nr_devices <= nr)
		needs.info.nr_devices = nr + 1;
}

#define DEVICE(uuid, total, left)                                                                 \
	"{\"name\": \"GPU X\", \"uuid\": \"GPU-" uuid                                             \
	"000000-0000-0000-0000-000000000000\", \"total_bytes\": " total ", \"free_bytes\": " left \
	"}"
#define DEVICES(list) EXITED("{\"errno\": 0, \"devices\": [" list "]}")
#define TOTAL "8589934592"

static void test_devices(void **state)
{
	(void)state;
	dw_expect(check_devices, "gpu", DOCTOR_OK, "none needed");
	set_device(0, 1, 0);
	dw_expect(check_devices, "gpu", DOCTOR_OK, "none needed");
	set_device(1, 2, GIB);
	dw_expect(check_devices, "gpu", DOCTOR_BROKEN, "no NVIDIA driver");
	dw_put(NVIDIA, "");
	set_device(2, 3, GIB);
	dw_answer("cuda", DOCTOR_TIMED_OUT, 0, "");
	dw_expect(check_devices, "gpu", DOCTOR_BROKEN, "2 needed, but the driver does not say");
	dw_answer("cuda", DOCTOR_KILLED, SIGSEGV, "");
	dw_expect(check_devices, "gpu", DOCTOR_BROKEN, "2 needed, but the driver does not say");
	dw_answer("cuda", EXITED("{\"errno\": 5}"));
	dw_expect(check_devices, "gpu", DOCTOR_BROKEN, "2 needed, but the driver does not say");
	set_device(2, 2, 0);
	dw_answer("cuda", DEVICES(""));
	dw_expect(check_devices, "gpu", DOCTOR_BROKEN, "none left like GPU X of 8.0 GiB");
	dw_answer("cuda", DEVICES(DEVICE("09", TOTAL, TOTAL)));
	dw_expect(check_devices, "gpu", DOCTOR_OK, "needs 1.0 GiB of GPU X");
	/* Several tasks on one GPU. */
	set_device(2, 2, 2 * GIB);
	dw_expect(check_devices, "gpu", DOCTOR_OK, "needs 3.0 GiB of GPU X");
	dw_answer("cuda", DEVICES(DEVICE("09", TOTAL, "1073741824")));
	dw_expect(check_devices, "gpu", DOCTOR_BROKEN,
		  "needs 3.0 GiB of GPU X and 64.0 MiB to spare, but 1.0 GiB are");
	dw_answer("cuda", DEVICES(DEVICE("09", TOTAL, "3288334335")));
	dw_expect(check_devices, "gpu", DOCTOR_BROKEN, "to spare, but 3.1 GiB are");
	dw_answer("cuda", DEVICES(DEVICE("09", TOTAL, "3288334336")));
	dw_expect(check_devices, "gpu", DOCTOR_OK, "needs 3.0 GiB of GPU X");
	dw_answer("cuda", DEVICES(DEVICE("09", "1", TOTAL)));
	dw_expect(check_devices, "gpu", DOCTOR_BROKEN, "none left");
	/* The same GPU, whatever its size is said to be, and not the first one. */
	dw_answer("cuda", DEVICES(DEVICE("09", TOTAL, "1") "," DEVICE("02", TOTAL, TOTAL)));
	dw_expect(check_devices, "gpu", DOCTOR_OK, "needs 3.0 GiB");
	/* One GPU cannot take the place of two. */
	set_device(2, 3, GIB);
	dw_answer("cuda", DEVICES(DEVICE("09", TOTAL, TOTAL)));
	doctor_fini(dw_doctor);
	check_devices(dw_doctor);
	assert_int_equal(dw_line("gpu", 0)->state, DOCTOR_OK);
	assert_int_equal(dw_line("gpu", 1)->state, DOCTOR_BROKEN);
}

static void test_options(void **state)
{
	(void)state;
	dw_expect(check_options, "options", DOCTOR_OK, "no special ones");
	needs.info.nr_tcp = 1;
	needs.info.outer_session = true;
	dw_expect(check_options, "options", DOCTOR_OK, "--tcp-established --shell-job");
	needs.info.nr_ext_unix = 1;
	needs.info.nr_ext_mounts = 1;
	dw_expect(check_options, "options", DOCTOR_OK,
		  "--tcp-established --ext-unix-sk --external --shell-job");
	memset(&needs.info, 0, sizeof(needs.info));
	needs.info.nr_file_locks = 2;
	dw_expect(check_options, "options", DOCTOR_OK, "needs --file-locks");
	needs.info.nr_outer_ttys = 1;
	dw_expect(check_options, "options", DOCTOR_OK, "needs --shell-job --file-locks");
	dw_expect(check_options, "options", DOCTOR_OK, "to be run on a terminal");
	needs.info.own_ns = CLONE_NEWNS;
	dw_expect(check_options, "options", DOCTOR_OK, "needs --file-locks");
}

/* Of a whole image. */

#define NR_PAGES 64
#define PID 4321

static bool own_namespaces; /* of the images that are made */
static uint32_t img_version = 2;
static const char *fast; /* that check_image() looks at */
static struct cli_bases bases;

static void check_image(struct doctor *d)
{
	doctor_check_image(d, fast, &bases);
}

static void image(const char *name, enum doctor_state state, const char *says)
{
	dw_expect(check_image, name, state, says);
}

/* A dump of a process and a child with the same pages below the root of the world, and its image,
 * on a base if that is given. */
static void make_image(const char *name, const char *base)
{
	struct ckf_vma vma = { .start = 0x10000,
			       .end = 0x10000 + NR_PAGES * 4096,
			       .flags = MAP_PRIVATE | MAP_ANONYMOUS,
			       .status = 1 << 9 };
	const struct ckf_task tasks[] = {
		{ .pid = PID, .comm = "x", .state = 1, .vmas = &vma, .nr_vmas = 1 },
		{ .pid = PID + 1,
		  .ppid = PID,
		  .comm = "y",
		  .state = 1,
		  .vmas = &vma,
		  .nr_vmas = 1 },
	};
	const struct dm_entry entry = { 0x10000, NR_PAGES, DM_PRESENT };
	struct ckf_convert_opts opts = { .size = sizeof(opts),
					 .codec = CKF_CODEC_RAW,
					 .bases = &base,
					 .nr_bases = base != NULL };
	uint32_t values[NR_PAGES];
	char dump[128], out[128];
	struct ckf_error err = { 0 };
	int dir;

	for (uint32_t i = 0; i < NR_PAGES; i++)
		values[i] = i + 1;
	snprintf(out, sizeof(out), "dump-%s", name);
	dir = dm_mkdir(dw_root, out, dump, sizeof(dump));
	dm_inventory_of(dir, img_version);
	if (own_namespaces)
		nm_namespaces(dir, PID, 1, 2);
	dm_tasks(dir, tasks, 2);
	dm_pagemap(dir, "pagemap-4321.img", 1, DM_42, &entry, 1);
	dm_pages(dir, 1, values, NR_PAGES);
	dm_pagemap(dir, "pagemap-4322.img", 2, DM_42, &entry, 1);
	dm_pages(dir, 2, values, NR_PAGES);
	close(dir);
	snprintf(out, sizeof(out), "%s/%s", dw_root, name);
	if (ckf_convert(dump, out, &opts, NULL, &err))
		fail_msg("%s", err.msg);
}

static int set_up_image(void **state)
{
	static char path[128];
	int ret = set_up(state);

	if (ret)
		return ret;
	make_image("fast", NULL);
	snprintf(path, sizeof(path), "%s/fast", dw_root);
	fast = path;
	dw_put("/proc/cpuinfo", "flags : fpu\n");
	return 0;
}

static void flip(const char *name, long at)
{
	char path[256];
	FILE *f;
	int c;

	snprintf(path, sizeof(path), "%s/%s", fast, name);
	f = fopen(path, "r+");
	assert_non_null(f);
	assert_false(fseek(f, at, SEEK_SET));
	c = fgetc(f);
	assert_false(fseek(f, at, SEEK_SET));
	assert_true(fputc(c ^ 0xff, f) != EOF);
	assert_false(fclose(f));
}

static void test_whole(void **state)
{
	(void)state;
	image("image", DOCTOR_OK, "format 1.");
	assert_int_equal(doctor_worst(dw_doctor), DOCTOR_OK);
	flip("core-4321.img", 20);
	image("image", DOCTOR_BROKEN, "core-4321.img");
	flip("core-4321.img", 20);
	flip("ckfast.idx", 200);
	image("image", DOCTOR_BROKEN, "convert the dump again");
	fast = "/dev/null";
	image("image", DOCTOR_BROKEN, "unpack an archive");
	fast = "/no/such/image";
	image("image", DOCTOR_BROKEN, "No such file");
	fast = dw_root;
	image("image", DOCTOR_BROKEN, "ckfast.idx");
}

static void test_ids(void **state)
{
	char path[64];

	(void)state;
	image("process_ids", DOCTOR_OK, "all 2 are free");
	dw_put("/proc/sys/kernel/pid_max", "4322\n");
	image("process_ids", DOCTOR_BROKEN, "raise kernel.pid_max");
	dw_put("/proc/sys/kernel/pid_max", "4323\n");
	image("process_ids", DOCTOR_OK, "free");
	snprintf(path, sizeof(path), "/proc/%d/status", PID);
	dw_put(path, "");
	image("process_ids", DOCTOR_BROKEN, "1 of 2 are taken: 4321");
	snprintf(path, sizeof(path), "/proc/%d/stat", PID);
	dw_put(path, "4321 (a) Z) S 1 4321\n");
	image("process_ids", DOCTOR_BROKEN, "end these processes");
	dw_put(path, "4321 (a) S) Z 1 4321\n");
	image("process_ids", DOCTOR_BROKEN, "they have ended");
}

/* A memory cgroup that leaves so many pages. */
static void leave_pages(unsigned int pages)
{
	char text[256];

	snprintf(text, sizeof(text), "31 20 0:2 / %s/cg rw - cgroup2 cgroup rw\n", dw_root);
	dw_put("/proc/self/mountinfo", text);
	snprintf(text, sizeof(text), "%u\n", pages * 4096);
	dw_put("/cg/memory.max", text);
	dw_put("/cg/memory.current", "0\n");
}

static void test_memory(void **state)
{
	(void)state;
	image("memory", DOCTOR_OK, "needs 256.0 KiB of 4.0 GiB");
	leave_pages(NR_PAGES + 8);
	image("memory", DOCTOR_DEGRADED, "one thread");
	leave_pages(NR_PAGES - 1);
	image("memory", DOCTOR_BROKEN, "raise the limit of the memory cgroup");
	/* Swap makes up for it, where the cgroup may have as much. */
	dw_put("/proc/meminfo", "MemAvailable: 4194304 kB\nSwapFree: 4 kB\n");
	image("memory", DOCTOR_DEGRADED, "252.0 KiB are left without swap");
	dw_put("/cg/memory.swap.max", "8192\n");
	dw_put("/cg/memory.swap.current", "8191\n");
	image("memory", DOCTOR_BROKEN, "raise the limit of the memory cgroup");
	leave_pages(1 << 18);
	dw_put("/cg/memory.high", "4096\n");
	image("memory", DOCTOR_DEGRADED, "4.0 KiB are left below memory.high");
	dw_put("/cg/memory.high", "max\n");
	dw_put("/proc/meminfo", "MemAvailable: 100 kB\nSwapFree: 156 kB\n");
	image("memory", DOCTOR_DEGRADED, "100.0 KiB are left without swap");
	dw_put("/proc/meminfo", "MemAvailable: 100 kB\nSwapFree: 155 kB\n");
	image("memory", DOCTOR_BROKEN, "end other programs");
	dw_put("/proc/meminfo", "MemAvailable: 100 kB\n");
	image("memory", DOCTOR_BROKEN, "end other programs");
}

static void test_threads(void **state)
{
	(void)state;
	image("threads", DOCTOR_OK, "needs 2");
	leave_pages(1 << 18);
	dw_put("/cg/pids.max", "5\n");
	dw_put("/cg/pids.current", "4\n");
	image("threads", DOCTOR_BROKEN, "pids.max leaves 1");
}

static void test_bases(void **state)
{
	char path[128], moved[128];

	(void)state;
	image("base", DOCTOR_OK, "none needed");
	make_image("second", fast);
	snprintf(moved, sizeof(moved), "%s/moved", dw_root);
	assert_false(rename(fast, moved));
	snprintf(path, sizeof(path), "%s/second", dw_root);
	fast = path;
	image("base", DOCTOR_BROKEN, "--base");
	assert_int_equal(cli_add_bases(moved, &bases), 0);
	image("base", DOCTOR_OK, "all 1 are there");
	cli_free_bases(&bases);
	bases = (struct cli_bases){ 0 };
}

static void test_namespaces(void **state)
{
	char path[128];

	(void)state;
	image("namespaces", DOCTOR_OK, "those of criu");
	own_namespaces = true;
	make_image("contained", NULL);
	own_namespaces = false;
	snprintf(path, sizeof(path), "%s/contained", dw_root);
	fast = path;
	image("namespaces", DOCTOR_OK, "makes new ones: pid");
	dw_put("/proc/4321/status", "");
	image("process_ids", DOCTOR_OK, "of its own");
	dw_put(STATUS, "CapEff:\t0\n");
	image("namespaces", DOCTOR_BROKEN, "only root");
}

static void test_version(void **state)
{
	char path[128];

	(void)state;
	img_version = 3;
	make_image("compressed", NULL);
	img_version = 2;
	snprintf(path, sizeof(path), "%s/compressed", dw_root);
	fast = path;
	image("images", DOCTOR_OK, "of version 3");
	strcpy(dw_doctor->criu, "4.2.1");
	image("images", DOCTOR_BROKEN, "criu 4.2.1 refuses");
	strcpy(dw_doctor->criu, "4.3");
	image("images", DOCTOR_OK, "of version 3");
	strcpy(dw_doctor->criu, "5.0.1");
	image("images", DOCTOR_OK, "of version 3");
	img_version = 4;
	make_image("newer", NULL);
	img_version = 2;
	snprintf(path, sizeof(path), "%s/newer", dw_root);
	image("images", DOCTOR_DEGRADED, "of version 4");
	dw_doctor->criu[0] = '\0';
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, dw_tear_down)
#define IMAGE_TEST(f) cmocka_unit_test_setup_teardown(f, set_up_image, dw_tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_cpu),
		TEST(test_files),
		TEST(test_special_bits),
		TEST(test_devices),
		TEST(test_options),
		IMAGE_TEST(test_whole),
		IMAGE_TEST(test_ids),
		IMAGE_TEST(test_memory),
		IMAGE_TEST(test_threads),
		IMAGE_TEST(test_bases),
		IMAGE_TEST(test_namespaces),
		IMAGE_TEST(test_version),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

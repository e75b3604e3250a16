/* SPDX-License-Identifier: MIT */
/* ckfast doctor: each check of the machine, in each of its states. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "format/ckf_disk.h"
#include "doctor_world.h"

#define THP "/sys/kernel/mm/transparent_hugepage/"
#define STATUS "/proc/self/status"
#define KILLED DOCTOR_KILLED, SIGSYS, NULL
#define EXITED(text) DOCTOR_EXITED, 0, text
#define ALL_CAPS "CapEff:\t000001ffffffffff\n"

static void kernel(const char *name, enum doctor_state state, const char *says)
{
	dw_expect(doctor_check_kernel, name, state, says);
}

static void limits(const char *name, enum doctor_state state, const char *says)
{
	dw_expect(doctor_check_limits, name, state, says);
}

static void rights(const char *name, enum doctor_state state, const char *says)
{
	dw_expect(doctor_check_rights, name, state, says);
}

static void test_uring(void **state)
{
	(void)state;
	kernel("io_uring", DOCTOR_OK, "may be used");
	dw_answer("io_uring", EXITED("{\"errno\": 1}"));
	kernel("io_uring", DOCTOR_DEGRADED, "not to be had: Operation not permitted");
	dw_put(STATUS, ALL_CAPS "Seccomp:\t2\n");
	kernel("io_uring", DOCTOR_DEGRADED, "seccomp filter");
	dw_put("/proc/sys/kernel/io_uring_disabled", "1\n");
	kernel("io_uring", DOCTOR_DEGRADED, "seccomp filter");
	dw_put(STATUS, "CapEff:\t0\n");
	kernel("io_uring", DOCTOR_DEGRADED, "kernel.io_uring_disabled = 1");
	dw_put("/proc/sys/kernel/io_uring_disabled", "2\n");
	kernel("io_uring", DOCTOR_DEGRADED, "kernel.io_uring_disabled = 2");
	dw_answer("io_uring", KILLED);
	kernel("io_uring", DOCTOR_BROKEN, "criu would be killed");
	dw_answer("io_uring", DOCTOR_TIMED_OUT, 0, "");
	kernel("io_uring", DOCTOR_DEGRADED, "in time");
	dw_answer("io_uring", EXITED("not JSON"));
	kernel("io_uring", DOCTOR_DEGRADED, "not answered");
}

static void test_userfaultfd(void **state)
{
	(void)state;
	kernel("userfaultfd", DOCTOR_OK, "UFFDIO_MOVE");
	dw_answer("userfaultfd", EXITED("{\"errno\": 0, \"move\": false}"));
	kernel("userfaultfd", DOCTOR_DEGRADED, "without UFFDIO_MOVE");
	dw_answer("userfaultfd", EXITED("{\"errno\": 38}"));
	kernel("userfaultfd", DOCTOR_DEGRADED, "Function not implemented");
	dw_answer("userfaultfd", KILLED);
	kernel("userfaultfd", DOCTOR_BROKEN, "criu would be killed");
}

static void test_thp(void **state)
{
	(void)state;
	kernel("huge_pages", DOCTOR_OK, "enabled madvise, defrag madvise, shmem_enabled never");
	dw_put(THP "shmem_enabled", "always never [deny]\n");
	kernel("huge_pages", DOCTOR_DEGRADED, "shmem_enabled is deny");
	dw_put(THP "defrag", "always [never]\n");
	kernel("huge_pages", DOCTOR_DEGRADED, "defrag is never");
	dw_put(STATUS, ALL_CAPS "THP_enabled:\t0\n");
	kernel("huge_pages", DOCTOR_DEGRADED, "for this process");
	dw_put(THP "enabled", "always madvise [never]\n");
	kernel("huge_pages", DOCTOR_DEGRADED, "enabled is never");
	dw_put(THP "enabled", NULL);
	kernel("huge_pages", DOCTOR_DEGRADED, "no transparent huge pages");
}

static void test_reporting(void **state)
{
	static const char features[] = "/sys/bus/virtio/drivers/virtio_balloon/virtio3/features";

	(void)state;
	kernel("free_pages", DOCTOR_OK, "stay");
	dw_put(features, "011110110000\n");
	kernel("free_pages", DOCTOR_OK, "stay");
	dw_put(features, "011001000000\n");
	kernel("free_pages", DOCTOR_DEGRADED, "host");
}

static void test_ids(void **state)
{
	(void)state;
	kernel("process_ids", DOCTOR_OK, "clone3() takes them");
	/* Linux before 5.5 does not know these arguments. */
	dw_answer("set_tid", EXITED("{\"errno\": 7}"));
	kernel("process_ids", DOCTOR_OK, "ns_last_pid");
	dw_put("/proc/sys/kernel/ns_last_pid", NULL);
	kernel("process_ids", DOCTOR_BROKEN, "CONFIG_CHECKPOINT_RESTORE");
	dw_answer("set_tid", DOCTOR_TIMED_OUT, 0, "");
	kernel("process_ids", DOCTOR_DEGRADED, "in time");
}

static void test_vm(void **state)
{
	(void)state;
	kernel("kernel", DOCTOR_OK, "Linux ?");
	dw_put("/proc/sys/kernel/osrelease", "6.1.0-x\n");
	kernel("kernel", DOCTOR_OK, "Linux 6.1.0-x");
	kernel("mappings", DOCTOR_OK, "65530");
	dw_put("/proc/sys/vm/max_map_count", "30000\n");
	kernel("mappings", DOCTOR_DEGRADED, "30000");
	kernel("overcommit", DOCTOR_OK, "is 0");
	dw_put("/proc/sys/vm/overcommit_memory", "2\n");
	kernel("overcommit", DOCTOR_DEGRADED, "is 2");
}

/* A memory cgroup of version 2 or 1, and its files. */
static void in_cgroup(const char *type, const char *options, const char *cgroup)
{
	char line[256];

	snprintf(line, sizeof(line), "31 20 0:2 / %s/cg rw - %s cgroup %s\n", dw_root, type,
		 options);
	dw_put("/proc/self/mountinfo", line);
	dw_put("/proc/self/cgroup", cgroup);
}

static void test_memory(void **state)
{
	(void)state;
	limits("memory", DOCTOR_OK, "4.0 GiB available to the machine");
	in_cgroup("cgroup2", "rw", "0::/a\n");
	dw_put("/cg/a/memory.max", "2147483648\n");
	dw_put("/cg/a/memory.current", "1048576\n");
	limits("memory", DOCTOR_OK, "its limit is 2.0 GiB, 1.0 MiB in use");
	assert_int_equal(
		json_integer_value(json_object_get(dw_line("memory", 0)->facts, "limit_bytes")),
		2147483648);
	dw_put("/cg/a/memory.current", "2100000000\n");
	limits("memory", DOCTOR_DEGRADED, "by one thread");
	dw_put("/cg/a/memory.high", "2110000000\n");
	dw_put("/cg/a/memory.current", "2000000000\n");
	limits("memory", DOCTOR_DEGRADED, "slowed down");
	limits("memory", DOCTOR_DEGRADED, "memory.high is 2.0 GiB");
	dw_put("/cg/a/memory.high", "2000000000\n");
	limits("memory", DOCTOR_DEGRADED, "slowed down");
	dw_put("/cg/a/memory.current", "2147483648\n");
	limits("memory", DOCTOR_BROKEN, "raise the limit");
	in_cgroup("cgroup", "rw,memory", "4:memory:/b\n");
	dw_put("/cg/b/memory.limit_in_bytes", "4194304\n");
	dw_put("/cg/b/memory.usage_in_bytes", "4096\n");
	limits("memory", DOCTOR_BROKEN, "leaves 4.0 MiB");
	/* No limit, in the words of version 1. */
	dw_put("/cg/b/memory.limit_in_bytes", "9223372036854771712\n");
	limits("memory", DOCTOR_OK, "4.0 GiB available to the machine");
	dw_put("/proc/meminfo", "MemAvailable: 100 kB\n");
	limits("memory", DOCTOR_BROKEN, "end other programs");
	dw_put("/proc/meminfo", "MemAvailable: 100000 kB\n");
	limits("memory", DOCTOR_DEGRADED, "by one thread");
	dw_put("/proc/meminfo", "");
	limits("memory", DOCTOR_OK, "no limit is known");
}

static void test_threads(void **state)
{
	(void)state;
	limits("threads", DOCTOR_OK, "no limit");
	in_cgroup("cgroup2", "rw", "0::/a\n");
	dw_put("/cg/a/pids.max", "1000\n");
	dw_put("/cg/a/pids.current", "10\n");
	limits("threads", DOCTOR_OK, "leaves 990");
	dw_put("/cg/a/pids.current", "990\n");
	limits("threads", DOCTOR_DEGRADED, "leaves 10");
	dw_put("/cg/a/pids.current", "1000\n");
	limits("threads", DOCTOR_BROKEN, "raise pids.max");
}

static void test_rlimits(void **state)
{
	(void)state;
	limits("locked", DOCTOR_OK, "without a limit");
	dw_put(STATUS, "CapEff:\t0\n");
	limits("locked", DOCTOR_OK, "8.0 MiB");
	limits("open_files", DOCTOR_OK, "20000");
	dw_put("/proc/self/limits", "Max open files            100 512 files\n"
				    "Max locked memory         65536 65536 bytes\n");
	limits("locked", DOCTOR_DEGRADED, "ulimit -l");
	limits("open_files", DOCTOR_DEGRADED, "up to 512");
	dw_put("/proc/self/limits", "Max open files            100 unlimited files\n"
				    "Max locked memory         65536 unlimited bytes\n");
	limits("locked", DOCTOR_OK, "without a limit");
	limits("open_files", DOCTOR_OK, "no limit");
	dw_put("/proc/self/limits", "nonsense");
	limits("open_files", DOCTOR_OK, "no limit");
}

static void test_caps(void **state)
{
	(void)state;
	rights("rights", DOCTOR_OK, "CAP_SYS_ADMIN");
	dw_put(STATUS, "CapEff:\t000001fffeffffff\n");
	rights("rights", DOCTOR_DEGRADED, "no CAP_SYS_RESOURCE");
	dw_put(STATUS, "CapEff:\t000001fffff7ffff\n");
	rights("rights", DOCTOR_DEGRADED, "no CAP_SYS_PTRACE");
	dw_put(STATUS, "CapEff:\t0000010000000000\n");
	rights("rights", DOCTOR_DEGRADED, "--unprivileged");
	dw_put(STATUS, "CapEff:\t0000000000000000\n");
	rights("rights", DOCTOR_BROKEN, "as root");
}

static void test_user_ns(void **state)
{
	char path[128];

	(void)state;
	rights("user_ns", DOCTOR_OK, "first one");
	dw_put("/proc/self/ns/mnt", "");
	snprintf(path, sizeof(path), "%s/proc/self/ns/user", dw_root);
	assert_false(symlink("user:[4026531837]", path));
	rights("user_ns", DOCTOR_OK, "first one");
	assert_false(unlink(path));
	assert_false(symlink("user:[4026532000]", path));
	rights("user_ns", DOCTOR_DEGRADED, "of its own");
}

static void test_network(void **state)
{
	(void)state;
	rights("network", DOCTOR_OK, "nftables and iptables");
	dw_answer("nftables", EXITED("{\"errno\": 22}"));
	rights("network", DOCTOR_OK, "by iptables");
	dw_put("/usr/sbin/ip6tables-restore", NULL);
	rights("network", DOCTOR_DEGRADED, "install iptables");
	dw_answer("nftables", EXITED("{\"errno\": 0}"));
	rights("network", DOCTOR_OK, "by nftables");
}

static void criu(enum doctor_state state, const char *says)
{
	const struct doctor_line *line;

	doctor_fini(dw_doctor);
	doctor_check_criu(dw_doctor);
	line = dw_line("criu", 0);
	assert_non_null(line);
	assert_int_equal(!line->hint, !line->state);
	if (line->state != state ||
	    (!strstr(line->text, says) && !(line->hint && strstr(line->hint, says))))
		fail_msg("state %d, want %d with \"%s\": %s", line->state, state, says, line->text);
}

static void put_program(const char *path, mode_t mode)
{
	char full[DOCTOR_PATH_BYTES];

	dw_put(path, "a program");
	snprintf(full, sizeof(full), "%s%s", dw_root, path);
	assert_false(chmod(full, mode));
}

#define STR_(x) #x
#define STR(x) STR_(x)
#define OUR_FORMAT STR(CKF_VERSION_MAJOR) "." STR(CKF_VERSION_MINOR)
#define OURS(format) "Version: 4.2.1 +ckfast 0.2.0, fast image " format "\n"

static void criu_of_format(int major, int minor, enum doctor_state state, const char *says)
{
	static char version[128];

	snprintf(version, sizeof(version), OURS("%d.%d"), major, minor);
	dw_program("/usr/bin/criu", EXITED(version));
	criu(state, says);
}

static void test_criu(void **state)
{
	(void)state;
	dw_doctor->search_path = "relative::/usr/bin:/opt/bin";
	/* Not by the name without a directory. */
	put_program("/criu", 0755);
	criu(DOCTOR_BROKEN, "there is none");
	put_program("/usr/bin/criu", 0644);
	criu(DOCTOR_BROKEN, "there is none");
	put_program("/usr/bin/criu", 0755);
	dw_program("/usr/bin/criu", EXITED("Version: 4.1\nGitID: v4.1\n"));
	criu(DOCTOR_BROKEN, "/usr/bin/criu: 4.1 without ckfast");
	put_program("/usr/local/sbin/criu", 0755);
	dw_program("/usr/local/sbin/criu", EXITED(OURS(OUR_FORMAT)));
	criu(DOCTOR_DEGRADED, "/usr/bin/criu is found first");
	assert_string_equal(dw_line("criu", 1)->text,
			    "also /usr/local/sbin/criu: 4.2.1 with ckfast "
			    "0.2.0");
	dw_program("/usr/bin/criu", EXITED(OURS(OUR_FORMAT)));
	criu(DOCTOR_OK, "/usr/bin/criu: 4.2.1 with ckfast 0.2.0, image format " OUR_FORMAT);
	criu_of_format(CKF_VERSION_MAJOR, CKF_VERSION_MINOR + 1, DOCTOR_OK, "4.2.1 with ckfast");
	criu_of_format(CKF_VERSION_MAJOR, CKF_VERSION_MINOR - 1, DOCTOR_DEGRADED, "refuses images");
	criu_of_format(CKF_VERSION_MAJOR - 1, 99, DOCTOR_DEGRADED, "refuses images");
	criu_of_format(CKF_VERSION_MAJOR + 1, 99, DOCTOR_DEGRADED, "refuses images");
	dw_program("/usr/bin/criu", DOCTOR_TIMED_OUT, 0, "");
	criu(DOCTOR_BROKEN, "does not tell its version");
	dw_program("/usr/bin/criu", EXITED("nonsense\n"));
	criu(DOCTOR_BROKEN, "does not tell its version");
	dw_program("/usr/bin/criu", DOCTOR_EXITED, 1, "Version: 4.1\n");
	criu(DOCTOR_BROKEN, "does not tell its version");
}

/* What others may write to is not run, nor is one program run twice. */
static void test_criu_untrusted(void **state)
{
	char bin[128], above[128], link[128];

	(void)state;
	dw_doctor->search_path = "/usr/bin:/opt/bin";
	put_program("/usr/bin/criu", 0775);
	criu(DOCTOR_DEGRADED, "was not asked for its version");
	put_program("/usr/bin/criu", 0757);
	criu(DOCTOR_DEGRADED, "was not asked for its version");
	put_program("/usr/bin/criu", 0755);
	snprintf(bin, sizeof(bin), "%s/usr/bin", dw_root);
	assert_false(chmod(bin, 0777));
	criu(DOCTOR_DEGRADED, "was not asked for its version");
	assert_int_equal(dw_nr_run, 0);
	assert_false(chmod(bin, 01777));
	dw_program("/usr/bin/criu", EXITED(OURS(OUR_FORMAT)));
	criu(DOCTOR_OK, "4.2.1");
	assert_false(chmod(bin, 0755));
	/* Nor where a directory above is writable, or that of the file that a link leads to. */
	dw_nr_run = 0;
	snprintf(above, sizeof(above), "%s/usr", dw_root);
	assert_false(chmod(above, 0777));
	criu(DOCTOR_DEGRADED, "was not asked for its version");
	put_program("/sbin/criu", 0755);
	snprintf(bin, sizeof(bin), "%s/sbin/criu", dw_root);
	assert_false(unlink(bin));
	assert_false(symlink("../usr/bin/criu", bin));
	dw_doctor->search_path = "/sbin";
	criu(DOCTOR_DEGRADED, "was not asked for its version");
	assert_int_equal(dw_nr_run, 0);
	dw_doctor->search_path = "/usr/bin:/opt/bin";
	assert_false(chmod(above, 0755));
	dw_put("/opt/other", "");
	snprintf(link, sizeof(link), "%s/opt/bin", dw_root);
	assert_false(symlink("../usr/bin", link));
	dw_program("/usr/bin/criu", EXITED(OURS(OUR_FORMAT)));
	criu(DOCTOR_OK, "4.2.1");
	assert_null(dw_line("criu", 1));
	assert_int_equal(dw_nr_run, 1);
}

static void gpu(const char *name, enum doctor_state state, const char *says)
{
	dw_expect(doctor_check_gpu, name, state, says);
}

#define NVIDIA "/proc/driver/nvidia/version"
#define ONE_GPU                                                                             \
	"{\"errno\": 0, \"cuda_version\": 12080, \"devices\": [{\"name\": \"NVIDIA H200\"," \
	" \"uuid\": \"GPU-1\", \"total_bytes\": 4294967296, \"free_bytes\": 1073741824}]}"

static void test_driver(void **state)
{
	(void)state;
	gpu("gpu", DOCTOR_OK, "none");
	assert_int_equal(dw_doctor->nr_lines, 1);
	dw_put(NVIDIA, "NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.86.15  Thu\n");
	dw_answer("cuda", EXITED(ONE_GPU));
	gpu("driver", DOCTOR_OK, "570.86.15, CUDA 12.8");
	gpu("gpu", DOCTOR_OK, "0: NVIDIA H200, 4.0 GiB, free: 1.0 GiB");
	dw_put(NVIDIA, "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  565.57.01  R\n");
	gpu("driver", DOCTOR_OK, "565.57.01");
	dw_answer("cuda", EXITED("{\"errno\": 0, \"cuda_version\": 12080, \"devices\": []}"));
	gpu("driver", DOCTOR_DEGRADED, "no GPU");
	dw_answer("cuda", EXITED("{\"errno\": 95, \"message\": \"lacks a function\"}"));
	gpu("driver", DOCTOR_BROKEN, "lacks a function");
	gpu("driver", DOCTOR_BROKEN, "570 or later");
	dw_answer("cuda", EXITED("{\"errno\": 5}"));
	gpu("driver", DOCTOR_BROKEN, "Input/output error");
	dw_answer("cuda", EXITED("{\"errno\": 19, \"message\": \"no CUDA driver: libcuda.so.1\"}"));
	gpu("driver", DOCTOR_BROKEN, "565.57.01: no CUDA driver: libcuda.so.1");
	gpu("driver", DOCTOR_BROKEN, "container toolkit");
	dw_answer("cuda", DOCTOR_TIMED_OUT, 0, "");
	gpu("driver", DOCTOR_BROKEN, "does not answer");
	dw_answer("cuda", DOCTOR_KILLED, SIGSEGV, "");
	gpu("driver", DOCTOR_BROKEN, "crashes");
	dw_put(NVIDIA, NULL);
	dw_put("/dev/nvidiactl", "");
	gpu("driver", DOCTOR_BROKEN, "? crashes");
}

static void test_gpud(void **state)
{
	(void)state;
	dw_put(NVIDIA, "");
	dw_answer("gpud", EXITED("{\"errno\": 0, \"status\": {\"slots\": {\"total\": 64, "
				 "\"in_use\": 3}}}"));
	gpu("gpud", DOCTOR_OK, "64 slots, 3 in use");
	dw_answer("gpud", EXITED("{\"errno\": 2, \"message\": \"x\"}"));
	gpu("gpud", DOCTOR_DEGRADED, "does not run");
	dw_answer("gpud", EXITED("{\"errno\": 95, \"message\": \"another version\"}"));
	gpu("gpud", DOCTOR_BROKEN, "another version");
	dw_answer("gpud", DOCTOR_TIMED_OUT, 0, "");
	gpu("gpud", DOCTOR_BROKEN, "does not answer");
}

static void test_agent(void **state)
{
	(void)state;
	dw_put(NVIDIA, "");
	dw_answer("agent",
		  EXITED("{\"errno\": 0, \"path\": \"/usr/lib/ckfast/libckfast-cuda.so\"}"));
	gpu("agent", DOCTOR_OK, "/usr/lib/ckfast/libckfast-cuda.so");
	dw_answer("agent", EXITED("{\"errno\": 2, \"message\": \"x\"}"));
	gpu("agent", DOCTOR_DEGRADED, "install ckfast-cuda");
	dw_answer("agent", DOCTOR_KILLED, SIGKILL, "");
	gpu("agent", DOCTOR_DEGRADED, "no libckfast-cuda.so");
}

static void put_library(const char *path, unsigned char machine)
{
	unsigned char head[64] = "\x7f"
				 "ELF\x02";
	char full[DOCTOR_PATH_BYTES];
	FILE *f;

	dw_put(path, "");
	snprintf(full, sizeof(full), "%s%s", dw_root, path);
	head[18] = machine;
	f = fopen(full, "w");
	assert_non_null(f);
	assert_int_equal(fwrite(head, sizeof(head), 1, f), 1);
	assert_false(fclose(f));
}

static void test_plugin(void **state)
{
	(void)state;
	dw_put(NVIDIA, "");
	gpu("plugin", DOCTOR_BROKEN, "there is none");
	put_library("/usr/lib/criu/cuda_plugin.so", 62);
	gpu("plugin", DOCTOR_DEGRADED, "cuda_plugin.so only");
	put_library("/usr/local/lib/ckfast/criu/ckfast_cuda_plugin.so", 62);
	gpu("plugin", DOCTOR_DEGRADED, "--libdir");
	put_library("/usr/lib/criu/ckfast_cuda_plugin.so", 62);
	gpu("plugin", DOCTOR_BROKEN, "both");
	dw_put("/usr/lib/criu/cuda_plugin.so", NULL);
	gpu("plugin", DOCTOR_OK, "/usr/lib/criu/ckfast_cuda_plugin.so");
	put_library("/usr/lib/criu/ckfast_cuda_plugin.so", 183);
	gpu("plugin", DOCTOR_BROKEN, "no library for this machine");
	dw_put("/usr/lib/criu/ckfast_cuda_plugin.so", "short");
	gpu("plugin", DOCTOR_BROKEN, "no library for this machine");
}

static void check_17(struct doctor *d)
{
	doctor_check_pid(d, 17);
}

static void test_pid(void **state)
{
	char link[128];

	(void)state;
	dw_expect(check_17, "process", DOCTOR_BROKEN, "17: there is none");
	dw_put("/proc/17/maps", "1000-2000 r-xp 0 00:01 7   /lib/libc.so.6\n");
	dw_expect(check_17, "process", DOCTOR_OK, "uses no CUDA");
	dw_put("/proc/17/maps", "1000-2000 r-xp 0 00:01 7   /lib/libcuda.so.570.86.15\n");
	dw_expect(check_17, "process", DOCTOR_DEGRADED, "ckfast run");
	dw_put("/proc/17/maps", "1000-2000 r-xp 0 00:01 7   /lib/libckfast-cuda.so\n");
	dw_expect(check_17, "process", DOCTOR_OK, "once it uses CUDA");
	dw_put("/proc/17/maps", "1000-2000 r-xp 0 00:01 7   /lib/libckfast-cuda.so\n"
				"3000-4000 r-xp 0 00:01 8   /lib/libcuda.so.1\n");
	dw_expect(check_17, "process", DOCTOR_OK, "gpud fills");
	dw_put("/proc/17/maps", "1000-2000 r-xp 0 00:01 7   /lib/libckfast-cuda.so (deleted)\n");
	dw_expect(check_17, "process", DOCTOR_DEGRADED, "another installation");
	dw_put("/proc/17/fd/0", "");
	snprintf(link, sizeof(link), "%s/proc/17/fd/1", dw_root);
	assert_false(symlink("anon_inode:[io_uring]", link));
	doctor_fini(dw_doctor);
	check_17(dw_doctor);
	assert_int_equal(dw_line("process", 1)->state, DOCTOR_BROKEN);
	assert_non_null(strstr(dw_line("process", 1)->text, "1 io_uring"));
}

/* Lines beyond those that a report has room for are counted. */
static void test_report(void **state)
{
	json_t *obj;

	(void)state;
	for (unsigned int i = 0; i < DOCTOR_MAX_LINES + 3; i++)
		json_object_set_new(doctor_add(dw_doctor, "x", i == 5 ? DOCTOR_BROKEN : DOCTOR_OK,
					       i == 5 ? "mend it" : NULL, "\xff %u", i),
				    "n", json_integer(i));
	assert_int_equal(doctor_worst(dw_doctor), DOCTOR_BROKEN);
	obj = doctor_json(dw_doctor, "image");
	assert_int_equal(json_integer_value(json_object_get(obj, "version")), CLI_JSON_VERSION);
	assert_int_equal(json_integer_value(json_object_get(obj, "left_out")), 3);
	assert_string_equal(json_string_value(json_object_get(obj, "state")), "broken");
	assert_string_equal(json_string_value(json_object_get(obj, "image")), "image");
	assert_int_equal(json_array_size(json_object_get(obj, "checks")), DOCTOR_MAX_LINES);
	json_decref(obj);
}

/* Programs are stopped at the deadline, and nothing is left open. */
static void test_run(void **state)
{
	static struct doctor_output out;
	char *hang[] = { "/bin/sh", "-c", "echo $$; sleep 100", NULL };
	char *fail[] = { "/bin/sh", "-c", "echo what; exit 3", NULL };
	char *die[] = { "/bin/sh", "-c", "kill -9 $$", NULL };
	char *flood[] = { "/bin/sh", "-c", "head -c 1000000 /dev/zero | tr '\\0' x", NULL };
	char *none[] = { "/no/such/program", NULL };
	pid_t pid;

	(void)state;
	doctor_run(hang, 300, &out);
	assert_int_equal(out.end, DOCTOR_TIMED_OUT);
	pid = atoi(out.text);
	assert_true(pid > 1);
	assert_int_equal(kill(pid, 0), -1);
	doctor_run(fail, 10000, &out);
	assert_int_equal(out.end, DOCTOR_EXITED);
	assert_int_equal(out.status, 3);
	assert_string_equal(out.text, "what\n");
	doctor_run(die, 10000, &out);
	assert_int_equal(out.end, DOCTOR_KILLED);
	assert_int_equal(out.status, SIGKILL);
	doctor_run(flood, 10000, &out);
	assert_int_equal(out.end, DOCTOR_EXITED);
	assert_int_equal(strlen(out.text), sizeof(out.text) - 1);
	doctor_run(none, 10000, &out);
	assert_int_equal(out.end, DOCTOR_NOT_RUN);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, dw_set_up, dw_tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_uring),   TEST(test_userfaultfd),
		TEST(test_thp),	    TEST(test_reporting),
		TEST(test_ids),	    TEST(test_vm),
		TEST(test_memory),  TEST(test_threads),
		TEST(test_rlimits), TEST(test_caps),
		TEST(test_user_ns), TEST(test_network),
		TEST(test_criu),    TEST(test_criu_untrusted),
		TEST(test_driver),  TEST(test_gpud),
		TEST(test_agent),   TEST(test_plugin),
		TEST(test_pid),	    TEST(test_report),
		TEST(test_run),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

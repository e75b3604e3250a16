/* SPDX-License-Identifier: MIT */
/*
 * A client of gpud, for tests, on any CUDA driver:
 *
 *	gpudtest [OPTION…] fill DIR OUT
 *		FILL from DIR; imports what arrives, and when all is there writes it to
 *		OUT/PID, one allocation after the other, as in the pages file of a dump.
 *	gpudtest [OPTION…] save DIR PID MIB…
 *		makes device memory of so many MiB each, on the GPUs in turn, fills it with a
 *		pattern with zeros in it, and SAVEs it to DIR; the same to DIR/../expect-PID.
 *	gpudtest [OPTION…] act ACTION PID [OLD NEW]…
 *		one of the checkpoint calls, for resume with pairs of UUIDs (32 hexadecimal digits)
 *		before it; prints what DONE brings.
 *	gpudtest [OPTION…] bad NAME
 *		something that the rules forbid; see bads.
 *	gpudtest [OPTION…] hello VERSION
 *		a client of that version; 0: one from before there was HELLO.
 *
 * Options: --socket PATH, --helper PROGRAM, --die N (ends after N messages of memory were
 * received or sent), --pause MS (after each of them).
 * Exit status 0; 1 and the message of the error, or "gpud: …" for one that gpud sent.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "base/ckf_types.h"
#include "format/ckf_gpu_dump.h"
#include "gpu/cuda/ckf_cuda.h"
#include "gpu/suspend/ckf_gpud.h"

#define MAX_MEMS 4096
#define ALIGN (2ull << 20)
#define BASE 0x700000000000ull /* the made-up addresses of the process that is saved */

struct mem {
	uint32_t pid;
	uint64_t bytes;
	CUdeviceptr va;
	CUmemGenericAllocationHandle handle;
};

static struct mem mems[MAX_MEMS];
static int nr_mems;
static const struct ckf_cuda *cu;
static const char *socket_path, *helper;
static int die_after = -1, pause_ms;

static void die(const char *fmt, ...) __attribute__((format(printf, 1, 2), noreturn));
static void die(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	exit(1);
}

#define CU(call)                                               \
	do {                                                   \
		CUresult res_ = cu->call;                      \
		if (res_)                                      \
			die("%s: CUDA error %d", #call, res_); \
	} while (0)

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec * 1e-9;
}

static void start_cuda(void)
{
	struct ckf_error err = { 0 };
	CUcontext ctx;
	int count;

	if (ckf_cuda_load(&cu, &err))
		die("%s", err.msg);
	CU(init(0));
	CU(device_get_count(&count));
	for (int i = count - 1; i >= 0; i--) {
		CU(primary_ctx_retain(&ctx, i));
		CU(ctx_set_current(ctx));
	}
}

static int connect_gpud(void)
{
	struct ckf_error err = { 0 };
	int sock = ckf_gpud_connect(socket_path, helper, &err);

	if (sock < 0)
		die("%s", err.msg);
	return sock;
}

static void send_msg(int sock, const struct ckf_gpud_msg *m, int fd)
{
	struct ckf_error err = { 0 };

	if (ckf_gpud_send(sock, m, fd, &err))
		die("%s", err.msg);
}

static void recv_msg(int sock, struct ckf_gpud_msg *m, int *fd)
{
	struct ckf_error err = { 0 };

	if (ckf_gpud_recv(sock, m, fd, &err))
		die("%s", err.msg);
	if (m->op == CKF_GPUD_ERROR)
		die("gpud: %s (%d)", m->text, (int)m->arg);
}

static int open_dir(const char *path)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		die("%s: %s", path, strerror(errno));
	return fd;
}

/* After each message of memory. */
static void one_memory(void)
{
	static int nr;

	nr++;
	if (pause_ms)
		usleep((useconds_t)pause_ms * 1000);
	if (nr == die_after)
		_exit(9);
}

static int device_of(const uint8_t uuid[16])
{
	CUuuid u;
	int count;

	CU(device_get_count(&count));
	for (int i = 0; i < count; i++) {
		CU(device_get_uuid(&u, i));
		if (!memcmp(u.bytes, uuid, 16))
			return i;
	}
	die("memory on a GPU that is not here");
}

static void map_mem(struct mem *m, int device)
{
	CUmemAccessDesc access = { { CU_MEM_LOCATION_TYPE_DEVICE, device },
				   CU_MEM_ACCESS_FLAGS_PROT_READWRITE };
	CUcontext ctx;

	CU(primary_ctx_retain(&ctx, device));
	CU(ctx_set_current(ctx));
	CU(mem_address_reserve(&m->va, m->bytes, 0, 0, 0));
	CU(mem_map(m->va, m->bytes, 0, m->handle, 0));
	CU(mem_set_access(m->va, m->bytes, &access, 1));
}

static void import_mem(const struct ckf_gpud_msg *msg, int fd)
{
	struct mem *m = &mems[nr_mems++];

	if (nr_mems > MAX_MEMS || fd < 0)
		die("too much memory, or no descriptor");
	m->pid = msg->pid;
	m->bytes = msg->bytes;
	CU(mem_import(&m->handle, (void *)(intptr_t)fd, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR));
	close(fd);
	map_mem(m, device_of(msg->uuid));
}

static void write_out(const char *dir, const struct mem *m)
{
	char path[512];
	char *buf = malloc(m->bytes);
	CUstream stream;
	int fd;

	if (!buf)
		die("no memory");
	CU(stream_create(&stream, CU_STREAM_NON_BLOCKING));
	CU(memcpy_dtoh_async(buf, m->va, m->bytes, stream));
	CU(stream_synchronize(stream));
	snprintf(path, sizeof(path), "%s/%u", dir, m->pid);
	fd = open(path, O_WRONLY | O_CREAT | O_APPEND, 0600);
	for (uint64_t off = 0, n; off < m->bytes; off += n) {
		n = m->bytes - off < 1 << 30 ? m->bytes - off : 1 << 30;
		if (fd < 0 || write(fd, buf + off, n) != (ssize_t)n)
			die("%s: %s", path, strerror(errno));
	}
	close(fd);
	free(buf);
}

static int cmd_fill(char **argv)
{
	struct ckf_gpud_msg m = { .op = CKF_GPUD_FILL };
	double start = now(), ready = 0;
	int sock, dir = open_dir(argv[0]), fd, nr_ready = 0;
	uint64_t bytes = 0;

	sock = connect_gpud();
	send_msg(sock, &m, dir);
	start_cuda();
	for (;;) {
		recv_msg(sock, &m, &fd);
		switch (m.op) {
		case CKF_GPUD_MEMORY:
			bytes += m.flags & CKF_GPU_ALLOC_IMPORT ? 0 : m.bytes;
			import_mem(&m, fd);
			ready = now();
			one_memory();
			break;
		case CKF_GPUD_READY:
			nr_ready++;
			break;
		case CKF_GPUD_ACCEPTED:
		case CKF_GPUD_MADE:
			break;
		case CKF_GPUD_PAIR:
			printf("pair %02x %02x\n", m.uuid[15], m.uuid2[15]);
			break;
		case CKF_GPUD_DONE:
			if (m.arg != bytes)
				die("DONE says %" PRIu64 " bytes, want %" PRIu64, m.arg, bytes);
			printf("fill %" PRIu64 " bytes, %d ready, gpud %.3f s, memory %.3f s, "
			       "all %.3f s, %.1f GB/s\n",
			       bytes, nr_ready, (double)m.arg2 * 1e-9, ready - start, now() - start,
			       (double)bytes / (double)m.arg2);
			for (int i = 0; i < nr_mems && argv[1]; i++)
				write_out(argv[1], &mems[i]);
			return 0;
		default:
			die("unexpected message %u", m.op);
		}
	}
}

static uint64_t mix(uint64_t x)
{
	x ^= x >> 30;
	x *= 0xbf58476d1ce4e5b9u;
	x ^= x >> 27;
	x *= 0x94d049bb133111ebu;
	return x ^ x >> 31;
}

/* A third of all groups of 512 KiB are zero, and so is all of each fourth group of 8 MiB; in some
 * groups there are single pages of zeros. */
static void pattern(char *buf, uint64_t bytes, uint64_t seed)
{
	for (uint64_t off = 0; off < bytes; off += CKF_PAGE_BYTES) {
		uint64_t group = mix(seed + (off >> 19));
		bool zero = group % 3 == 0 || (off >> 23) % 4 == 3 ||
			    (group % 5 == 0 && mix(seed + off) % 3 == 0);

		if (zero)
			memset(buf + off, 0, CKF_PAGE_BYTES);
		for (uint64_t k = 0; k < CKF_PAGE_BYTES && !zero; k += 8)
			*(uint64_t *)(buf + off + k) = mix(seed + off + k);
	}
}

static void make_mem(struct mem *m, int device, uint64_t seed, int expect)
{
	CUmemAllocationProp prop = {
		.type = CU_MEM_ALLOCATION_TYPE_PINNED,
		.requestedHandleTypes = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR,
		.location = { CU_MEM_LOCATION_TYPE_DEVICE, device },
	};
	char *buf = malloc(m->bytes);
	CUstream stream;

	if (!buf)
		die("no memory");
	CU(mem_create(&m->handle, m->bytes, &prop, 0));
	map_mem(m, device);
	pattern(buf, m->bytes, seed);
	CU(stream_create(&stream, CU_STREAM_NON_BLOCKING));
	CU(memcpy_htod_async(m->va, buf, m->bytes, stream));
	CU(stream_synchronize(stream));
	for (uint64_t off = 0, n; off < m->bytes; off += n) {
		n = m->bytes - off < 1 << 30 ? m->bytes - off : 1 << 30;
		if (write(expect, buf + off, n) != (ssize_t)n)
			die("write: %s", strerror(errno));
	}
	free(buf);
}

static void send_mem(int sock, struct mem *m, int device, uint64_t addr)
{
	struct ckf_gpud_msg msg = {
		.op = CKF_GPUD_MEMORY, .addr = addr, .bytes = m->bytes, .device = (uint32_t)device
	};
	CUuuid uuid;
	int fd;

	CU(mem_export(&fd, m->handle, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0));
	CU(device_get_uuid(&uuid, device));
	memcpy(msg.uuid, uuid.bytes, 16);
	send_msg(sock, &msg, fd);
	close(fd);
	one_memory();
}

static int cmd_save(char **argv)
{
	struct ckf_gpud_msg m = { .op = CKF_GPUD_SAVE, .pid = (uint32_t)atoi(argv[1]) };
	int sock, dir = open_dir(argv[0]), count, expect;
	uint64_t addr = BASE;
	char path[512];

	start_cuda();
	CU(device_get_count(&count));
	snprintf(path, sizeof(path), "%s/../expect-%s", argv[0], argv[1]);
	expect = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	for (char **a = argv + 2; *a; a++, nr_mems++) {
		mems[nr_mems].bytes = strtoull(*a, NULL, 10) << 20;
		make_mem(&mems[nr_mems], nr_mems % count, m.pid + (uint64_t)nr_mems, expect);
	}
	close(expect);
	sock = connect_gpud();
	send_msg(sock, &m, dir);
	for (int i = 0; i < nr_mems; i++) {
		send_mem(sock, &mems[i], i % count, addr);
		addr += mems[i].bytes + (i % 2 ? ALIGN : 0);
	}
	m.op = CKF_GPUD_COMMIT;
	send_msg(sock, &m, -1);
	recv_msg(sock, &m, NULL);
	if (m.op != CKF_GPUD_DONE)
		die("unexpected message %u", m.op);
	printf("save %" PRIu64 " bytes not zero, gpud %.3f s\n", m.arg, (double)m.arg2 * 1e-9);
	return 0;
}

static void parse_uuid(const char *s, uint8_t uuid[16])
{
	for (int i = 0; i < 16; i++)
		if (sscanf(s + 2 * i, "%2hhx", &uuid[i]) != 1)
			die("%s is no UUID", s);
}

static int cmd_act(char **argv)
{
	static const char *const names[] = { "",       "lock",	"unlock", "suspend",
					     "resume", "state", "tid" };
	struct ckf_gpud_msg m = { .op = CKF_GPUD_CHECKPOINT, .arg2 = 10000 };
	struct ckf_gpud_msg pair = { .op = CKF_GPUD_PAIR };
	struct ckf_error err = { 0 };
	int pidfd = (int)syscall(SYS_pidfd_open, atoi(argv[1]), 0), sock, ret;

	if (pidfd < 0)
		die("process %s: %s (%d)", argv[1], strerror(errno), errno);
	sock = connect_gpud();
	for (char **a = argv + 2; a[0] && a[1]; a += 2) {
		parse_uuid(a[0], pair.uuid);
		parse_uuid(a[1], pair.uuid2);
		send_msg(sock, &pair, -1);
	}
	while (m.arg <= CKF_GPUD_RESTORE_TID && strcmp(argv[0], names[m.arg]))
		m.arg++;
	ret = ckf_gpud_call(sock, &m, pidfd, &err);
	if (ret)
		die("gpud: %s (%d)", err.msg, -ret);
	printf("%" PRIu64 "\n", m.arg);
	return 0;
}

/* Each is answered by an ERROR, and then by the end of the connection. */
static const struct {
	const char *name;
	struct ckf_gpud_msg m;
	bool fd;
	bool save; /* after SAVE */
} bads[] = {
	{ "op", { .op = 99 }, false, false },
	{ "answer", { .op = CKF_GPUD_DONE }, false, false },
	{ "stray-memory", { .op = CKF_GPUD_MEMORY }, false, false },
	{ "stray-fd", { .op = CKF_GPUD_STATUS }, true, false },
	{ "fill-without-fd", { .op = CKF_GPUD_FILL }, false, false },
	{ "action", { .op = CKF_GPUD_CHECKPOINT, .arg = 7 }, true, false },
	{ "no-process", { .op = CKF_GPUD_CHECKPOINT, .arg = CKF_GPUD_LOCK }, false, false },
	{ "process-no-pidfd", { .op = CKF_GPUD_CHECKPOINT, .arg = CKF_GPUD_LOCK }, true, false },
	{ "join-with-fd", { .op = CKF_GPUD_JOIN }, true, false },
	{ "save-hello", { .op = CKF_GPUD_HELLO, .arg = 1 }, false, true },
	{ "save-without-fd", { .op = CKF_GPUD_MEMORY, .bytes = ALIGN }, false, true },
	{ "save-unaligned", { .op = CKF_GPUD_MEMORY, .addr = 4096, .bytes = ALIGN }, true, true },
	{ "save-odd", { .op = CKF_GPUD_MEMORY, .bytes = 4096 }, true, true },
	{ "save-empty", { .op = CKF_GPUD_MEMORY }, true, true },
	{ "save-wraps", { .op = CKF_GPUD_MEMORY, .addr = -ALIGN, .bytes = 2 * ALIGN }, true, true },
	{ "save-flags", { .op = CKF_GPUD_MEMORY, .bytes = ALIGN, .flags = 1u << 31 }, true, true },
	{ "save-shared-no-id",
	  { .op = CKF_GPUD_MEMORY, .bytes = ALIGN, .flags = CKF_GPU_ALLOC_SHARED },
	  true,
	  true },
	{ "save-id-not-shared",
	  { .op = CKF_GPUD_MEMORY, .bytes = ALIGN, .uuid2 = "x" },
	  true,
	  true },
	{ "save-import-not-shared",
	  { .op = CKF_GPUD_MEMORY, .bytes = ALIGN, .flags = CKF_GPU_ALLOC_IMPORT },
	  true,
	  true },
};

static int cmd_bad(char **argv)
{
	struct ckf_gpud_msg m = { .op = CKF_GPUD_SAVE, .pid = 1 };
	struct ckf_error err = { 0 };
	int sock, dir = open_dir("."), ret;
	size_t i;

	for (i = 0; i < sizeof(bads) / sizeof(*bads) && strcmp(bads[i].name, argv[0]); i++)
		;
	if (i == sizeof(bads) / sizeof(*bads)) {
		for (i = 0; i < sizeof(bads) / sizeof(*bads); i++)
			printf("%s\n", bads[i].name);
		return 0;
	}
	sock = connect_gpud();
	if (bads[i].save)
		send_msg(sock, &m, dir);
	send_msg(sock, &bads[i].m, bads[i].fd ? dir : -1);
	if (ckf_gpud_recv(sock, &m, NULL, &err) || m.op != CKF_GPUD_ERROR)
		die("no error for %s: %s", argv[0], err.msg);
	printf("%s\n", m.text);
	ret = ckf_gpud_recv(sock, &m, NULL, NULL);
	if (ret != -ECONNRESET)
		die("the connection is not closed: %d", ret);
	return 0;
}

static int cmd_hello(char **argv)
{
	struct ckf_gpud_msg m = { .op = CKF_GPUD_HELLO, .arg = strtoull(argv[0], NULL, 10) };
	int sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	struct sockaddr_un addr = { .sun_family = AF_UNIX };

	if (!socket_path)
		socket_path = getenv("CKFAST_GPUD_SOCKET");
	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", socket_path);
	if (sock < 0 || connect(sock, (struct sockaddr *)&addr, sizeof(addr)))
		die("%s: %s", socket_path, strerror(errno));
	if (!m.arg)
		m.op = CKF_GPUD_STATUS;
	send_msg(sock, &m, -1);
	recv_msg(sock, &m, NULL);
	printf("%" PRIu64 "\n", m.arg);
	return 0;
}

int main(int argc, char **argv)
{
	static const struct option opts[] = { { "socket", required_argument, NULL, 's' },
					      { "helper", required_argument, NULL, 'h' },
					      { "die", required_argument, NULL, 'd' },
					      { "pause", required_argument, NULL, 'p' },
					      { 0 } };
	int opt;

	while ((opt = getopt_long(argc, argv, "+", opts, NULL)) != -1) {
		if (opt == 's')
			socket_path = optarg;
		else if (opt == 'h')
			helper = optarg;
		else if (opt == 'd')
			die_after = atoi(optarg);
		else if (opt == 'p')
			pause_ms = atoi(optarg);
		else
			return 2;
	}
	argv += optind;
	if (argc - optind >= 2 && !strcmp(argv[0], "fill"))
		return cmd_fill(argv + 1);
	if (argc - optind >= 4 && !strcmp(argv[0], "save"))
		return cmd_save(argv + 1);
	if (argc - optind >= 3 && !strcmp(argv[0], "act"))
		return cmd_act(argv + 1);
	if (argc - optind == 2 && !strcmp(argv[0], "bad"))
		return cmd_bad(argv + 1);
	if (argc - optind == 2 && !strcmp(argv[0], "hello"))
		return cmd_hello(argv + 1);
	return 2;
}

/* SPDX-License-Identifier: MIT */
/*
 * bare FILE BYTES THREADS buffered|direct [KIND [FILLED]]: how fast this machine can read so
 * many bytes of FILE into fresh memory of a kind, with nothing else to do: the limit that the
 * fill of a restore is held against. Prints nanoseconds.
 *
 *	huge		private memory in huge pages
 *	shared		shared memory in huge pages; MADV_COLLAPSE makes them right before
 *			they are read to
 *	pages		private memory in small pages, FILLED bytes in all: more than are
 *			read where data was compressed or repeats. Nothing is decoded
 *	every2nd	the same, but only every other page of the range
 *
 * Small pages are filled by UFFDIO_COPY out of a buffer that stays in the CPU's cache. That is the
 * quickest way to fill single pages: docs/notes/2026-11-24-two-cpus-quick-faults.md has them all.
 *
 * direct is O_DIRECT through io_uring, as it is fastest from a disk; buffered is pread, as it is
 * fastest from the page cache. Threads take the next piece of the file until none is left.
 */
#include <liburing.h>
#include <pthread.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <linux/userfaultfd.h>

#include "tests/progs/prog.h"

#define PIECE_BYTES (4u * MIB)
#define HUGE_BYTES (2u * MIB)
#define DEPTH 4
#define MAX_THREADS 256
#define SMALL_PIECE_BYTES (1u * MIB) /* of pages: the buffer stays in the cache */

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

static struct {
	int fd;
	bool direct;
	bool small;
	bool shared;
	uint64_t step_bytes; /* from a small page to the next */
	int uffd;
	char *addr;
	uint64_t bytes;
	uint64_t filled_bytes;
	uint64_t piece_bytes;
	uint64_t next; /* atomic */
} job;

/* The offset of the next piece; job.bytes or more when there is none. */
static uint64_t take(void)
{
	return __atomic_fetch_add(&job.next, job.piece_bytes, __ATOMIC_RELAXED);
}

static size_t piece_len(uint64_t off)
{
	return job.bytes - off < job.piece_bytes ? (size_t)(job.bytes - off) : job.piece_bytes;
}

/* Each piece has its place and its share of the pages: [*first, *end). */
static void pages_of(uint64_t off, uint64_t *first, uint64_t *end)
{
	double share = (double)job.filled_bytes / (double)job.bytes;
	uint64_t piece_end = off + piece_len(off);

	*first = (uint64_t)((double)off * share) / PAGE;
	*end = piece_end == job.bytes ? job.filled_bytes / PAGE
				      : (uint64_t)((double)piece_end * share) / PAGE;
}

/* What was read at off is copied to its pages, again from the start where they are more. */
static void copy_pages(uint64_t off, const char *buf)
{
	uint64_t page, end, nr = piece_len(off) / PAGE, len;

	pages_of(off, &page, &end);
	for (uint64_t from = 0; page < end; page += len, from = (from + len) % nr) {
		struct uffdio_copy cp = { .dst = (uintptr_t)job.addr + page * job.step_bytes,
					  .src = (uintptr_t)buf + from * PAGE };

		len = job.step_bytes > PAGE ? 1 : nr - from;
		if (len > end - page)
			len = end - page;
		cp.len = len * PAGE;
		if (ioctl(job.uffd, UFFDIO_COPY, &cp))
			die("UFFDIO_COPY");
	}
}

/* Before a piece is read to its place; small pages where the kernel has no others. */
static void make_ready(uint64_t off)
{
	for (uint64_t at = 0; job.shared && at < piece_len(off); at += HUGE_BYTES) {
		*(volatile char *)(job.addr + off + at) = 0;
		madvise(job.addr + off + at, HUGE_BYTES, MADV_COLLAPSE);
	}
}

static char *new_buffers(void)
{
	char *p = mmap(NULL, DEPTH * job.piece_bytes + HUGE_BYTES, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		die("mmap");
	p += -(uintptr_t)p % HUGE_BYTES;
	madvise(p, DEPTH * job.piece_bytes, MADV_HUGEPAGE);
	return p;
}

static void read_buffered(void)
{
	char *buf = job.small ? new_buffers() : NULL;
	uint64_t off;

	while ((off = take()) < job.bytes) {
		char *to = job.small ? buf : job.addr + off;
		size_t len = piece_len(off);

		make_ready(off);
		for (size_t done = 0; done < len;) {
			ssize_t n = pread(job.fd, to + done, len - done, (off_t)(off + done));

			if (n <= 0)
				die("pread");
			done += (size_t)n;
		}
		if (job.small)
			copy_pages(off, buf);
	}
}

struct read {
	uint64_t off;
	char *buf;
};

static bool submit_one(struct io_uring *ring, struct read *r)
{
	struct io_uring_sqe *sqe;

	r->off = take();
	if (r->off >= job.bytes)
		return false;
	make_ready(r->off);
	sqe = io_uring_get_sqe(ring);
	io_uring_prep_read(sqe, job.fd, job.small ? r->buf : job.addr + r->off,
			   (unsigned int)piece_len(r->off), r->off);
	io_uring_sqe_set_data(sqe, r);
	if (io_uring_submit(ring) != 1)
		die("io_uring_submit");
	return true;
}

static void read_direct(void)
{
	struct read reads[DEPTH], *r;
	struct io_uring_cqe *cqe;
	struct io_uring ring;
	unsigned int in_flight = 0;
	char *buf;

	if (io_uring_queue_init(DEPTH, &ring, 0)) {
		read_buffered(); /* the same reads, one after the other */
		return;
	}
	buf = job.small ? new_buffers() : NULL;
	for (unsigned int i = 0; i < DEPTH; i++) {
		reads[i].buf = buf ? buf + i * job.piece_bytes : NULL;
		if (submit_one(&ring, &reads[i]))
			in_flight++;
	}
	while (in_flight) {
		if (io_uring_wait_cqe(&ring, &cqe))
			die("io_uring_wait_cqe");
		r = io_uring_cqe_get_data(cqe);
		if (cqe->res < 0 || (uint64_t)cqe->res != piece_len(r->off))
			die("read: %d", cqe->res);
		io_uring_cqe_seen(&ring, cqe);
		if (job.small)
			copy_pages(r->off, r->buf);
		if (!submit_one(&ring, r))
			in_flight--;
	}
	io_uring_queue_exit(&ring);
}

static void *worker(void *arg)
{
	(void)arg;
	if (job.direct)
		read_direct();
	else
		read_buffered();
	return NULL;
}

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static void map_memory(void)
{
	uint64_t len = (job.small ? job.filled_bytes / PAGE * job.step_bytes : job.bytes) +
		       2 * HUGE_BYTES;

	job.addr = mmap(NULL, len, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (job.addr == MAP_FAILED)
		die("mmap");
	job.addr += -(uintptr_t)job.addr % HUGE_BYTES;
	/* Shared memory must begin there to have huge pages. */
	if (job.shared && mmap(job.addr, len - HUGE_BYTES, PROT_READ | PROT_WRITE,
			       MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED)
		die("mmap");
	len -= HUGE_BYTES;
	if (job.small) {
		struct uffdio_api api = { .api = UFFD_API };
		struct uffdio_register reg = { .range = { (uintptr_t)job.addr,
							  len / HUGE_BYTES * HUGE_BYTES },
					       .mode = UFFDIO_REGISTER_MODE_MISSING };

		job.uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY);
		if (job.uffd < 0 || ioctl(job.uffd, UFFDIO_API, &api) ||
		    ioctl(job.uffd, UFFDIO_REGISTER, &reg))
			die("userfaultfd");
	} else if (!job.shared) {
		madvise(job.addr, job.bytes, MADV_HUGEPAGE); /* small pages where there are none */
	}
}

/* False for one that is not known. */
static bool set_kind(const char *kind)
{
	job.shared = !strcmp(kind, "shared");
	job.small = !strcmp(kind, "pages") || !strcmp(kind, "every2nd");
	job.step_bytes = strcmp(kind, "every2nd") ? PAGE : 2 * PAGE;
	job.piece_bytes = job.small ? SMALL_PIECE_BYTES : PIECE_BYTES;
	return job.shared || job.small || !strcmp(kind, "huge");
}

int main(int argc, char **argv)
{
	pthread_t threads[MAX_THREADS];
	unsigned int nr_threads;
	uint64_t start;
	struct stat st;

	if (argc < 5 || !set_kind(argc > 5 ? argv[5] : "huge")) {
		fprintf(stderr, "usage: bare FILE BYTES THREADS buffered|direct "
				"[huge|shared|pages|every2nd [FILLED]]\n");
		return 2;
	}
	job.direct = !strcmp(argv[4], "direct");
	job.fd = open(argv[1], O_RDONLY | O_CLOEXEC | (job.direct ? O_DIRECT : 0));
	if (job.fd < 0 || fstat(job.fd, &st))
		die("%s", argv[1]);
	job.bytes = strtoull(argv[2], NULL, 10) / PAGE * PAGE;
	if (job.bytes > (uint64_t)st.st_size / PAGE * PAGE)
		job.bytes = (uint64_t)st.st_size / PAGE * PAGE;
	job.filled_bytes = argc > 6 ? strtoull(argv[6], NULL, 10) : job.bytes;
	nr_threads = (unsigned int)strtoul(argv[3], NULL, 10);
	if (!job.bytes || !nr_threads || nr_threads > MAX_THREADS) {
		fprintf(stderr, "bare: nothing to read, or a bad number of threads\n");
		return 2;
	}
	map_memory();
	start = now_ns();
	for (unsigned int i = 0; i < nr_threads; i++) {
		errno = pthread_create(&threads[i], NULL, worker, NULL);
		if (errno)
			die("pthread_create");
	}
	for (unsigned int i = 0; i < nr_threads; i++)
		pthread_join(threads[i], NULL);
	printf("%llu\n", (unsigned long long)(now_ns() - start));
	return 0;
}

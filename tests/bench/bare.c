/* SPDX-License-Identifier: MIT */
/*
 * bare FILE BYTES THREADS buffered|direct: how fast this machine can read so many bytes of FILE
 * into fresh huge pages, with nothing else to do: the limit that the fill of a restore is held
 * against. Prints nanoseconds.
 *
 * direct is O_DIRECT through io_uring, as it is fastest from a disk; buffered is pread, as it is
 * fastest from the page cache. Threads take the next piece of the file until none is left.
 */
#include <liburing.h>
#include <pthread.h>
#include <sys/stat.h>
#include <time.h>

#include "../progs/prog.h"

#define PIECE_BYTES (4u * MIB)
#define HUGE_BYTES (2u * MIB)
#define DEPTH 4
#define MAX_THREADS 256

static struct {
	int fd;
	bool direct;
	char *addr;
	uint64_t bytes;
	uint64_t next; /* atomic */
} job;

/* The offset of the next piece; job.bytes or more when there is none. */
static uint64_t take(void)
{
	return __atomic_fetch_add(&job.next, PIECE_BYTES, __ATOMIC_RELAXED);
}

static size_t piece_len(uint64_t off)
{
	return job.bytes - off < PIECE_BYTES ? (size_t)(job.bytes - off) : PIECE_BYTES;
}

static void read_buffered(void)
{
	uint64_t off;

	while ((off = take()) < job.bytes) {
		size_t len = piece_len(off);

		for (size_t done = 0; done < len;) {
			ssize_t n = pread(job.fd, job.addr + off + done, len - done,
					  (off_t)(off + done));

			if (n <= 0)
				die("pread");
			done += (size_t)n;
		}
	}
}

static bool submit_one(struct io_uring *ring)
{
	uint64_t off = take();
	struct io_uring_sqe *sqe;

	if (off >= job.bytes)
		return false;
	sqe = io_uring_get_sqe(ring);
	io_uring_prep_read(sqe, job.fd, job.addr + off, (unsigned int)piece_len(off), off);
	io_uring_sqe_set_data64(sqe, piece_len(off));
	if (io_uring_submit(ring) != 1)
		die("io_uring_submit");
	return true;
}

static void read_direct(void)
{
	struct io_uring_cqe *cqe;
	struct io_uring ring;
	unsigned int in_flight = 0;

	if (io_uring_queue_init(DEPTH, &ring, 0)) {
		read_buffered(); /* the same reads, one after the other */
		return;
	}
	while (in_flight < DEPTH && submit_one(&ring))
		in_flight++;
	while (in_flight) {
		if (io_uring_wait_cqe(&ring, &cqe))
			die("io_uring_wait_cqe");
		if (cqe->res < 0 || (uint64_t)cqe->res != io_uring_cqe_get_data64(cqe))
			die("read: %d", cqe->res);
		io_uring_cqe_seen(&ring, cqe);
		if (!submit_one(&ring))
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

int main(int argc, char **argv)
{
	pthread_t threads[MAX_THREADS];
	unsigned int nr_threads;
	uint64_t start, len;
	struct stat st;

	if (argc < 5) {
		fprintf(stderr, "usage: bare FILE BYTES THREADS buffered|direct\n");
		return 2;
	}
	job.direct = !strcmp(argv[4], "direct");
	job.fd = open(argv[1], O_RDONLY | O_CLOEXEC | (job.direct ? O_DIRECT : 0));
	if (job.fd < 0 || fstat(job.fd, &st))
		die("%s", argv[1]);
	job.bytes = strtoull(argv[2], NULL, 10) / PAGE * PAGE;
	if (job.bytes > (uint64_t)st.st_size / PAGE * PAGE)
		job.bytes = (uint64_t)st.st_size / PAGE * PAGE;
	nr_threads = (unsigned int)strtoul(argv[3], NULL, 10);
	if (!job.bytes || !nr_threads || nr_threads > MAX_THREADS) {
		fprintf(stderr, "bare: nothing to read, or a bad number of threads\n");
		return 2;
	}
	len = job.bytes + HUGE_BYTES;
	job.addr = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (job.addr == MAP_FAILED)
		die("mmap");
	job.addr += -(uintptr_t)job.addr % HUGE_BYTES;
	madvise(job.addr, job.bytes, MADV_HUGEPAGE); /* small pages where there are none */
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

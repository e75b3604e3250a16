/* SPDX-License-Identifier: MIT */
/*
 * stages THREADS direct|buffered CODEC ENCODED WRITTEN AGAIN OUT FILE…: what each stage of a
 * conversion does alone, in this many threads, with the pages files of a dump. Prints for each
 * stage its name and the nanoseconds and CPU nanoseconds that it took:
 *
 *	read	the files into buffers, directly with eight reads in flight or from the page cache
 *	hash	the test for zeros, and the checksums of pages and of chunks
 *	again	AGAIN bytes read once more and compared: what was found to be equal
 *	encode	ENCODED bytes that are not zero, in chunks of 16 pages
 *	write	WRITTEN bytes to OUT, and until they are on the disk
 */
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>

#include "ckfast.h"
#include "convert/encode.h"
#include "convert/pack_writer.h"
#include "base/ckf_io_util.h"
#include "tests/progs/prog.h"

#define PIECE_BYTES ((size_t)2 << 20)
#define CHUNK_PAGES 16u
#define CHUNK_BYTES ((size_t)CHUNK_PAGES * CKF_PAGE_BYTES)
#define DEPTH 8
#define MAX_THREADS 64
#define MAX_FILES 16

static struct {
	int fds[MAX_FILES];
	uint64_t starts[MAX_FILES + 1]; /* of the files in data */
	unsigned int nr_files;
	uint8_t *data;
	uint64_t bytes;
	uint64_t limit; /* of the stage */
	atomic_uint_fast64_t next;
	atomic_uint_fast64_t encoded;
	struct ckf_encode_opts encode;
	int out_fd;
	struct ckf_pack_writer *out;
} job;

static struct ckf_decode_costs costs;

/* The next piece of the stage. False when there is none. */
static bool take(uint64_t *off, size_t *bytes)
{
	*off = atomic_fetch_add(&job.next, PIECE_BYTES);
	if (*off >= job.limit)
		return false;
	*bytes = job.limit - *off < PIECE_BYTES ? (size_t)(job.limit - *off) : PIECE_BYTES;
	return true;
}

static uint8_t *new_buffer(size_t bytes)
{
	uint8_t *p = aligned_alloc(PIECE_BYTES, (size_t)ckf_align_up(bytes, PIECE_BYTES));

	if (!p)
		die("no memory");
	madvise(p, bytes, MADV_HUGEPAGE);
	memset(p, 1, bytes);
	return p;
}

/* A piece that crosses the end of a file is read from both. */
static void read_piece(uint8_t *to, uint64_t off, size_t bytes)
{
	for (unsigned int i = 0; i < job.nr_files && bytes; i++) {
		uint64_t end = job.starts[i + 1];
		size_t n = end - off < bytes ? (size_t)(end - off) : bytes;

		if (off >= end)
			continue;
		if (ckf_pread_all(job.fds[i], to, n, off - job.starts[i]))
			die("read");
		to += n;
		off += n;
		bytes -= n;
	}
}

static void *do_read(void *arg)
{
	uint8_t *buf = new_buffer(PIECE_BYTES);
	uint64_t off;
	size_t bytes;

	while (take(&off, &bytes))
		read_piece(buf, off, bytes);
	free(buf);
	return arg;
}

static void *do_again(void *arg)
{
	uint8_t *buf = new_buffer(PIECE_BYTES);
	uint64_t off;
	size_t bytes;

	while (take(&off, &bytes)) {
		for (size_t at = 0; at < bytes; at += CHUNK_BYTES) {
			size_t n = bytes - at < CHUNK_BYTES ? bytes - at : CHUNK_BYTES;

			read_piece(buf, off + at, n);
			if (memcmp(buf, job.data + off + at, n) != 0)
				die("the dump has changed");
		}
	}
	free(buf);
	return arg;
}

static void *do_hash(void *arg)
{
	uint64_t off, zeros = 0, sum = 0;
	size_t bytes;

	while (take(&off, &bytes)) {
		const uint8_t *p = job.data + off;

		for (size_t at = 0; at < bytes; at += CKF_PAGE_BYTES) {
			if (ckf_is_zero(p + at, CKF_PAGE_BYTES))
				zeros++;
			else
				sum ^= ckf_hash64(p + at, CKF_PAGE_BYTES);
		}
		if (zeros < bytes / CKF_PAGE_BYTES)
			sum ^= ckf_hash64(p, bytes);
		zeros = 0;
	}
	/* So that nothing of it is left out. */
	return sum == 1 ? NULL : arg;
}

static void *do_encode(void *arg)
{
	struct ckf_worker *w = ckf_worker_new(CKF_ENCODE_SCRATCH_BYTES);
	uint8_t *buf = new_buffer(CHUNK_BYTES);
	uint64_t *limit = arg, off;
	struct ckf_encoded got;
	size_t bytes;

	if (!w)
		die("no memory");
	while (take(&off, &bytes)) {
		for (size_t at = 0; at + CHUNK_BYTES <= bytes; at += CHUNK_BYTES) {
			if (ckf_is_zero(job.data + off + at, CHUNK_BYTES) ||
			    atomic_fetch_add(&job.encoded, CHUNK_BYTES) >= *limit)
				continue;
			memcpy(buf, job.data + off + at, CHUNK_BYTES);
			if (ckf_encode_chunk(w, &job.encode, buf, CHUNK_PAGES, &got))
				die("encode");
		}
	}
	ckf_worker_free(w);
	free(buf);
	return arg;
}

static void *do_write(void *arg)
{
	uint64_t off;
	size_t bytes;

	while (take(&off, &bytes)) {
		struct iovec iov = { job.data + off, bytes };

		if (ckf_pack_writer_put(job.out, off, &iov, 1, off))
			die("write");
	}
	return arg;
}

static uint64_t clock_ns(clockid_t id)
{
	struct timespec ts;

	clock_gettime(id, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static void run(const char *name, void *(*fn)(void *), unsigned int threads, uint64_t limit)
{
	uint64_t start = clock_ns(CLOCK_MONOTONIC), cpu = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
	uint64_t encode_limit = limit;
	pthread_t ids[MAX_THREADS];

	job.limit = fn == do_encode ? job.bytes : limit < job.bytes ? limit : job.bytes;
	atomic_store(&job.next, 0);
	for (unsigned int i = 0; i < threads; i++) {
		if (pthread_create(&ids[i], NULL, fn, &encode_limit))
			die("pthread_create");
	}
	for (unsigned int i = 0; i < threads; i++)
		pthread_join(ids[i], NULL);
	if (fn == do_write && (ckf_pack_writer_finish(job.out, NULL) || fsync(job.out_fd)))
		die("fsync");
	printf("%s %llu %llu\n", name, (unsigned long long)(clock_ns(CLOCK_MONOTONIC) - start),
	       (unsigned long long)(clock_ns(CLOCK_PROCESS_CPUTIME_ID) - cpu));
}

static void open_files(char **names, unsigned int nr, int flags)
{
	struct stat st;

	for (unsigned int i = 0; i < nr; i++) {
		job.fds[i] = open(names[i], O_RDONLY | flags);
		if (job.fds[i] < 0 || fstat(job.fds[i], &st))
			die(names[i]);
		job.starts[i + 1] = job.starts[i] + (uint64_t)st.st_size;
	}
	job.nr_files = nr;
	job.bytes = job.starts[nr];
}

int main(int argc, char **argv)
{
	unsigned int threads;
	bool direct;

	if (argc < 9 || argc - 8 > MAX_FILES)
		die("usage: stages THREADS direct|buffered CODEC ENCODED WRITTEN AGAIN OUT FILE…");
	threads = (unsigned int)atoi(argv[1]);
	if (!threads || threads > MAX_THREADS)
		die("THREADS");
	direct = !strcmp(argv[2], "direct");
	job.encode.codec = strcmp(argv[3], "raw") ? CKF_CODEC_AUTO : CKF_CODEC_RAW;
	job.encode.goal = CKF_GOAL_FAST;
	ckf_profile_get(CKF_PROFILE_NVME, &job.encode.storage);
	ckf_decode_costs_default(&costs);
	job.encode.costs = &costs;
	open_files(argv + 8, (unsigned int)argc - 8, direct ? O_DIRECT : 0);
	run("read", do_read, direct ? DEPTH : threads, job.bytes);
	job.data = aligned_alloc(PIECE_BYTES, (size_t)ckf_align_up(job.bytes, PIECE_BYTES));
	if (!job.data)
		die("no memory");
	madvise(job.data, (size_t)job.bytes, MADV_HUGEPAGE);
	read_piece(job.data, 0, (size_t)job.bytes);
	run("hash", do_hash, threads, job.bytes);
	/* What is read again may be in the page cache by then, and is to be. */
	for (unsigned int i = 0; i < job.nr_files; i++)
		(void)fcntl(job.fds[i], F_SETFL, 0);
	run("again", do_again, threads, strtoull(argv[6], NULL, 10));
	run("encode", do_encode, threads, strtoull(argv[4], NULL, 10));
	job.out_fd = open(argv[7], O_RDWR | O_CREAT | O_TRUNC, 0600);
	if (job.out_fd < 0 || ckf_pack_writer_open(&job.out, job.out_fd, 0, job.bytes, true, NULL))
		die(argv[7]);
	run("write", do_write, threads, strtoull(argv[5], NULL, 10));
	ckf_pack_writer_free(job.out);
	return 0;
}

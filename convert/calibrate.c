/* SPDX-License-Identifier: MIT */
/*
 * How fast one core of this machine decodes, with the checksum that every chunk gets, how fast it
 * copies out of the page cache, and how fast it fills fresh memory. The constants of model.c come
 * from here.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "format/ckf_codec.h"
#include "base/ckf_io_util.h"
#include "base/ckf_threads.h"
#include "ckf_model.h"

#define CHUNK_BYTES ((size_t)1 << 20)
#define NR_CHUNKS 16
#define FILL_BYTES ((size_t)64 << 20)
#define ROUNDS 5

struct bench {
	struct ckf_codec_ctx *codecs;
	uint8_t *src;	 /* one chunk */
	uint8_t *stored; /* NR_CHUNKS buffers, each for a chunk */
	uint8_t *dst;	 /* likewise */
	size_t stored_bytes[NR_CHUNKS];
	uint64_t rand;
};

static uint32_t next_rand(uint64_t *seed)
{
	*seed = *seed * 6364136223846793005 + 1442695040888963407;
	return (uint32_t)(*seed >> 33);
}

/* Like what a heap of an interpreter holds: words of a few hundred, and small numbers. */
static void make_text(uint8_t *dst, size_t bytes, uint64_t *seed)
{
	size_t n = 0;

	while (n < bytes) {
		uint32_t word = next_rand(seed) % 400;
		uint32_t len = 3 + word % 8;

		for (uint32_t i = 0; i < len && n < bytes; i++)
			dst[n++] = (uint8_t)('a' + (word * 7 + i * (word % 13 + 3)) % 26);
		if (n < bytes)
			dst[n++] = next_rand(seed) % 8 ? ' ' : (uint8_t)next_rand(seed);
	}
}

/* Weights of 16 bits, normal but for the tails: a sum of twelve. */
static void make_weights(uint8_t *dst, size_t bytes, uint64_t *seed)
{
	for (size_t i = 0; i < bytes; i += 2) {
		int32_t sum = -6 * 65536;
		float f;
		uint32_t v;

		for (int k = 0; k < 12; k++)
			sum += (int32_t)(next_rand(seed) & 0xffff);
		f = (float)sum * (0.02f / 65536);
		memcpy(&v, &f, sizeof(v));
		dst[i] = (uint8_t)(v >> 16);
		dst[i + 1] = (uint8_t)(v >> 24);
	}
}

void ckf_calibrate_data(uint32_t codec, uint8_t *dst, size_t bytes, uint64_t *seed)
{
	if (codec == CKF_CODEC_BF16)
		make_weights(dst, bytes, seed);
	else
		make_text(dst, bytes, seed);
}

static int encode_all(struct bench *b, uint32_t codec)
{
	for (size_t i = 0; i < NR_CHUNKS; i++) {
		uint8_t *stored = b->stored + i * CHUNK_BYTES;
		int64_t n = (int64_t)CHUNK_BYTES;

		ckf_calibrate_data(codec, b->src, CHUNK_BYTES, &b->rand);
		if (codec == CKF_CODEC_RAW)
			memcpy(stored, b->src, CHUNK_BYTES);
		else
			n = ckf_encode(b->codecs, codec, 0, b->src, CHUNK_BYTES, stored,
				       CHUNK_BYTES);
		if (n <= 0)
			return n ? (int)n : -EIO;
		b->stored_bytes[i] = (size_t)n;
	}
	return 0;
}

/* A raw chunk is read to its place: what is left to do is the checksum. */
static int decode_all(struct bench *b, uint32_t codec, uint64_t *sum)
{
	int ret = 0;

	for (size_t i = 0; i < NR_CHUNKS && !ret; i++) {
		const uint8_t *stored = b->stored + i * CHUNK_BYTES, *data = stored;

		if (codec != CKF_CODEC_RAW) {
			data = b->dst + i * CHUNK_BYTES;
			ret = ckf_decode(b->codecs, codec, stored, b->stored_bytes[i],
					 b->dst + i * CHUNK_BYTES, CHUNK_BYTES);
		}
		*sum += ckf_hash64(data, CHUNK_BYTES);
	}
	return ret;
}

static int measure_codec(struct bench *b, uint32_t codec, uint64_t *speed)
{
	volatile uint64_t sink;
	uint64_t sum = 0, best = UINT64_MAX;
	int ret = encode_all(b, codec);

	for (int i = 0; i < ROUNDS && !ret; i++) {
		uint64_t start = ckf_now_ns();

		ret = decode_all(b, codec, &sum);
		if (ckf_now_ns() - start < best)
			best = ckf_now_ns() - start;
	}
	sink = sum;
	(void)sink;
	*speed = NR_CHUNKS * CHUNK_BYTES * 1000000000ull / (best ? best : 1);
	return ret;
}

/* Fresh memory, huge pages where the system gives them. */
static int measure_fill(uint64_t *speed)
{
	uint64_t best = UINT64_MAX;

	for (int i = 0; i < ROUNDS; i++) {
		uint8_t *p = mmap(NULL, FILL_BYTES, PROT_READ | PROT_WRITE,
				  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		uint64_t start;

		if (p == MAP_FAILED)
			return -ENOMEM;
		madvise(p, FILL_BYTES, MADV_HUGEPAGE);
		start = ckf_now_ns();
		for (size_t off = 0; off < FILL_BYTES; off += CKF_PAGE_BYTES)
			*(volatile uint8_t *)(p + off) = 1;
		if (ckf_now_ns() - start < best)
			best = ckf_now_ns() - start;
		munmap(p, FILL_BYTES);
	}
	*speed = FILL_BYTES * 1000000000ull / (best ? best : 1);
	return 0;
}

/* Out of the page cache, as much at once as a fill reads. */
static int measure_copy(struct bench *b, uint64_t *speed)
{
	int fd = memfd_create("calibrate", MFD_CLOEXEC), ret = 0;
	uint64_t best = UINT64_MAX;

	if (fd < 0)
		return -errno;
	for (size_t i = 0; i < NR_CHUNKS && !ret; i++)
		ret = ckf_pwrite_all(fd, b->src, CHUNK_BYTES, i * CHUNK_BYTES);
	for (int round = 0; round < ROUNDS && !ret; round++) {
		uint64_t start = ckf_now_ns();

		for (size_t i = 0; i < NR_CHUNKS && !ret; i++)
			ret = ckf_pread_all(fd, b->dst + i * CHUNK_BYTES, CHUNK_BYTES,
					    i * CHUNK_BYTES);
		if (ckf_now_ns() - start < best)
			best = ckf_now_ns() - start;
	}
	close(fd);
	*speed = NR_CHUNKS * CHUNK_BYTES * 1000000000ull / (best ? best : 1);
	return ret;
}

int ckf_calibrate(struct ckf_speeds *out, struct ckf_error *err)
{
	struct bench b = { .rand = 1 };
	int ret = ckf_codec_ctx_new(&b.codecs);

	memset(out, 0, sizeof(*out));
	b.src = malloc(CHUNK_BYTES);
	b.stored = malloc(NR_CHUNKS * CHUNK_BYTES);
	b.dst = malloc(NR_CHUNKS * CHUNK_BYTES);
	if (!b.src || !b.stored || !b.dst)
		ret = -ENOMEM;
	else
		memset(b.dst, 1, NR_CHUNKS * CHUNK_BYTES);
	for (uint32_t c = CKF_CODEC_RAW; c < CKF_CODEC_END && !ret; c++)
		ret = measure_codec(&b, c, &out->decode[c]);
	if (!ret)
		ret = measure_copy(&b, &out->copy);
	if (!ret)
		ret = measure_fill(&out->fill);
	if (ret)
		ckf_error_set(err, ret, "cannot measure: %s", strerror(-ret));
	ckf_codec_ctx_free(b.codecs);
	free(b.src);
	free(b.stored);
	free(b.dst);
	return ret;
}

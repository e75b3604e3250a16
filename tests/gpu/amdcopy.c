/* SPDX-License-Identifier: MIT */
/*
 * amdcopy MIB [QUEUES [PIECE]]: copies MIB of memory to every AMD GPU at once and back, through the
 * backend of gpu/amd/, checks every byte, and prints one line of JSON for each GPU with its rates:
 * to the GPU with all slots, back with one piece after the other. Every eighth piece is cleared
 * instead of copied. PIECE: bytes of one copy, 4 MiB by default; small ones fill the rings. Runs on
 * the fake of tests/stub/amd/ and on hardware. Exit code 77: there are no engines.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/ckf_threads.h"
#include "gpu/amd/amd.h"

#define SLOT_BYTES (4u << 20)
#define SLOTS_PER_GPU 8u
#define MAX_GPUS 64u
#define PAGE 4096u
#define FILLER 0x5a

struct job {
	struct ckf_sink *sink;
	struct ckf_sink_mem *mem;
	uint64_t bytes;
	uint32_t piece_bytes;
	uint64_t to_ns;
	uint64_t from_ns;
	struct ckf_error err;
	int ret;
};

static const struct ckf_sink_ops *const ops = &ckf_amd_sink_ops;

static bool is_cleared(uint64_t piece)
{
	return piece % 8 == 7;
}

/* Each page begins with its own number, and that of the GPU; the rest of all slots is the same. */
static uint64_t first_word(const struct job *j, uint64_t off)
{
	return (off + 1) * 0x9e3779b97f4a7c15ull + j->sink->gpu;
}

static void make(const struct job *j, char *slot, uint64_t off)
{
	for (size_t i = 0; i < SLOT_BYTES; i += PAGE) {
		const uint64_t word = first_word(j, off + i);

		memcpy(slot + i, &word, sizeof(word));
	}
}

/* The last piece first. */
static int submit(struct job *j, unsigned int stream, const struct ckf_sink_slot *slot,
		  uint64_t off)
{
	static _Thread_local struct ckf_sink_copy copies[SLOT_BYTES / PAGE];
	uint32_t nr = SLOT_BYTES / j->piece_bytes;

	for (uint32_t i = 0; i < nr; i++) {
		uint32_t at = (nr - 1 - i) * j->piece_bytes;

		copies[i] = (struct ckf_sink_copy){ j->mem, off + at, at, j->piece_bytes };
	}
	return ops->submit(j->sink, stream, slot, copies, nr, &j->err);
}

static int put_all(struct job *j)
{
	struct ckf_sink_slot slot;
	int ret = 0;

	for (uint64_t off = 0, n = 0; off < j->bytes && !ret; off += SLOT_BYTES, n++) {
		unsigned int stream = (unsigned int)(n % ops->nr_streams(j->sink));

		if (is_cleared(n)) {
			ret = ops->clear(j->sink, stream, j->mem, off, SLOT_BYTES, &j->err);
			continue;
		}
		ret = ops->slot_take(j->sink, &slot, &j->err);
		if (ret)
			break;
		make(j, slot.addr, off);
		ret = submit(j, stream, &slot, off);
	}
	return ret ? ret : ops->drain(j->sink, &j->err);
}

static int check(struct job *j, const char *got, uint64_t off, uint64_t n)
{
	char want[PAGE];

	memset(want, is_cleared(n) ? 0 : FILLER, sizeof(want));
	for (size_t i = 0; i < SLOT_BYTES; i += PAGE) {
		const uint64_t word = is_cleared(n) ? 0 : first_word(j, off + i);

		memcpy(want, &word, sizeof(word));
		if (memcmp(got + i, want, PAGE) != 0)
			return ckf_error_set(&j->err, -1,
					     "GPU %u has wrong bytes in the page at %llu",
					     j->sink->gpu, (unsigned long long)(off + i));
	}
	return 0;
}

static int get_all(struct job *j)
{
	int ret = 0;

	for (uint64_t off = 0, n = 0; off < j->bytes && !ret; off += SLOT_BYTES, n++) {
		const struct ckf_sink_copy c = { j->mem, off, 0, SLOT_BYTES };
		struct ckf_sink_slot slot;
		uint64_t start;

		ret = ops->slot_take(j->sink, &slot, &j->err);
		if (ret)
			break;
		memset(slot.addr, ~FILLER, SLOT_BYTES);
		start = ckf_now_ns();
		ret = ops->fetch(j->sink, (unsigned int)(n % ops->nr_streams(j->sink)), &slot, &c,
				 &j->err);
		j->from_ns += ckf_now_ns() - start;
		if (!ret)
			ret = check(j, slot.addr, off, n);
		memset(slot.addr, FILLER, SLOT_BYTES);
		ops->slot_put(j->sink, &slot);
	}
	return ret;
}

static void work(void *arg, unsigned int nr)
{
	struct job *j = (struct job *)arg + nr;
	uint64_t start;

	j->ret = ops->alloc(j->sink, j->bytes, &j->mem, &j->err);
	if (j->ret)
		return;
	start = ckf_now_ns();
	j->ret = put_all(j);
	j->to_ns = ckf_now_ns() - start;
	if (!j->ret)
		j->ret = get_all(j);
	ops->free(j->mem);
}

static int report(const struct job *jobs, unsigned int nr)
{
	int bad = 0;

	for (unsigned int i = 0; i < nr; i++) {
		if (jobs[i].ret) {
			fprintf(stderr, "amdcopy: GPU %u: %s\n", i, jobs[i].err.msg);
			bad = 1;
			continue;
		}
		printf("{\"gpu\":%u,\"queues\":%u,\"bytes\":%llu,\"to_gb_per_s\":%.3f,"
		       "\"from_gb_per_s\":%.3f}\n",
		       i, ops->nr_streams(jobs[i].sink), (unsigned long long)jobs[i].bytes,
		       (double)jobs[i].bytes / (double)jobs[i].to_ns,
		       (double)jobs[i].bytes / (double)jobs[i].from_ns);
	}
	return bad;
}

int main(int argc, char **argv)
{
	struct ckf_amd_opts o = { .size = sizeof(o), .slot_bytes = SLOT_BYTES, .timeout_ms = 3000 };
	struct ckf_threads_opts t = { .work = work };
	struct job jobs[MAX_GPUS] = { 0 };
	struct ckf_error err = { 0 };
	struct ckf_amd *amd;
	uint64_t mib = argc > 1 ? strtoull(argv[1], NULL, 10) : 0;
	uint32_t piece = argc > 3 ? (uint32_t)strtoul(argv[3], NULL, 10) : SLOT_BYTES;
	int bad;

	if (!mib || argc > 4 || !piece || piece % PAGE || SLOT_BYTES % piece) {
		fprintf(stderr, "usage: amdcopy MIB [QUEUES [PIECE]]\n");
		return 2;
	}
	o.nr_queues = argc > 2 ? (unsigned int)strtoul(argv[2], NULL, 10) : 0;
	o.nr_slots = 4 * SLOTS_PER_GPU;
	if (ckf_amd_open(&o, &amd, &err) || err.code) {
		fprintf(stderr, "amdcopy: %s\n", err.msg);
		return 77;
	}
	memset(amd->slots, FILLER, (size_t)amd->nr_slots * amd->slot_bytes);
	t.threads = amd->nr_sinks < MAX_GPUS ? amd->nr_sinks : MAX_GPUS;
	for (unsigned int i = 0; i < t.threads; i++)
		jobs[i] = (struct job){
			.sink = &amd->sinks[i],
			.bytes = (mib + 3) / 4 * SLOT_BYTES,
			.piece_bytes = piece,
		};
	t.arg = jobs;
	ckf_threads_run(&t);
	bad = report(jobs, t.threads);
	ckf_amd_close(amd);
	return bad;
}

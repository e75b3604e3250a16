/* SPDX-License-Identifier: MIT */
/* The model of a restore: ckf_model.h says what it rests on. */
#include "ckf_model.h"

#include <errno.h>
#include <stdlib.h>

#define PS_PER_S 1000000000000ull

/*
 * What criu restore takes besides filling memory, once it knows the kernel, on machines with two
 * and 16 CPUs and quick page faults, and on one with two whose page faults are some fifteen times
 * as slow (docs/notes/2026-12-01-estimates.md): for itself, and as often as it would take to make a
 * process, for itself and for each task. Part of it is done by one CPU at a time, the rest by all.
 */
#define CRIU_S 0.004
#define CRIU_PROCESSES 3
#define TASK_PROCESSES 0.17
#define TASK_CPU_PROCESSES 3.15
/* One task after another, where more CPUs do not help: children begin when their parent has. */
#define CHILD_PROCESSES 3.3

/* More where nothing is in memory: for criu with its libraries, 13 MiB, and each of its files. */
#define COLD_S 0.03
#define COLD_FILE_S 0.00005

/*
 * ckfast calibrate on an AMD EPYC (family 26), Linux 6.18, zstd 1.5.4, lz4 1.9.4. lz4 and zstd
 * decode text, bf16 decodes weights of 16 bits. fill is a third of what calibrate says there: a
 * restore gets memory that nobody had just now, which takes a virtual machine longer.
 */
const struct ckf_speeds ckf_model_speeds = {
	.decode = {
		[CKF_CODEC_RAW] = 55000000000,
		[CKF_CODEC_LZ4] = 3700000000,
		[CKF_CODEC_ZSTD] = 1800000000,
		[CKF_CODEC_BF16] = 4600000000,
	},
	.copy = 8500000000,
	.fill = 10000000000,
};

/*
 * ram: what two cores copy out of the page cache. nvme: such a drive as clouds lend it; one of
 * one's own reads two or three times as much. ssd: on SATA. network: 1 Gbit/s.
 */
static const struct {
	const char *name;
	uint64_t bytes_per_s;
} profiles[CKF_PROFILE_END] = {
	[CKF_PROFILE_NUMBER] = { "number", 0 },		  [CKF_PROFILE_RAM] = { "ram", 8000000000 },
	[CKF_PROFILE_NVME] = { "nvme", 2000000000 },	  [CKF_PROFILE_SSD] = { "ssd", 500000000 },
	[CKF_PROFILE_NETWORK] = { "network", 125000000 },
};

const char *ckf_profile_name(uint32_t profile)
{
	return profiles[profile < CKF_PROFILE_END ? profile : CKF_PROFILE_NUMBER].name;
}

void ckf_profile_get(uint32_t profile, struct ckf_storage *out)
{
	if (profile >= CKF_PROFILE_END)
		profile = CKF_PROFILE_NUMBER;
	*out = (struct ckf_storage){
		.bytes_per_s = profiles[profile].bytes_per_s,
		.profile = profile,
		.nr_cores = CKF_MODEL_CORES,
	};
}

/* Integers: the choice must not depend on how a machine rounds. */
uint64_t ckf_model_chunk_ps(const struct ckf_storage *s, uint64_t decode_speed,
			    uint64_t stored_bytes, uint64_t decoded_bytes)
{
	uint64_t read_ps = stored_bytes * PS_PER_S / s->bytes_per_s;
	uint64_t core_ps = decoded_bytes * PS_PER_S / ckf_model_speeds.fill;

	core_ps += decoded_bytes * PS_PER_S / decode_speed;
	core_ps /= s->nr_cores;
	return read_ps > core_ps ? read_ps : core_ps;
}

/* All of it is work for the cores, so that their number does not matter. */
static uint64_t warm_ps(uint64_t decode_speed, uint64_t stored_bytes, uint64_t decoded_bytes)
{
	const struct ckf_speeds *v = &ckf_model_speeds;

	return stored_bytes * PS_PER_S / v->copy + decoded_bytes * PS_PER_S / decode_speed +
	       decoded_bytes * PS_PER_S / v->fill;
}

bool ckf_model_fits_warm(uint64_t decode_speed, uint64_t stored_bytes, uint64_t decoded_bytes)
{
	uint64_t raw_ps = warm_ps(ckf_model_speeds.decode[CKF_CODEC_RAW], decoded_bytes,
				  decoded_bytes);

	return warm_ps(decode_speed, stored_bytes, decoded_bytes) <= raw_ps + raw_ps / 10;
}

/*
 * An op that takes a part of a chunk counts for that part. What several ops take is decoded for
 * each of them, but comes from the storage once.
 */
int ckf_model_work(const struct ckf_index *idx, struct ckf_restore_work *out)
{
	uint32_t *read_pages = calloc((size_t)idx->nr_chunks + 1, sizeof(*read_pages));

	*out = (struct ckf_restore_work){ 0 };
	if (!read_pages)
		return -ENOMEM;
	for (uint64_t i = 0; i < idx->nr_ops; i++) {
		const struct ckf_op *op = &idx->ops[i];
		const struct ckf_chunk *c = &idx->chunks[op->chunk];

		if (ckf_op_flags(op) & CKF_OP_INHERIT)
			continue;
		out->decoded_bytes[c->codec] += ckf_pages_to_bytes(op->nr_pages);
		out->copied_bytes += (uint64_t)c->stored_bytes * op->nr_pages / c->nr_pages;
		read_pages[op->chunk] += op->nr_pages;
		if (read_pages[op->chunk] > c->nr_pages)
			read_pages[op->chunk] = c->nr_pages;
	}
	for (uint64_t i = 0; i < idx->nr_chunks; i++) {
		const struct ckf_chunk *c = &idx->chunks[i];

		out->read_bytes += (uint64_t)c->stored_bytes * read_pages[i] / c->nr_pages;
	}
	free(read_pages);
	out->nr_files = idx->nr_files;
	for (uint64_t i = 0; i < idx->nr_targets; i++)
		out->nr_tasks += idx->targets[i].kind == CKF_TARGET_TASK;
	return 0;
}

double ckf_model_tasks_s(uint64_t nr_tasks, double process_s, unsigned int nr_cores)
{
	const double each = TASK_PROCESSES + TASK_CPU_PROCESSES / nr_cores;
	const double children = nr_tasks > 1 ? CHILD_PROCESSES : 0;

	return CRIU_S + process_s * (CRIU_PROCESSES + children + each * (double)nr_tasks);
}

double ckf_model_cold_s(const struct ckf_restore_work *w, const struct ckf_storage *s)
{
	if (s->profile == CKF_PROFILE_RAM)
		return 0;
	return COLD_S + COLD_FILE_S * (double)w->nr_files;
}

double ckf_model_fill_of_s(const struct ckf_restore_work *w, const struct ckf_storage *s,
			   double core_s)
{
	double read_s = (double)w->read_bytes / (double)s->bytes_per_s;

	if (s->profile == CKF_PROFILE_RAM)
		read_s = 0;
	return read_s > core_s ? read_s : core_s;
}

double ckf_model_fill_s(const struct ckf_speeds *v, const struct ckf_restore_work *w,
			const struct ckf_storage *s, unsigned int nr_cores)
{
	double core_s = 0;

	if (s->profile == CKF_PROFILE_RAM)
		core_s = (double)w->copied_bytes / (double)v->copy;
	/* Zeros are made while reads are in flight, so they are not counted. */
	for (uint32_t c = CKF_CODEC_RAW; c < CKF_CODEC_END; c++)
		core_s += (double)w->decoded_bytes[c] *
			  (1 / (double)v->decode[c] + 1 / (double)v->fill);
	return ckf_model_fill_of_s(w, s, core_s / nr_cores);
}

/* SPDX-License-Identifier: MIT */
/*
 * How long a restore takes, before there is one: storage speeds, decode speeds, and what follows.
 *
 * Reading and decoding overlap. What a restore reads from storage comes at the speed of the
 * storage; what it decodes, checks and puts into fresh memory is done by all cores; the slower of
 * the two is the time. Chosen per chunk, the codec with the least max(reading, decoding) gives the
 * least time for the whole if all chunks are alike, and never more than the sum over the chunks.
 *
 * But an image is often read again, and then comes from the page cache: the cores copy it, and
 * whatever they decode comes on top. So unless the user has named a storage to choose for, a codec
 * must not cost more than a tenth of that. Speeds are in bytes per second, decode speeds count
 * decoded bytes.
 */
#ifndef CKF_MODEL_H
#define CKF_MODEL_H

#include "format/ckf_index.h"

/*
 * Cores that codecs are chosen for. Few on purpose: a codec that pays with two cores pays with
 * more, and the image stays the same on whatever machine it is made.
 */
#define CKF_MODEL_CORES 2

struct ckf_speeds {
	uint64_t decode[CKF_CODEC_END]; /* of one core, with the checksum; 0 for zero */
	uint64_t copy;			/* of one core: out of the page cache */
	uint64_t fill;			/* of one core: fresh huge pages */
};

/* Measured by ckf_calibrate(); model.c says where. */
extern const struct ckf_speeds ckf_model_speeds;

/*
 * What a chunk costs from that storage, in picoseconds. decode_speed: as in ckf_speeds, of this
 * data. Both sizes are those of a chunk.
 */
uint64_t ckf_model_chunk_ps(const struct ckf_storage *s, uint64_t decode_speed,
			    uint64_t stored_bytes, uint64_t decoded_bytes);

/*
 * Whether a chunk stored so costs at most a tenth more than a raw one when a restore has it from
 * the page cache. There is no wait for a disk then that decoding could hide behind.
 */
bool ckf_model_fits_warm(uint64_t decode_speed, uint64_t stored_bytes, uint64_t decoded_bytes);

/* What a restore does. */
struct ckf_restore_work {
	uint64_t read_bytes;   /* from the storage */
	uint64_t copied_bytes; /* out of the page cache, where all of it is there */
	uint64_t decoded_bytes[CKF_CODEC_END];
	uint64_t nr_tasks;
	uint64_t nr_files; /* CRIU's own */
};

/* 0 or -ENOMEM. */
int ckf_model_work(const struct ckf_index *idx, struct ckf_restore_work *out);
/* How long a restore takes to fill memory, in seconds. From profile ram, the cores copy what is
 * read. */
double ckf_model_fill_s(const struct ckf_speeds *v, const struct ckf_restore_work *w,
			const struct ckf_storage *s, unsigned int nr_cores);
/* The same, where it is known how long the cores take together. */
double ckf_model_fill_of_s(const struct ckf_restore_work *w, const struct ckf_storage *s,
			   double core_s);

/*
 * What making a process costs a quick machine, in seconds: fork(), 256 page faults, half of them of
 * memory that it has from its parent, and its end.
 */
#define CKF_MODEL_PROCESS_S 0.001
#define CKF_MODEL_PROCESS_PAGES 256
/* All else that criu restore does, in seconds, where making a process costs process_s. */
double ckf_model_tasks_s(uint64_t nr_tasks, double process_s, unsigned int nr_cores);
/* What it takes longer, in seconds, when criu and its own files come from such storage, too. */
double ckf_model_cold_s(const struct ckf_restore_work *w, const struct ckf_storage *s);

/*
 * How fast the storage below a directory reads. Writes a file without a name of some MiB and reads
 * it past the page cache. The result goes in steps, so that it is the same most of the time. False
 * when that cannot be done; *out is then nvme.
 */
bool ckf_storage_measure(int dir_fd, struct ckf_storage *out);
/* Whether files of the directory are in memory. */
bool ckf_storage_is_ram(int dir_fd);

/* The same step for speeds that differ little: they are half an octave apart. At least 1. */
uint64_t ckf_storage_round(uint64_t bytes_per_s);

/* Measures this CPU, for about a second. -ENOMEM or -EIO. */
int ckf_calibrate(struct ckf_speeds *out, struct ckf_error *err);
/* The data that the speed of a codec is measured with; *seed goes on. bytes is even. */
void ckf_calibrate_data(uint32_t codec, uint8_t *dst, size_t bytes, uint64_t *seed);

#endif

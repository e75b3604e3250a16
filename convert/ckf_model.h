/* SPDX-License-Identifier: MIT */
/*
 * How long a restore takes, before there is one: storage speeds, decode speeds, and what follows.
 *
 * Reading and decoding overlap. What a restore reads from storage comes at the speed of the
 * storage; what it decodes, checks and puts into fresh memory is done by all cores; the slower of
 * the two is the time. Chosen per chunk, the codec with the least max(reading, decoding) gives the
 * least time for the whole if all chunks are alike, and never more than the sum over the chunks.
 * Speeds are in bytes per second, decode speeds count decoded bytes.
 */
#ifndef CKF_MODEL_H
#define CKF_MODEL_H

#include "../format/ckf_index.h"

/*
 * Cores that codecs are chosen for. Few on purpose: a codec that pays with two cores pays with
 * more, and the image stays the same on whatever machine it is made.
 */
#define CKF_MODEL_CORES 2

struct ckf_speeds {
	uint64_t decode[CKF_CODEC_END]; /* of one core, with the checksum; 0 for zero */
	uint64_t fill;			/* of one core: fresh huge pages */
};

/* Measured by ckf_calibrate(); model.c says where. */
extern const struct ckf_speeds ckf_model_speeds;

/* "ram", "nvme", "ssd", "network"; "number" for others. */
const char *ckf_profile_name(uint32_t profile);
/* profile is not CKF_PROFILE_NUMBER. */
void ckf_profile_get(uint32_t profile, struct ckf_storage *out);
/* The profile of a disk that reads so fast: never ram. */
uint32_t ckf_profile_of_disk(uint64_t bytes_per_s);

/* What a chunk costs, in picoseconds. Both are sizes of a chunk. */
uint64_t ckf_model_chunk_ps(const struct ckf_storage *s, uint32_t codec, uint64_t stored_bytes,
			    uint64_t decoded_bytes);

/* What a restore does. */
struct ckf_restore_work {
	uint64_t read_bytes; /* from the storage */
	uint64_t decoded_bytes[CKF_CODEC_END];
	uint64_t nr_tasks;
};

/* 0 or -ENOMEM. */
int ckf_model_work(const struct ckf_index *idx, struct ckf_restore_work *out);
/* The time of criu restore, in seconds. */
double ckf_model_restore_s(const struct ckf_restore_work *w, uint64_t bytes_per_s,
			   unsigned int nr_cores);

/*
 * The profile of the storage below a directory. Writes a file without a name of some MiB and reads
 * it past the page cache. False when that cannot be done; *out is then nvme.
 */
bool ckf_storage_measure(int dir_fd, struct ckf_storage *out);
/* Whether files of the directory are in memory. */
bool ckf_storage_is_ram(int dir_fd);

/* Measures this CPU, for about a second. -ENOMEM or -EIO. */
int ckf_calibrate(struct ckf_speeds *out, struct ckf_error *err);

#endif

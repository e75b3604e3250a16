/* SPDX-License-Identifier: MIT */
/*
 * How fast the data at hand decodes.
 *
 * The speeds of the model are those of text and of weights. Other data may take three times as
 * long, or a third. So samples of it are encoded, and their decoding is timed, beside that of the
 * text and the weights that ckf_calibrate() has: the ratio of the two is a property of the data
 * rather than of the machine, and the model's speed times the ratio is what a restore may expect
 * elsewhere. Of what is timed on a busy machine the least counts, and the model's data above all:
 * it must not seem slow beside data that was not disturbed. Chunks of one codec that shrink by
 * about as much form a class, which has one speed: so that what is chosen for a chunk does not
 * depend on how its own timing came out. Speeds go in steps, and a class without samples has the
 * speed of the model.
 */
#ifndef CKF_CONVERT_DECODE_COSTS_H
#define CKF_CONVERT_DECODE_COSTS_H

#include "ckf_model.h"
#include "worker.h"

/* Each class shrinks by a factor of 1.41 more than the one before; all above are in the last. */
#define CKF_DECODE_CLASSES 12

/* Where time comes from: what this thread has had of a CPU, but in tests. */
struct ckf_clock {
	uint64_t (*now_ns)(void *arg);
	void *arg;
};

extern const struct ckf_clock ckf_clock_real;

struct ckf_decode_costs {
	struct ckf_decode_class {
		uint64_t bytes; /* decoded, of the samples */
		uint64_t ns;
	} classes[CKF_CODEC_END][CKF_DECODE_CLASSES];
	/* After ckf_decode_costs_finish(), or _default(): bytes per second, as ckf_speeds.decode */
	uint64_t speed[CKF_CODEC_END][CKF_DECODE_CLASSES];
	uint64_t fastest[CKF_CODEC_END];
};

/* The class of a chunk that is not raw. */
unsigned int ckf_decode_class(uint64_t stored_bytes, uint64_t decoded_bytes);

/* The speed of a chunk that is not raw, after _finish() or _default(). */
uint64_t ckf_decode_costs_speed(const struct ckf_decode_costs *c, uint32_t codec,
				uint64_t stored_bytes, uint64_t decoded_bytes);

/* The speeds of the model. */
void ckf_decode_costs_default(struct ckf_decode_costs *c);

/*
 * Encodes nr_pages pages at data, at most CKF_CUT_MAX_PAGES, with each codec that may be worth it,
 * and times the decoding. 0 or -errno.
 */
int ckf_decode_costs_sample(struct ckf_decode_costs *c, struct ckf_worker *w,
			    const struct ckf_clock *clock, const uint8_t *data, uint32_t nr_pages);

/* All samples are there: what they are to the model's speeds. 0 or -errno. */
int ckf_decode_costs_finish(struct ckf_decode_costs *c, struct ckf_worker *w,
			    const struct ckf_clock *clock);

/*
 * The least time of a few decodings of stored, in nanoseconds, with the checksum. dst has
 * decoded_bytes. 0 or -errno.
 */
int ckf_decode_time(struct ckf_codec_ctx *codecs, const struct ckf_clock *clock, uint32_t codec,
		    const void *stored, size_t stored_bytes, void *dst, size_t decoded_bytes,
		    uint64_t *ns);

#endif

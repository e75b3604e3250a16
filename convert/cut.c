/* SPDX-License-Identifier: MIT */
/* Content-defined cutting of a sequence of pages into chunks. */
#include "cut.h"

void ckf_cut_init(struct ckf_cut *c)
{
	*c = (struct ckf_cut){ 0 };
}

static unsigned int end_data(struct ckf_cut *c, struct ckf_cut_piece *out)
{
	out->nr_pages = (uint16_t)c->data;
	out->zero = false;
	c->data = 0;
	return 1;
}

static unsigned int end_zeros(struct ckf_cut *c, struct ckf_cut_piece *out)
{
	out->nr_pages = (uint16_t)c->zeros;
	out->zero = true;
	c->zeros = 0;
	return 1;
}

static unsigned int zero_page(struct ckf_cut *c, struct ckf_cut_piece *out)
{
	c->zeros++;
	if (c->in_zeros)
		return c->zeros == CKF_CUT_MAX_PAGES ? end_zeros(c, out) : 0;
	if (c->zeros == CKF_CUT_ZERO_PAGES) {
		c->in_zeros = true;
		return c->data ? end_data(c, out) : 0;
	}
	/* The zero pages stay: they may yet become a run, or else begin the next chunk. */
	if (c->data && c->data + c->zeros == CKF_CUT_MAX_PAGES)
		return end_data(c, out);
	return 0;
}

unsigned int ckf_cut_page(struct ckf_cut *c, uint64_t hash, bool zero, struct ckf_cut_piece *out)
{
	unsigned int n = 0;

	if (zero)
		return zero_page(c, out);
	if (c->in_zeros) {
		c->in_zeros = false;
		if (c->zeros)
			n = end_zeros(c, out);
	}
	c->data += c->zeros + 1;
	c->zeros = 0;
	if (c->data == CKF_CUT_MAX_PAGES ||
	    (c->data >= CKF_CUT_MIN_PAGES && !(hash & CKF_CUT_MASK)))
		return end_data(c, out);
	return n;
}

unsigned int ckf_cut_flush(struct ckf_cut *c, struct ckf_cut_piece out[2])
{
	unsigned int n = 0;

	if (c->data)
		n += end_data(c, out + n);
	if (c->zeros)
		n += end_zeros(c, out + n);
	c->in_zeros = false;
	return n;
}

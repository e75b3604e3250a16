/* SPDX-License-Identifier: MIT */
/* A conversion's beginning and end, and all of that of a layer, for which a caller has the output.
 */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "conversion.h"
#include "plan.h"

int ckf_conversion_new(const struct ckf_convert_opts *opts, struct ckf_error *err,
		       struct ckf_conversion **out)
{
	struct ckf_conversion *c = calloc(1, sizeof(*c));

	if (!c)
		return ckf_error_set(err, -ENOMEM, "no memory to convert");
	c->err = err;
	c->dir.fd = -1;
	c->pack_fd = -1;
	c->opts = *opts;
	*out = c;
	return 0;
}

void ckf_conversion_free(struct ckf_conversion *c)
{
	free(c->idx.ops);
	free(c->idx.lanes);
	free(c->idx.huge);
	free(c->idx.bases);
	ckf_bases_free(c->bases);
	ckf_build_fini(&c->build);
	ckf_chain_fini(&c->chain);
	ckf_file_list_free(&c->list);
	ckf_dump_close(c->dump);
	free(c->pages_file);
	free(c->pagemap_of);
	free(c->open_streams);
	free(c->left.runs);
	if (c->dir.fd >= 0)
		close(c->dir.fd);
	ckf_archive_close(c->archive);
	free(c);
}

int ckf_conversion_take(struct ckf_conversion *c)
{
	int ret = ckf_conversion_claim(c);

	if (!ret)
		ret = ckf_file_list_check(&c->list, c->err);
	if (!ret)
		ckf_file_list_warn(&c->list, &c->opts);
	return ret;
}

void ckf_conversion_fill_stats(struct ckf_conversion *c)
{
	struct ckf_convert_stats *s = &c->stats;

	s->zero_bytes = c->build.zero_bytes;
	s->dup_bytes = c->build.dup_bytes;
	s->base_bytes = c->build.base_bytes;
	s->nr_bases = c->idx.nr_bases;
	s->stored_bytes = c->build.stored_bytes;
	s->pack_bytes = c->idx.pack_bytes;
	s->nr_chunks = c->idx.nr_chunks;
	s->nr_tasks = c->dump->nr_tasks;
	s->nr_left_out = c->list.nr_left_out;
	s->storage = c->opts.storage;
}

static void add_stats(struct ckf_convert_stats *sum, const struct ckf_convert_stats *s)
{
	sum->page_bytes += s->page_bytes;
	sum->zero_bytes += s->zero_bytes;
	sum->dup_bytes += s->dup_bytes;
	sum->stored_bytes += s->stored_bytes;
	sum->pack_bytes += s->pack_bytes;
	sum->idx_bytes += s->idx_bytes;
	sum->other_bytes += s->other_bytes;
	sum->nr_chunks += s->nr_chunks;
	sum->nr_tasks += s->nr_tasks;
	sum->nr_left_out += s->nr_left_out;
	sum->compressed_bytes += s->compressed_bytes;
	sum->nr_compressed += s->nr_compressed;
	sum->storage = s->storage;
}

int ckf_convert_layer(struct ckf_archive *a, const struct ckf_convert_opts *opts,
		      const struct ckf_output *o, struct ckf_layer_place *at,
		      struct ckf_convert_stats *stats, struct ckf_error *err)
{
	struct ckf_conversion *c = NULL;
	int ret = ckf_conversion_new(opts, err, &c);

	if (ret) {
		ckf_archive_close(a);
		return ret;
	}
	c->archive = a;
	ret = ckf_conversion_enter_archive(c);
	if (!ret)
		ret = ckf_conversion_take(c);
	if (!ret)
		ret = ckf_conversion_into_layer(c, o, at);
	if (!ret) {
		ckf_conversion_fill_stats(c);
		add_stats(stats, &c->stats);
	}
	ckf_conversion_free(c);
	return ret;
}

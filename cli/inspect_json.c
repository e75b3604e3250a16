/* SPDX-License-Identifier: MIT */
/*
 * ckfast inspect for programs. The shape is part of ckfast(1): keys may be added within a version,
 * never taken away or given another meaning.
 */
#include <inttypes.h>
#include <stdio.h>

#include "convert/ckf_model.h"
#include "ckf_inspect.h"

#define HEX64_BYTES 17

static json_t *json_hex(uint64_t v)
{
	char buf[HEX64_BYTES];

	snprintf(buf, sizeof(buf), "%016" PRIx64, v);
	return json_string(buf);
}

static json_t *json_id(const uint8_t id[CKF_ID_BYTES])
{
	char buf[CKF_ID_HEX_BYTES];

	return json_string(ckf_id_hex(id, buf));
}

static json_t *json_memory(const uint64_t mapped_bytes[INSP_MEM_END],
			   const uint64_t page_bytes[INSP_MEM_END])
{
	json_t *obj = json_object();

	for (int mem = 0; mem < INSP_MEM_END; mem++)
		json_object_set_new(obj, insp_mem_key((enum insp_mem)mem),
				    json_pack("{so so}", "mapped_bytes",
					      cli_json_u64(mapped_bytes[mem]), "page_bytes",
					      cli_json_u64(page_bytes[mem])));
	return obj;
}

static json_t *json_tasks(const struct insp *insp)
{
	json_t *list = json_array();

	for (uint64_t i = 0; i < insp->nr_tasks; i++) {
		const struct insp_task *it = &insp->tasks[i];
		json_t *obj = json_pack("{so so so so}", "pid", cli_json_u64(it->pid),
					"mapped_bytes", cli_json_u64(it->all_mapped_bytes),
					"page_bytes", cli_json_u64(it->all_page_bytes), "memory",
					json_memory(it->mapped_bytes, it->page_bytes));

		if (it->task) {
			json_object_set_new(obj, "ppid", cli_json_u64(it->task->ppid));
			json_object_set_new(obj, "comm", cli_json_string(it->task->comm));
			json_object_set_new(obj, "threads", cli_json_u64(it->task->nr_threads));
			json_object_set_new(obj, "state", cli_json_u64(it->task->state));
			json_object_set_new(obj, "vmas", cli_json_u64(it->task->nr_vmas));
		}
		json_array_append_new(list, obj);
	}
	return list;
}

static json_t *json_shmem(const struct insp *insp)
{
	json_t *list = json_array();

	for (uint64_t i = 0; i < insp->dump->nr_pagemaps; i++) {
		const struct ckf_pagemap *pm = &insp->dump->pagemaps[i];

		if (pm->kind == CKF_TARGET_SHMEM)
			json_array_append_new(
				list,
				json_pack("{so so}", "shmid", cli_json_u64(pm->id), "page_bytes",
					  cli_json_u64(ckf_pages_to_bytes(pm->nr_pages))));
	}
	return list;
}

static json_t *json_features(const struct ckf_index *idx)
{
	json_t *list = json_array();
	const char *name;

	for (unsigned int bit = 0; (name = insp_feature_name(bit)); bit++)
		if (idx->incompat & 1ull << bit)
			json_array_append_new(list, json_string(name));
	return list;
}

static json_t *json_bases(const struct insp *insp)
{
	const struct ckf_index *idx = insp->img->idx;
	json_t *list = json_array();

	for (uint32_t i = 0; i < idx->nr_bases; i++) {
		const struct insp_base *b = &insp->bases[i];
		json_t *obj = json_pack(
			"{so so so so so sb}", "id", json_id(idx->bases[i].image_id), "path",
			cli_json_string(idx->bases[i].path), "chunks", cli_json_u64(b->nr_chunks),
			"decoded_bytes", cli_json_u64(b->decoded_bytes), "stored_bytes",
			cli_json_u64(b->stored_bytes), "found", !b->err.code);

		if (b->err.code)
			json_object_set_new(obj, "error", cli_json_string(b->err.msg));
		json_array_append_new(list, obj);
	}
	return list;
}

static json_t *json_codecs(const struct insp *insp)
{
	json_t *obj = json_object();

	for (uint32_t codec = 0; codec < CKF_CODEC_END; codec++) {
		const struct insp_codec *c = &insp->codecs[codec];

		json_object_set_new(obj, ckf_codec_name(codec),
				    json_pack("{so so so}", "chunks", cli_json_u64(c->nr_chunks),
					      "decoded_bytes", cli_json_u64(c->decoded_bytes),
					      "stored_bytes", cli_json_u64(c->stored_bytes)));
	}
	return obj;
}

static json_t *json_files(const struct ckf_index *idx)
{
	static const char *const kinds[] = {
		[CKF_FILE_VERBATIM] = "verbatim",	  [CKF_FILE_PAGES] = "pages",
		[CKF_FILE_SYMLINK] = "symlink",		  [CKF_FILE_SIZED_PAGES] = "sized-pages",
		[CKF_FILE_HEADED_PAGES] = "headed-pages", [CKF_FILE_CUT_PAGES] = "cut-pages",
	};
	json_t *list = json_array();

	for (uint64_t i = 0; i < idx->nr_files; i++) {
		const struct ckf_file *f = &idx->files[i];
		json_t *obj = json_pack("{so ss so so}", "name", cli_json_string(f->name), "kind",
					kinds[f->kind], "size_bytes", cli_json_u64(f->size_bytes),
					"checksum", json_hex(f->checksum));

		if (f->target)
			json_object_set_new(obj, "target", cli_json_string(f->target));
		json_array_append_new(list, obj);
	}
	return list;
}

static json_t *json_lanes(const struct ckf_index *idx, const struct ckf_target *t)
{
	json_t *list = json_array();

	for (uint32_t i = t->first_lane; i < t->first_lane + t->nr_lanes; i++) {
		const struct ckf_lane *l = &idx->lanes[i];

		json_array_append_new(
			list,
			json_pack("{so so so so so}", "start",
				  cli_json_u64(ckf_op_addr(&idx->ops[l->first_op])), "end",
				  cli_json_u64(ckf_op_end(&idx->ops[l->first_op + l->nr_ops - 1])),
				  "ops", cli_json_u64(l->nr_ops), "read_bytes",
				  cli_json_u64(l->read_bytes), "fill_bytes",
				  cli_json_u64(l->fill_bytes)));
	}
	return list;
}

static json_t *json_huge(const struct ckf_index *idx, uint64_t target, uint64_t *h)
{
	json_t *list = json_array();

	for (; *h < idx->nr_huge && idx->huge[*h].target == target; ++*h)
		json_array_append_new(list, json_pack("{so so}", "start",
						      cli_json_u64(idx->huge[*h].addr), "count",
						      cli_json_u64(idx->huge[*h].nr_huge)));
	return list;
}

static json_t *json_targets(const struct insp *insp, bool plan)
{
	const struct ckf_index *idx = insp->img->idx;
	json_t *list = json_array();
	uint64_t h = 0;

	for (uint64_t i = 0; i < idx->nr_targets; i++) {
		const struct ckf_target *t = &idx->targets[i];
		const struct insp_target *it = &insp->targets[i];
		json_t *obj = json_pack(
			"{ss so so so so so so so so so sf}", "kind", ckf_target_kind_name(t->kind),
			"id", cli_json_u64(t->id), "ops", cli_json_u64(t->nr_ops), "lanes",
			cli_json_u64(t->nr_lanes), "fill_bytes", cli_json_u64(it->fill_bytes),
			"read_bytes", cli_json_u64(it->read_bytes), "zero_bytes",
			cli_json_u64(it->zero_bytes), "inherit_bytes",
			cli_json_u64(it->inherit_bytes), "direct_bytes",
			cli_json_u64(it->direct_bytes), "huge_bytes", cli_json_u64(it->huge_bytes),
			"balance", insp_lane_balance(it, t->nr_lanes));

		if (t->parent)
			json_object_set_new(obj, "parent_target", cli_json_u64(t->parent - 1));
		if (plan) {
			json_object_set_new(obj, "lane_list", json_lanes(idx, t));
			json_object_set_new(obj, "huge_list", json_huge(idx, i, &h));
		}
		json_array_append_new(list, obj);
	}
	return list;
}

static json_t *json_chunks(const struct ckf_index *idx)
{
	json_t *list = json_array();

	for (uint64_t i = 0; i < idx->nr_chunks; i++) {
		const struct ckf_chunk *c = &idx->chunks[i];

		json_array_append_new(list, json_pack("{ss si so so so so}", "codec",
						      ckf_codec_name(c->codec), "base", c->base,
						      "pack_offset", cli_json_u64(c->pack_off),
						      "stored_bytes", cli_json_u64(c->stored_bytes),
						      "pages", cli_json_u64(c->nr_pages),
						      "checksum", json_hex(c->checksum)));
	}
	return list;
}

/* By profile, with as many cores as are here. */
static json_t *json_estimates(const struct insp *insp)
{
	json_t *obj = json_object();
	struct ckf_storage s;

	for (uint32_t p = CKF_PROFILE_RAM; p < CKF_PROFILE_END; p++) {
		ckf_profile_get(p, &s);
		json_object_set_new(obj, ckf_profile_name(p), json_real(insp_estimate_s(insp, &s)));
	}
	if (insp->asked.bytes_per_s)
		json_object_set_new(obj, "asked", json_real(insp_estimate_s(insp, &insp->asked)));
	if (insp->img->idx->storage.bytes_per_s)
		json_object_set_new(obj, "recorded",
				    json_real(insp_estimate_s(insp, &insp->img->idx->storage)));
	return obj;
}

static json_t *json_image(const struct insp *insp, bool plan, bool chunks)
{
	const struct ckf_index *idx = insp->img->idx;
	json_t *obj = json_pack(
		"{s[ii] so so so so so so so so so so so so so so so}", "format",
		idx->version_major, idx->version_minor, "id", json_id(idx->image_id), "features",
		json_features(idx), "pack_bytes", cli_json_u64(idx->pack_bytes), "idx_bytes",
		cli_json_u64(insp->idx_bytes), "extent_bytes", cli_json_u64(idx->extent_bytes),
		"extents", cli_json_u64(insp->nr_extents), "stored_bytes",
		cli_json_u64(insp->stored_bytes), "zero_bytes", cli_json_u64(insp->sum.zero_bytes),
		"dup_bytes", cli_json_u64(insp->dup_bytes), "codecs", json_codecs(insp),
		"restore_read_bytes", cli_json_u64(insp->sum.read_bytes), "restore_fill_bytes",
		cli_json_u64(insp_restored_bytes(insp)), "files", json_files(idx), "targets",
		json_targets(insp, plan), "bases", json_bases(insp));

	if (obj && idx->storage.bytes_per_s)
		json_object_set_new(obj, "profile", cli_profile_json(&idx->storage));
	if (obj)
		json_object_set_new(obj, "restore_estimate_s", json_estimates(insp));
	if (obj && chunks)
		json_object_set_new(obj, "chunk_list", json_chunks(idx));
	return obj;
}

json_t *insp_json(const struct insp *insp, bool plan, bool chunks)
{
	json_t *obj = json_pack("{si ss so so so so so so so}", "version", CLI_JSON_VERSION, "what",
				insp->img ? "fast image" : "dump", "path",
				cli_json_string(insp->path), "tasks", json_tasks(insp), "memory",
				json_memory(insp->mapped_bytes, insp->page_bytes), "shared_objects",
				json_shmem(insp), "threads", cli_json_u64(insp->nr_threads),
				"page_bytes", cli_json_u64(insp->all_page_bytes),
				"parent_page_bytes", cli_json_u64(insp->parent_bytes));

	if (obj) {
		json_object_set_new(obj, "device_memory", insp_json_devices(insp));
		json_object_set_new(obj, "device_bytes", cli_json_u64(insp->device_bytes));
		json_object_set_new(obj, "amd_memory", insp_json_amd(insp));
		json_object_set_new(obj, "render_nodes", insp_json_render(insp));
	}
	if (obj && insp->incomplete.code)
		json_object_set_new(obj, "incomplete", cli_json_string(insp->incomplete.msg));
	if (obj && insp->img)
		json_object_set_new(obj, "image", json_image(insp, plan, chunks));
	if (obj && insp->img)
		json_object_set_new(obj, "stale", json_boolean(ckf_image_is_stale(insp->img)));
	return obj;
}

/* SPDX-License-Identifier: MIT */
/* ckfast inspect: the memory of AMD GPUs, for people and for programs. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "ckf_inspect.h"

#define NAME_LEN 256

/* The target of a GPU, or below 0 where its contents are a file of their own. */
static int64_t find_target(const struct insp *insp, const struct ckf_amd_table *t,
			   const struct ckf_amd_gpu *gpu)
{
	if (!insp->img)
		return -1;
	return ckf_index_find_target(insp->img->idx, CKF_TARGET_DEVICE,
				     ckf_amd_target_id(t->file_id, gpu->gpu_id));
}

static void print_gpus(const struct insp *insp, const struct ckf_amd_table *t)
{
	char bytes[CLI_BYTES_LEN], all[CLI_BYTES_LEN], zero[CLI_BYTES_LEN];

	for (uint32_t i = 0; i < t->nr_gpus; i++) {
		const struct ckf_amd_gpu *gpu = &t->gpus[i];
		int64_t target = find_target(insp, t, gpu);

		printf("      GPU %04x (%s): %s, objects: %u", gpu->gpu_id,
		       cli_bytes(gpu->vram_bytes, all), cli_bytes(gpu->bytes, bytes),
		       gpu->nr_objects);
		if (target >= 0)
			printf(", in the pack, zero %s",
			       cli_bytes(insp->targets[target].zero_bytes, zero));
		printf("\n");
	}
}

/* CRIU 4.2.1 writes tables without objects, which nobody needs to hear of. */
static bool is_shown(const struct ckf_render_table *t)
{
	return t->err.code || t->nr_objects;
}

static bool has_render_nodes(const struct insp *insp)
{
	for (uint64_t i = 0; i < insp->dump->nr_render; i++)
		if (is_shown(&insp->dump->render[i]))
			return true;
	return false;
}

struct packed {
	uint32_t nr_objects;
	uint64_t bytes;
	uint64_t zero_bytes;
};

/* What the pack has of the objects of a render node. */
static struct packed find_objects(const struct insp *insp, const struct ckf_render_table *t)
{
	struct packed p = { 0 };

	for (uint32_t i = 0; insp->img && i < t->nr_objects; i++) {
		int64_t target = ckf_index_find_target(insp->img->idx, CKF_TARGET_DEVICE,
						       ckf_render_target_id(t->file_id, i));

		if (target < 0)
			continue;
		p.nr_objects++;
		p.bytes += insp->targets[target].fill_bytes;
		p.zero_bytes += insp->targets[target].zero_bytes;
	}
	return p;
}

static void print_render(const struct insp *insp, const struct ckf_render_table *t)
{
	char all[CLI_BYTES_LEN], bytes[CLI_BYTES_LEN], zero[CLI_BYTES_LEN], label[NAME_LEN];
	struct packed p;

	if (t->err.code) {
		printf("  file %u: %s\n", t->file_id, cli_escape(t->err.msg, label, sizeof(label)));
		return;
	}
	snprintf(label, sizeof(label), "  file %u, render node %u", t->file_id, t->minor);
	printf("%-40.40s %7u\n      GPU %04x: %s", label, t->nr_objects, t->gpu_id,
	       cli_bytes(t->all_bytes, all));
	p = find_objects(insp, t);
	if (p.nr_objects)
		printf(", in the pack: %u (%s), zero %s", p.nr_objects, cli_bytes(p.bytes, bytes),
		       cli_bytes(p.zero_bytes, zero));
	printf("\n");
}

void insp_print_amd(const struct insp *insp)
{
	char name[NAME_LEN], label[2 * NAME_LEN];

	if (insp->dump->nr_amd || has_render_nodes(insp))
		printf("\n%-40s %7s\n", "Memory of AMD GPUs", "objects");
	for (uint64_t i = 0; i < insp->dump->nr_amd; i++) {
		const struct ckf_amd_table *t = &insp->dump->amd[i];

		if (t->err.code) {
			printf("  file %u: %s\n", t->file_id,
			       cli_escape(t->err.msg, name, sizeof(name)));
			continue;
		}
		snprintf(label, sizeof(label), "  file %u of %u %s", t->file_id, t->pid,
			 insp_task_name(insp, t->pid, name, sizeof(name)));
		printf("%-40.40s %7" PRIu64 "\n", label, t->nr_objects);
		print_gpus(insp, t);
	}
	for (uint64_t i = 0; i < insp->dump->nr_render; i++)
		if (is_shown(&insp->dump->render[i]))
			print_render(insp, &insp->dump->render[i]);
}

static json_t *json_gpus(const struct insp *insp, const struct ckf_amd_table *t)
{
	json_t *list = json_array();

	for (uint32_t i = 0; i < t->nr_gpus; i++) {
		const struct ckf_amd_gpu *gpu = &t->gpus[i];
		int64_t target = find_target(insp, t, gpu);
		json_t *obj = json_pack("{so so so so}", "gpu_id", cli_json_u64(gpu->gpu_id),
					"total_bytes", cli_json_u64(gpu->vram_bytes), "objects",
					cli_json_u64(gpu->nr_objects), "bytes",
					cli_json_u64(gpu->bytes));

		if (obj && target >= 0)
			json_object_set_new(obj, "zero_bytes",
					    cli_json_u64(insp->targets[target].zero_bytes));
		json_array_append_new(list, obj);
	}
	return list;
}

json_t *insp_json_amd(const struct insp *insp)
{
	json_t *list = json_array();

	for (uint64_t i = 0; i < insp->dump->nr_amd; i++) {
		const struct ckf_amd_table *t = &insp->dump->amd[i];
		json_t *obj = json_pack("{so}", "file", cli_json_u64(t->file_id));

		if (obj && t->err.code) {
			json_object_set_new(obj, "error", cli_json_string(t->err.msg));
		} else if (obj) {
			json_object_set_new(obj, "pid", cli_json_u64(t->pid));
			json_object_set_new(obj, "objects", cli_json_u64(t->nr_objects));
			json_object_set_new(obj, "gpus", json_gpus(insp, t));
		}
		json_array_append_new(list, obj);
	}
	return list;
}

static json_t *json_render(const struct insp *insp, const struct ckf_render_table *t)
{
	json_t *obj = json_pack("{so}", "file", cli_json_u64(t->file_id));
	struct packed p;

	if (obj && t->err.code)
		json_object_set_new(obj, "error", cli_json_string(t->err.msg));
	if (!obj || t->err.code)
		return obj;
	json_object_set_new(obj, "gpu_id", cli_json_u64(t->gpu_id));
	json_object_set_new(obj, "minor", cli_json_u64(t->minor));
	json_object_set_new(obj, "objects", cli_json_u64(t->nr_objects));
	json_object_set_new(obj, "bytes", cli_json_u64(t->all_bytes));
	if (insp->img) {
		p = find_objects(insp, t);
		json_object_set_new(obj, "packed_objects", cli_json_u64(p.nr_objects));
		json_object_set_new(obj, "packed_bytes", cli_json_u64(p.bytes));
		json_object_set_new(obj, "zero_bytes", cli_json_u64(p.zero_bytes));
	}
	return obj;
}

json_t *insp_json_render(const struct insp *insp)
{
	json_t *list = json_array();

	for (uint64_t i = 0; i < insp->dump->nr_render; i++)
		if (is_shown(&insp->dump->render[i]))
			json_array_append_new(list, json_render(insp, &insp->dump->render[i]));
	return list;
}

/* True when the target is an object of a render node. */
static bool render_target_name(const struct insp *insp, const struct ckf_target *target, char *buf,
			       size_t buf_bytes)
{
	const struct ckf_render_table *t = ckf_render_find(insp->dump->render,
							   insp->dump->nr_render, target->id);

	if (!t || strcmp(t->name, insp->img->idx->files[target->file].name) != 0)
		return false;
	snprintf(buf, buf_bytes, "object %u", (uint32_t)target->id);
	return true;
}

const char *insp_amd_target_name(const struct insp *insp, const struct ckf_target *target,
				 char *buf, size_t buf_bytes)
{
	const uint64_t target_id = target->id;
	const struct ckf_amd_table *t;
	char name[NAME_LEN];

	if (render_target_name(insp, target, buf, buf_bytes))
		return buf;
	if (!ckf_amd_find(insp->dump->amd, insp->dump->nr_amd, target_id, &t))
		return "(of no table)";
	snprintf(buf, buf_bytes, "GPU %04x of %u %s", (uint32_t)target_id, t->pid,
		 insp_task_name(insp, t->pid, name, sizeof(name)));
	return buf;
}

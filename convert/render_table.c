/* SPDX-License-Identifier: MIT */
/*
 * The table of a render node by CRIU's amdgpu plugin: 8 bytes that say how long it is, and one
 * message, of which proto/amdgpu.proto has the fields that matter here. CRIU 4.2.1 writes such
 * files, too, but without objects.
 *
 * The plugin trusts its count: what would make it read beyond an array is corrupt. What some CRIU
 * may restore, but nobody writes, is unsupported.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ckf_render.h"
#include "img.h"
#include "amdgpu.pb-c.h"

#define TABLE_PREFIX "amdgpu-renderD-"
#define MAX_FILE_ID INT32_MAX
#define MAX_MINOR INT32_MAX
/* SPEC 10.4. An object takes some 60 bytes of it, and as many in memory if it is empty. */
#define MAX_BYTES (1u << 22)

const char *ckf_render_pages_name(const struct ckf_render_table *t, uint32_t object,
				  char buf[CKF_RENDER_NAME_BYTES])
{
	snprintf(buf, CKF_RENDER_NAME_BYTES, "amdgpu-drm-pages-%u-%u-%04x.img", t->file_id,
		 t->minor, object);
	return buf;
}

bool ckf_render_name_parse(const char *name, uint32_t *file_id)
{
	const size_t len = sizeof(TABLE_PREFIX) - 1;
	uint64_t id;

	if (strncmp(name, TABLE_PREFIX, len) != 0 ||
	    !ckf_img_id_parse(name + len, MAX_FILE_ID, &id) || !id)
		return false;
	*file_id = (uint32_t)id;
	return true;
}

static int read_objects(struct ckf_render_table *t, const CkfAmdRenderNode *node)
{
	t->bytes = calloc(node->n_objects + 1, sizeof(*t->bytes));
	if (!t->bytes)
		return -ENOMEM;
	for (size_t i = 0; i < node->n_objects; i++) {
		t->bytes[i] = node->objects[i]->bytes;
		if (ckf_add_overflow(t->all_bytes, t->bytes[i], &t->all_bytes))
			t->all_bytes = UINT64_MAX;
	}
	t->nr_objects = (uint32_t)node->n_objects;
	return 0;
}

static int take_message(const struct ckf_img *im, struct ckf_render_table *t,
			const CkfAmdRenderNode *node, struct ckf_error *err)
{
	int ret;

	t->gpu_id = node->gpu_id;
	t->minor = node->minor;
	if (!t->gpu_id)
		return ckf_img_bad(im, -EBADMSG, err, "GPU, got 0, want another");
	if (!node->has_nr_objects && !node->n_objects)
		return 0;
	if (!node->has_id || !node->has_minor || !node->has_nr_objects)
		return ckf_img_bad(im, -EOPNOTSUPP, err, "objects without a %s",
				   !node->has_id      ? "file"
				   : !node->has_minor ? "node"
						      : "count");
	ret = ckf_img_check_count(im, "objects", node->nr_objects, node->n_objects, err);
	if (ret)
		return ret;
	if (node->id != t->file_id)
		return ckf_img_bad(im, -EOPNOTSUPP, err, "file, got %u, want %u", node->id,
				   t->file_id);
	if (t->minor > MAX_MINOR)
		return ckf_img_bad(im, -EOPNOTSUPP, err, "minor, got %u, want at most %d", t->minor,
				   MAX_MINOR);
	return read_objects(t, node);
}

static int take_record(struct ckf_img *im, void *table, const uint8_t *rec, size_t bytes,
		       struct ckf_error *err)
{
	CkfAmdRenderNode *node = ckf_amd_render_node__unpack(&im->alloc, bytes, rec);
	int ret;

	if (!node)
		return ckf_img_bad(im, -EBADMSG, err, "not a table of a render node");
	ret = take_message(im, table, node, err);
	ckf_amd_render_node__free_unpacked(node, NULL);
	return ret;
}

int ckf_render_table_read(const struct ckf_dir *dir, const char *name, struct ckf_render_table *out,
			  struct ckf_error *err)
{
	memset(out, 0, sizeof(*out));
	if (!ckf_render_name_parse(name, &out->file_id))
		return ckf_error_set(err, -EINVAL, "%s is not the name of a table", name);
	out->name = strdup(name);
	if (!out->name)
		return ckf_error_set(err, -ENOMEM, "no memory for the objects of %s", name);
	return ckf_img_read_sized(dir, name, MAX_BYTES, take_record, out, &out->err, err);
}

void ckf_render_table_fini(struct ckf_render_table *t)
{
	free(t->bytes);
	free(t->name);
	memset(t, 0, sizeof(*t));
}

static int compare_file(const void *key, const void *table)
{
	const uint64_t *id = key;
	const struct ckf_render_table *t = table;

	return *id < t->file_id ? -1 : *id > t->file_id;
}

const struct ckf_render_table *ckf_render_find(const struct ckf_render_table *tables,
					       uint64_t nr_tables, uint64_t target_id)
{
	const uint64_t id = target_id >> 32;

	return nr_tables ? bsearch(&id, tables, (size_t)nr_tables, sizeof(*tables), compare_file)
			 : NULL;
}

static int compare_position(const void *key, const void *table)
{
	const uint32_t *position = key;
	const struct ckf_render_table *t = table;

	if (*position < t->first)
		return -1;
	return *position - t->first >= t->nr_objects;
}

const struct ckf_render_table *ckf_render_find_object(const struct ckf_render_table *tables,
						      uint64_t nr_tables, uint32_t position)
{
	return bsearch(&position, tables, (size_t)nr_tables, sizeof(*tables), compare_position);
}

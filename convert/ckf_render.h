/* SPDX-License-Identifier: MIT */
/*
 * What a dump says about the buffer objects of AMD GPUs' render nodes: amdgpu-renderD-ID.img, the
 * table that CRIU's amdgpu plugin writes for each open node. SPEC.md 10.4 describes it and the
 * files with the contents, one for each object.
 *
 * No AMD hardware was at hand: this stands on the plugin's source alone.
 */
#ifndef CKF_RENDER_H
#define CKF_RENDER_H

#include "base/ckf_dir.h"
#include "base/ckf_error.h"
#include "base/ckf_types.h"

#define CKF_RENDER_NAME_BYTES 56

struct ckf_render_table {
	uint32_t file_id; /* CRIU's number of the open file */
	uint32_t gpu_id;
	uint32_t minor; /* of the node */
	char *name;
	uint64_t *bytes; /* of each object */
	uint32_t nr_objects;
	uint32_t first; /* the position of the first one among those of all tables of the dump */
	uint64_t all_bytes; /* their sum, or UINT64_MAX if it is larger */
	/*
	 * Why the contents cannot be taken, or code 0. -EBADMSG: no restore can succeed;
	 * -EOPNOTSUPP: CRIU may restore it.
	 */
	struct ckf_error err;
};

/* The id of the target for an object. It is in the room of ckf_amd_target_id(). */
static inline uint64_t ckf_render_target_id(uint32_t file_id, uint32_t object)
{
	return (uint64_t)file_id << 32 | object;
}

/* True for a length that the contents of an object may have in a pack. */
static inline bool ckf_render_bytes_ok(uint64_t bytes)
{
	return bytes && !(bytes % CKF_PAGE_BYTES) && bytes <= 1ull << 62;
}

/* "amdgpu-drm-pages-ID-MINOR-N.img". Returns buf. */
const char *ckf_render_pages_name(const struct ckf_render_table *t, uint32_t object,
				  char buf[CKF_RENDER_NAME_BYTES]);
/* True when name is that of a table; file_id says of which open file. */
bool ckf_render_name_parse(const char *name, uint32_t *file_id);

/*
 * Reads a table. 0 also for a wrong one, which out->err tells of: whoever keeps it as it is need
 * not know. -ENOMEM, -EIO…; ckf_render_table_fini() in any case.
 */
int ckf_render_table_read(const struct ckf_dir *dir, const char *name, struct ckf_render_table *out,
			  struct ckf_error *err);
void ckf_render_table_fini(struct ckf_render_table *t);

/* The table of a target, be it with an error, or NULL. Tables are in ascending order of file_id. */
const struct ckf_render_table *ckf_render_find(const struct ckf_render_table *tables,
					       uint64_t nr_tables, uint64_t target_id);
/* The table of the object at a position among those of all tables, of which there has to be one. */
const struct ckf_render_table *ckf_render_find_object(const struct ckf_render_table *tables,
						      uint64_t nr_tables, uint32_t position);

#endif

/* SPDX-License-Identifier: MIT */
/* Dumps for tests. */
#include <fcntl.h>
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>
#include <lz4.h>

#include "convert/img.h"
#include "amdgpu.pb-c.h"
#include "core.pb-c.h"
#include "dump_maker.h"
#include "inventory.pb-c.h"
#include "ipc-shm.pb-c.h"
#include "memfd.pb-c.h"
#include "mm.pb-c.h"
#include "page-blocks.pb-c.h"
#include "pagemap.pb-c.h"
#include "pstree.pb-c.h"

#define COMMON_MAGIC 0x54564319u

void dm_tempdir(char path[64])
{
	snprintf(path, 64, "/tmp/ckf-dump-XXXXXX");
	assert_non_null(mkdtemp(path));
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
	(void)st;
	(void)flag;
	(void)ftw;
	return remove(path);
}

void dm_remove(const char *path)
{
	assert_int_equal(nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS), 0);
}

int dm_mkdir(const char *base, const char *name, char *path, size_t path_bytes)
{
	int fd;

	snprintf(path, path_bytes, "%s/%s", base, name);
	assert_int_equal(mkdir(path, 0755), 0);
	fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_true(fd >= 0);
	return fd;
}

void dm_write(int dir, const char *name, const void *p, size_t bytes)
{
	int fd = openat(dir, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, p, bytes), bytes);
	close(fd);
}

int dm_image(int dir, const char *name, uint32_t magic)
{
	uint32_t magics[2] = { COMMON_MAGIC, magic };
	int fd = openat(dir, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, magics, sizeof(magics)), sizeof(magics));
	return fd;
}

void dm_record(int fd, const void *p, size_t bytes)
{
	uint32_t len = (uint32_t)bytes;

	assert_int_equal(write(fd, &len, sizeof(len)), sizeof(len));
	assert_int_equal(write(fd, p, bytes), bytes);
}

static void put(int fd, const ProtobufCMessage *m)
{
	size_t bytes = protobuf_c_message_get_packed_size(m);
	uint8_t *buf = malloc(bytes + 1);

	assert_non_null(buf);
	protobuf_c_message_pack(m, buf);
	dm_record(fd, buf, bytes);
	free(buf);
}

void dm_inventory(int dir)
{
	dm_inventory_of(dir, 2);
}

void dm_inventory_of(int dir, uint32_t img_version)
{
	InventoryEntry e = INVENTORY_ENTRY__INIT;
	uint32_t magic = CKF_INVENTORY_MAGIC;
	int fd = openat(dir, "inventory.img", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, &magic, sizeof(magic)), sizeof(magic));
	e.img_version = img_version;
	put(fd, &e.base);
	close(fd);
}

/* With its head; the entries follow. */
static int open_pagemap(int dir, const char *name, uint32_t pages_id)
{
	PagemapHead head = PAGEMAP_HEAD__INIT;
	int fd = dm_image(dir, name, CKF_PAGEMAP_MAGIC);

	head.pages_id = pages_id;
	put(fd, &head.base);
	return fd;
}

void dm_pagemap(int dir, const char *name, uint32_t pages_id, enum dm_style style,
		const struct dm_entry *entries, size_t nr)
{
	int fd = open_pagemap(dir, name, pages_id);

	for (size_t i = 0; i < nr; i++) {
		PagemapEntry e = PAGEMAP_ENTRY__INIT;
		uint8_t one = 1;
		ProtobufCMessageUnknownField field = { 7, PROTOBUF_C_WIRE_TYPE_VARINT, 1, &one };

		if (style == DM_NEWER) {
			e.base.n_unknown_fields = 1;
			e.base.unknown_fields = &field;
		}
		e.vaddr = entries[i].vaddr;
		if (style >= DM_42) {
			e.has_nr_pages = true;
			e.nr_pages = entries[i].nr_pages;
		} else {
			e.compat_nr_pages = (uint32_t)entries[i].nr_pages;
		}
		if (style != DM_OLD) {
			e.has_flags = true;
			e.flags = entries[i].flags;
		} else if (entries[i].flags & DM_PARENT) {
			e.has_in_parent = true;
			e.in_parent = true;
		}
		put(fd, &e.base);
	}
	close(fd);
}

/* The message with its length in front, as a field that pagemap.proto does not know. */
static size_t pack_blocks(const struct dm_blocks *b, uint8_t **out)
{
	uint8_t one = 1;
	ProtobufCMessageUnknownField newer = { b->newer, PROTOBUF_C_WIRE_TYPE_VARINT, 1, &one };
	PageBlocks m = PAGE_BLOCKS__INIT;
	size_t bytes, at = 0;

	m.sizes = (uint32_t *)b->sizes;
	m.n_sizes = b->nr;
	m.block_pages = b->block_pages;
	m.total_bytes = b->total;
	if (b->newer) {
		m.base.n_unknown_fields = 1;
		m.base.unknown_fields = &newer;
	}
	bytes = page_blocks__get_packed_size(&m);
	*out = malloc(bytes + 10);
	assert_non_null(*out);
	for (size_t left = bytes; at == 0 || left; left >>= 7)
		(*out)[at++] = (uint8_t)((left & 0x7f) | (left > 0x7f ? 0x80 : 0));
	return at + page_blocks__pack(&m, *out + at);
}

void dm_packed_pagemap(int dir, const char *name, uint32_t pages_id, const struct dm_entry *entries,
		       const struct dm_blocks *blocks, size_t nr)
{
	int fd = open_pagemap(dir, name, pages_id);

	for (size_t i = 0; i < nr; i++) {
		PagemapEntry e = PAGEMAP_ENTRY__INIT;
		ProtobufCMessageUnknownField f = { 6, PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED, 0,
						   NULL };

		e.vaddr = entries[i].vaddr;
		e.has_nr_pages = true;
		e.nr_pages = entries[i].nr_pages;
		e.has_flags = true;
		e.flags = entries[i].flags;
		if (blocks[i].sizes) {
			f.len = pack_blocks(&blocks[i], &f.data);
			e.base.n_unknown_fields = 1;
			e.base.unknown_fields = &f;
		}
		put(fd, &e.base);
		free(f.data);
	}
	close(fd);
}

static void put_mm(int dir, const struct ckf_task *t)
{
	VmaEntry *vmas = calloc(t->nr_vmas + 1, sizeof(*vmas));
	VmaEntry **list = calloc(t->nr_vmas + 1, sizeof(*list));
	MmEntry mm = MM_ENTRY__INIT;
	char name[32];
	int fd;

	assert_non_null(vmas);
	assert_non_null(list);
	for (uint64_t i = 0; i < t->nr_vmas; i++) {
		vma_entry__init(&vmas[i]);
		vmas[i].start = t->vmas[i].start;
		vmas[i].end = t->vmas[i].end;
		vmas[i].pgoff = t->vmas[i].pgoff;
		vmas[i].shmid = t->vmas[i].shmid;
		vmas[i].prot = t->vmas[i].prot;
		vmas[i].flags = t->vmas[i].flags;
		vmas[i].status = t->vmas[i].status;
		vmas[i].has_madv = t->vmas[i].madv != 0;
		vmas[i].madv = t->vmas[i].madv;
		list[i] = &vmas[i];
	}
	mm.n_vmas = t->nr_vmas;
	mm.vmas = list;
	mm.has_thp_disabled = t->thp_disabled;
	mm.thp_disabled = t->thp_disabled;
	snprintf(name, sizeof(name), "mm-%u.img", t->pid);
	fd = dm_image(dir, name, CKF_MM_MAGIC);
	put(fd, &mm.base);
	close(fd);
	free(vmas);
	free(list);
}

static void put_core(int dir, const struct ckf_task *t)
{
	TaskCoreEntry tc = TASK_CORE_ENTRY__INIT;
	CoreEntry core = CORE_ENTRY__INIT;
	char name[32];
	int fd;

	tc.task_state = t->state;
	tc.comm = (char *)t->comm;
	core.mtype = CORE_ENTRY__MARCH__X86_64;
	core.tc = &tc;
	snprintf(name, sizeof(name), "core-%u.img", t->pid);
	fd = dm_image(dir, name, CKF_CORE_MAGIC);
	put(fd, &core.base);
	close(fd);
}

void dm_tasks(int dir, const struct ckf_task *tasks, size_t nr)
{
	int fd = dm_image(dir, "pstree.img", CKF_PSTREE_MAGIC);

	for (size_t i = 0; i < nr; i++) {
		PstreeEntry e = PSTREE_ENTRY__INIT;
		uint32_t pid = tasks[i].pid, threads[2] = { pid, tasks[i].pid + 1000 };

		e.pid = pid;
		e.ppid = tasks[i].ppid;
		e.pgid = pid;
		e.sid = pid;
		e.n_threads = tasks[i].nr_threads ? tasks[i].nr_threads : 1;
		assert_in_range(e.n_threads, 1, 2);
		/* TASK_DEAD and TASK_ZOMBIE, as CRIU has it. */
		if (e.n_threads == 1 && (tasks[i].state == 2 || tasks[i].state == 6))
			threads[0] = 0xfeed;
		e.threads = threads;
		put(fd, &e.base);
		put_core(dir, &tasks[i]);
		put_mm(dir, &tasks[i]);
	}
	close(fd);
}

void dm_ids(int dir, uint32_t pid, uint32_t ipc_ns)
{
	TaskKobjIdsEntry e = TASK_KOBJ_IDS_ENTRY__INIT;
	char name[32];
	int fd;

	e.has_ipc_ns_id = true;
	e.ipc_ns_id = ipc_ns;
	snprintf(name, sizeof(name), "ids-%u.img", pid);
	fd = dm_image(dir, name, CKF_IDS_MAGIC);
	put(fd, &e.base);
	close(fd);
}

void dm_memfd(int dir, uint32_t shmid)
{
	MemfdInodeEntry e = MEMFD_INODE_ENTRY__INIT;
	int fd = dm_image(dir, "memfd.img", CKF_MEMFD_INODE_MAGIC);

	e.name = (char *)"memfd";
	e.shmid = shmid;
	put(fd, &e.base);
	close(fd);
}

void dm_segment(int dir, uint32_t ipc_ns, uint32_t shmid, bool in_pagemaps)
{
	IpcDescEntry desc = IPC_DESC_ENTRY__INIT;
	IpcShmEntry e = IPC_SHM_ENTRY__INIT;
	char name[32];
	int fd;

	desc.id = shmid;
	e.desc = &desc;
	e.has_in_pagemaps = true;
	e.in_pagemaps = in_pagemaps;
	snprintf(name, sizeof(name), "ipcns-shm-%u.img", ipc_ns);
	fd = dm_image(dir, name, CKF_IPCNS_SHM_MAGIC);
	put(fd, &e.base);
	close(fd);
}

uint32_t dm_rand(uint64_t *state)
{
	*state = *state * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t)(*state >> 32);
}

uint64_t dm_seed(void)
{
	const char *s = getenv("CKF_SEED");
	uint64_t seed = s ? strtoull(s, NULL, 0) : (uint64_t)time(NULL);

	printf("CKF_SEED=%llu\n", (unsigned long long)seed);
	return seed;
}

void dm_page(uint32_t value, void *page)
{
	uint64_t state = value;
	uint8_t *p = page;

	memset(p, 0, CKF_PAGE_BYTES);
	if (!value)
		return;
	for (size_t i = 0; i < CKF_PAGE_BYTES; i += 4) {
		uint32_t r = dm_rand(&state);

		if (value % 3 == 1)
			r = value + (uint32_t)(i / 256);
		else if (value % 3 == 2)
			r &= 0x07070707;
		memcpy(p + i, &r, sizeof(r));
	}
	memcpy(p, &value, sizeof(value));
}

/* The pages behind the first head_bytes of head. */
static void put_pages(int dir, const char *name, ckf_le64 head, size_t head_bytes,
		      const uint32_t *values, size_t nr)
{
	uint8_t *buf = malloc(head_bytes + nr * CKF_PAGE_BYTES + 1);

	assert_non_null(buf);
	memcpy(buf, &head, head_bytes);
	for (size_t i = 0; i < nr; i++)
		dm_page(values[i], buf + head_bytes + i * CKF_PAGE_BYTES);
	dm_write(dir, name, buf, head_bytes + nr * CKF_PAGE_BYTES);
	free(buf);
}

void dm_packed(int dir, uint32_t pid, uint32_t id, uint64_t vaddr, const uint32_t *values,
	       size_t nr, uint32_t block_pages)
{
	const struct dm_entry entry = { vaddr, nr, DM_PRESENT };
	struct dm_blocks blocks = { .block_pages = block_pages };
	char *pages = malloc(nr * CKF_PAGE_BYTES), *out = malloc(nr * CKF_PAGE_BYTES);
	uint32_t sizes[64];
	char name[32];

	assert_non_null(pages);
	assert_non_null(out);
	for (size_t i = 0; i < nr; i++)
		dm_page(values[i], pages + i * CKF_PAGE_BYTES);
	for (size_t i = 0; i < nr; i += block_pages) {
		size_t n = nr - i < block_pages ? nr - i : block_pages;
		int bytes = (int)(n * CKF_PAGE_BYTES);
		int got = LZ4_compress_default(pages + i * CKF_PAGE_BYTES, out + blocks.total,
					       bytes, bytes - 1);

		if (!got)
			memcpy(out + blocks.total, pages + i * CKF_PAGE_BYTES, (size_t)bytes);
		assert_true(blocks.nr < 64);
		sizes[blocks.nr] = (uint32_t)(got ? got : bytes);
		blocks.total += sizes[blocks.nr++];
	}
	blocks.sizes = sizes;
	snprintf(name, sizeof(name), "pages-%u.img", id);
	dm_write(dir, name, out, blocks.total);
	snprintf(name, sizeof(name), "pagemap-%u.img", pid);
	dm_packed_pagemap(dir, name, id, &entry, &blocks, 1);
	free(pages);
	free(out);
}

void dm_pages(int dir, uint32_t id, const uint32_t *values, size_t nr)
{
	char name[32];

	snprintf(name, sizeof(name), "pages-%u.img", id);
	put_pages(dir, name, ckf_put64(0), 0, values, nr);
}

void dm_amd_pages(int dir, uint32_t id, uint32_t gpu, const uint32_t *values, size_t nr)
{
	char name[CKF_AMD_NAME_BYTES];

	put_pages(dir, ckf_amd_pages_name(id, gpu, name), ckf_put64(nr * CKF_PAGE_BYTES),
		  sizeof(ckf_le64), values, nr);
}

void dm_amd_table(int dir, uint32_t id, uint32_t pid, const uint32_t *gpus, size_t nr_gpus,
		  const struct dm_amd_object *objects, size_t nr)
{
	CkfAmdDevice devices[8], *device_list[8];
	CkfAmdObject rows[8], *row_list[8];
	CkfAmdKfd kfd = CKF_AMD_KFD__INIT;
	uint8_t buf[1024];
	ckf_le64 head;
	size_t bytes;
	char name[32];

	assert_in_range(nr_gpus, 0, 7);
	assert_in_range(nr, 0, 8);
	for (size_t i = 0; i <= nr_gpus; i++) {
		ckf_amd_device__init(&devices[i]);
		devices[i].gpu_id = i ? gpus[i - 1] : 0;
		devices[i].vram_bytes = 1u << 30;
		device_list[i] = &devices[i];
	}
	for (size_t i = 0; i < nr; i++) {
		ckf_amd_object__init(&rows[i]);
		rows[i].bytes = objects[i].bytes;
		rows[i].alloc_flags = objects[i].flags;
		rows[i].gpu_id = objects[i].gpu_id;
		row_list[i] = &rows[i];
	}
	kfd.pid = pid;
	kfd.nr_gpus = (uint32_t)nr_gpus;
	kfd.nr_cpus = 1;
	kfd.n_devices = nr_gpus + 1;
	kfd.devices = device_list;
	kfd.nr_objects = kfd.n_objects = nr;
	kfd.objects = row_list;
	bytes = ckf_amd_kfd__get_packed_size(&kfd);
	assert_true(bytes <= sizeof(buf) - sizeof(head));
	head = ckf_put64(bytes);
	memcpy(buf, &head, sizeof(head));
	ckf_amd_kfd__pack(&kfd, buf + sizeof(head));
	snprintf(name, sizeof(name), "amdgpu-kfd-%u.img", id);
	dm_write(dir, name, buf, sizeof(head) + bytes);
}

void dm_render_pages(int dir, const char *name, uint64_t head, const uint32_t *values, size_t nr)
{
	put_pages(dir, name, ckf_put64(head), sizeof(ckf_le64), values, nr);
}

void dm_render_table(int dir, uint32_t id, uint32_t minor, const uint64_t *bytes, size_t nr)
{
	CkfAmdRenderObject rows[8], *row_list[8];
	CkfAmdRenderNode node = CKF_AMD_RENDER_NODE__INIT;
	uint8_t buf[256];
	ckf_le64 head;
	size_t len;
	char name[32];

	assert_in_range(nr, 0, 8);
	for (size_t i = 0; i < nr; i++) {
		ckf_amd_render_object__init(&rows[i]);
		rows[i].bytes = bytes[i];
		row_list[i] = &rows[i];
	}
	node.gpu_id = 0x1a;
	node.has_id = node.has_minor = node.has_nr_objects = minor != 0;
	node.id = id;
	node.minor = minor;
	node.nr_objects = node.n_objects = nr;
	node.objects = row_list;
	len = ckf_amd_render_node__get_packed_size(&node);
	assert_true(len <= sizeof(buf) - sizeof(head));
	head = ckf_put64(len);
	memcpy(buf, &head, sizeof(head));
	ckf_amd_render_node__pack(&node, buf + sizeof(head));
	snprintf(name, sizeof(name), "amdgpu-renderD-%u.img", id);
	dm_write(dir, name, buf, sizeof(head) + len);
}

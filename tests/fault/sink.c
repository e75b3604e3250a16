/* SPDX-License-Identifier: MIT */
/*
 * Filling device memory, from an image and from the pages file of a plain dump. The backend copies
 * at once and asks for no memory: all faults are for the loader.
 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "ckfast_sink.h"
#include "loader/ckf_fill_sink.h"
#include "world.h"

#define NR_SLOTS 2
#define SLOT_BYTES CKF_HUGE_BYTES
#define BACKGROUND 0xa5
/* The pages file has so many pages of the model, then a hole. */
#define FILE_PAGES (CKF_HUGE_BYTES / CKF_PAGE_BYTES + 3)

struct ckf_sink {
	pthread_mutex_t lock;
	pthread_cond_t cond;
	bool taken[NR_SLOTS];
	uint8_t *slots;
};

struct ckf_sink_mem {
	uint8_t *data;
};

static struct ckf_sink sink = { PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, { 0 }, NULL };
static struct ckf_sink_mem mem;
static int pages_fd = -1;

static struct ckf_gpu_alloc allocs[] = {
	{ .addr = AREA_BASE, .bytes = CKF_HUGE_BYTES },
	{ .addr = AREA_BASE + CKF_HUGE_BYTES, .bytes = CKF_HUGE_BYTES },
};
static const struct ckf_gpu_dump dump = { .allocs = allocs,
					  .nr_allocs = 2,
					  .bytes = 2 * CKF_HUGE_BYTES };

static int slot_take(struct ckf_sink *s, struct ckf_sink_slot *out, struct ckf_error *err)
{
	uint32_t i;

	(void)err;
	pthread_mutex_lock(&s->lock);
	for (;;) {
		for (i = 0; i < NR_SLOTS && s->taken[i]; i++)
			;
		if (i < NR_SLOTS)
			break;
		pthread_cond_wait(&s->cond, &s->lock);
	}
	s->taken[i] = true;
	pthread_mutex_unlock(&s->lock);
	*out = (struct ckf_sink_slot){ s->slots + i * SLOT_BYTES, SLOT_BYTES, i };
	return 0;
}

static void slot_put(struct ckf_sink *s, const struct ckf_sink_slot *slot)
{
	pthread_mutex_lock(&s->lock);
	s->taken[slot->nr] = false;
	pthread_cond_broadcast(&s->cond);
	pthread_mutex_unlock(&s->lock);
}

static int submit(struct ckf_sink *s, unsigned int stream, const struct ckf_sink_slot *slot,
		  const struct ckf_sink_copy *copies, size_t nr, struct ckf_error *err)
{
	(void)stream;
	(void)err;
	for (size_t i = 0; i < nr; i++)
		memcpy(copies[i].mem->data + copies[i].mem_off,
		       (uint8_t *)slot->addr + copies[i].slot_off, copies[i].bytes);
	slot_put(s, slot);
	return 0;
}

static int clear(struct ckf_sink *s, unsigned int stream, struct ckf_sink_mem *m, uint64_t mem_off,
		 uint64_t bytes, struct ckf_error *err)
{
	(void)s;
	(void)stream;
	(void)err;
	memset(m->data + mem_off, 0, bytes);
	return 0;
}

static int drain(struct ckf_sink *s, struct ckf_error *err)
{
	(void)s;
	(void)err;
	return 0;
}

static const struct ckf_sink_ops ops = {
	.name = "test",
	.slot_take = slot_take,
	.slot_put = slot_put,
	.submit = submit,
	.clear = clear,
	.drain = drain,
};

static int fill_image(struct world *w, unsigned int threads, struct ckf_error *err)
{
	const struct ckf_sink_dest d = { AREA_BASE, AREA_BASE + AREA_BYTES, &sink, &mem };
	const struct ckf_fill_opts o = { .size = sizeof(o), .dir_fd = -1, .threads = threads };

	return ckf_fill_sink(w->image, &w->image->idx->targets[0], &ops, &d, 1, &o, NULL, err);
}

static int run_image_1(struct world *w, struct ckf_error *err)
{
	return fill_image(w, 1, err);
}

static int run_image_3(struct world *w, struct ckf_error *err)
{
	return fill_image(w, 3, err);
}

static int run_file(struct world *w, struct ckf_error *err)
{
	const struct ckf_sink_dest d = { AREA_BASE, AREA_BASE + AREA_BYTES, &sink, &mem };
	const struct ckf_fill_opts o = { .size = sizeof(o), .dir_fd = -1, .threads = 2 };

	(void)w;
	return ckf_fill_sink_file(pages_fd, &dump, &ops, &d, 1, &o, NULL, err);
}

/* What is the same in both sources: the pages of the model up to this one. */
static const char *check(struct world *w, int ret, uint32_t pages)
{
	const char *bad = NULL;

	for (uint32_t i = 0; i < NR_SLOTS; i++)
		if (sink.taken[i])
			bad = "a slot is not given back";
	if (!ret && memcmp(mem.data, w->model, ckf_pages_to_bytes(pages)) != 0)
		bad = "the device has something else in it";
	memset(sink.taken, 0, sizeof(sink.taken));
	memset(mem.data, 0, AREA_BYTES);
	memset(mem.data, BACKGROUND, CKF_HUGE_BYTES);
	return bad;
}

static const char *check_image(struct world *w, int ret, bool may_leave)
{
	(void)may_leave;
	return check(w, ret, AREA_CHECK);
}

static const char *check_file(struct world *w, int ret, bool may_leave)
{
	(void)may_leave;
	return check(w, ret, FILE_PAGES);
}

const struct op sink_ops[] = {
	{ "sink-1", 0, 0, NULL, run_image_1, check_image },
	{ "sink-3", 0, 0, NULL, run_image_3, check_image },
	{ "sink-file", 0, 0, NULL, run_file, check_file },
	{ 0 },
};

void sink_init(struct world *w)
{
	sink.slots = aligned_alloc(CKF_PAGE_BYTES, NR_SLOTS * SLOT_BYTES);
	mem.data = malloc(AREA_BYTES);
	pages_fd = memfd_create("pages", MFD_CLOEXEC);
	need(sink.slots && mem.data && pages_fd >= 0, "no memory");
	need(!ftruncate(pages_fd, (off_t)dump.bytes), "cannot write the pages");
	need(pwrite(pages_fd, w->model, FILE_PAGES * CKF_PAGE_BYTES, 0) ==
		     FILE_PAGES * CKF_PAGE_BYTES,
	     "cannot write the pages");
	check(w, -1, 0);
}

void sink_fini(void)
{
	free(sink.slots);
	free(mem.data);
	close(pages_fd);
}

// SPDX-License-Identifier: GPL-2.0-only
/*
 * Restoring memory from a ckfast fast image: the glue between CRIU and libckfast.
 *
 * CRIU decides where memory is mapped, libckfast reads, checks and places the pages. A task that is being
 * restored calls in twice: before it forks, for the VMAs that its children inherit, and afterwards for
 * the rest. In between the VMAs are mapped in the premapped area and empty.
 *
 * The worker threads of the loader live inside one call. They are threads of the task, so their ids
 * come out of the task's pid namespace, and must not be ids that somebody will be restored with.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sched.h>
#include <string.h>
#include <time.h>
#include <sys/mman.h>
#include <unistd.h>

#include "types.h"
#include "common/list.h"
#include "bitmap.h"
#include "cr_options.h"
#include "fast-image.h"
#include "image.h"
#include "imgset.h"
#include "kerndat.h"
#include "log.h"
#include "mem.h"
#include "namespaces.h"
#include "page.h"
#include "pagemap.h"
#include "pstree.h"
#include "restorer.h"
#include "rst-malloc.h"
#include "rst_info.h"
#include "servicefd.h"
#include "stats.h"
#include "util.h"
#include "vma.h"
#include "xmalloc.h"

#include "format/ckf_codec.h"
#include "loader/ckf_fill.h"
#include "loader/ckf_image.h"
#include "loader/ckf_room.h"

#undef LOG_PREFIX
#define LOG_PREFIX "fast-image: "

/* What CRIU itself takes beside the memory of the tasks. */
#define ROOM_FOR_CRIU (4u << 20)

/* What all tasks have done together. In shared memory. */
struct fast_shared {
	atomic_ullong read_bytes;
	atomic_ullong filled_bytes;
	atomic_ullong zero_bytes;
	atomic_ullong shared_bytes;
	atomic_ullong huge_pages;
	atomic_ullong fills;
	atomic_ullong workers;
	atomic_ullong fill_ns;	   /* sum over the fills */
	atomic_ullong first_ns;	   /* when the first fill began, CLOCK_MONOTONIC */
	atomic_ullong last_ns;	   /* when the last one ended */
	atomic_uint uring;
	atomic_uint direct;
	atomic_uint busy;	   /* workers that run now, in all tasks */
	atomic_bool judged;	   /* the cgroup of the tasks was looked at */
	atomic_uint budget;	   /* workers for all tasks together; lowered where memory is short */
	atomic_bool frugal;	   /* memory is short for a single worker */
};

static struct ckf_image *img;
static struct fast_shared *shared;
static bool huge_off;

/* Parts of this task's premapped area that hold no VMA. They stay mapped until the restorer unmaps them: in a
 * hole something else could be mapped, a stack of a worker say, and then stay in the task for ever. */
static struct iovec *gaps;
static unsigned int nr_gaps;

static unsigned long long now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000ull + ts.tv_nsec;
}

bool fast_image_on(void)
{
	return img != NULL;
}

int fast_image_parse_number(const char *opt, const char *arg, unsigned int max, unsigned int *out)
{
	char *end;
	long n;

	n = strtol(arg, &end, 10);
	if (end == arg || *end || n < 1 || n > max) {
		pr_err("%s wants a number from 1 to %u, got %s\n", opt, max, arg);
		return 1;
	}
	*out = n;
	return 0;
}

int fast_image_check_opts(bool fast)
{
	const char *bad = NULL;

	if (!fast)
		return 0;
	if (opts.lazy_pages)
		bad = "--lazy-pages";
	else if (opts.stream)
		bad = "--stream";
	else if (opts.auto_dedup)
		bad = "--auto-dedup";
	if (!bad)
		return 0;
	pr_err("%s does not work with a fast image: restore without it, or from the dump itself (ckfast extract)\n",
	       bad);
	return -1;
}

/* The loader makes huge pages also where they are switched off on this machine, unless it is told. */
static bool huge_pages_off(void)
{
	char buf[64];
	ssize_t n;
	int fd;

	fd = open("/sys/kernel/mm/transparent_hugepage/enabled", O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	n = read(fd, buf, sizeof(buf) - 1);
	close(fd);
	buf[n > 0 ? n : 0] = 0;
	return strstr(buf, "[never]") != NULL;
}

/* Near the limit of a memory cgroup the fills have fewer workers, or do with little. */
static void judge_room(uint64_t room)
{
	struct ckf_budget b;
	cpu_set_t set;
	int cpus = sched_getaffinity(0, sizeof(set), &set) ? 1 : CPU_COUNT(&set);

	b = ckf_room_budget(img, room, ROOM_FOR_CRIU, opts.fast_threads, cpus);
	if (!shared->budget || b.workers < shared->budget)
		shared->budget = b.workers;
	if (room < b.want_bytes)
		pr_info("%s: there is room for %" PRIu64 " bytes, wanted are %" PRIu64 "; %u workers\n",
			b.frugal ? "Memory is short" : "Memory is scarce", room, b.want_bytes, b.workers);
	if (b.frugal)
		shared->frugal = true;
}

/*
 * The criu process has judged its own cgroup. CRIU may have moved the task to another one; the first to fill
 * anything judges that for all, as long as the names of cgroups are the same for it as for the criu process.
 */
static void judge_cgroup_of_task(void)
{
	int yard = get_service_fd(CGROUP_YARD), proc, fd;
	char path[PATH_MAX], full[PATH_MAX + 16];
	bool unified;

	if (atomic_exchange(&shared->judged, true) || yard < 0 || root_ns_mask & CLONE_NEWCGROUP)
		return;
	proc = open_pid_proc(PROC_SELF);
	if (proc < 0 || ckf_room_path(proc, path, sizeof(path), &unified))
		return;
	snprintf(full, sizeof(full), "%s%s", unified ? "unified" : "memory", path);
	fd = openat(yard, full, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return;
	judge_room(ckf_room_of_dir(fd));
	close(fd);
}

int fast_image_open(void)
{
	struct ckf_error err = {};
	int dir = get_service_fd(IMG_FD_OFF), proc;

	if (opts.stream && !opts.fast_image)
		return 0;
	if (!opts.fast_image && !ckf_image_probe(dir))
		return 0;
	if (fast_image_check_opts(true))
		return -1;
	if (!ckf_image_probe(dir)) {
		pr_err("No " CKF_IDX_NAME " in %s: not a fast image (ckfast convert makes one from a dump)\n",
		       opts.imgs_dir ?: "the images directory");
		return -1;
	}
	if (!opts.fast_timeout)
		opts.fast_timeout = FAST_TIMEOUT_DEFAULT;
	if (ckf_image_open(dir, &img, &err) || ckf_image_check_files(img, true, &err) ||
	    ckf_image_find_wanted_again(img, &err) || ckf_image_find_cached(img, &err)) {
		pr_err("%s\n", err.msg);
		return -1;
	}
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED) {
		pr_perror("Can't map statistics");
		return -1;
	}
	huge_off = huge_pages_off();
	proc = open("/proc/self", O_PATH | O_DIRECTORY | O_CLOEXEC);
	judge_room(ckf_room_self(proc));
	close_safe(&proc);
	pr_info("%" PRIu64 " targets, %" PRIu64 " chunks, %" PRIu64 " bytes packed, %u bases\n",
		img->idx->nr_targets, img->idx->nr_chunks, img->idx->pack_bytes, img->idx->nr_bases);
	return 0;
}

static int no_advance(struct page_read *pr)
{
	return 0;
}

static void no_reset(struct page_read *pr)
{
}

int fast_image_page_read(struct page_read *pr)
{
	memset(pr, 0, sizeof(*pr));
	INIT_LIST_HEAD(&pr->async);
	pr->advance = no_advance;
	pr->reset = no_reset;
	return 1;
}

/* Huge pages survive mremap() only between places that are equal modulo their size. */
static bool wants_huge_place(struct vma_area *vma)
{
	return vma_area_is_private(vma, kdat.task_size) && vma_area_len(vma) >= CKF_HUGE_BYTES;
}

unsigned long fast_image_premap_begin(struct vm_area_list *vmas)
{
	unsigned long slack = 0;
	struct vma_area *vma;

	if (!img)
		return 0;
	nr_gaps = 0; /* what was there is the parent's */
	list_for_each_entry(vma, &vmas->h, list)
		if (wants_huge_place(vma))
			slack += CKF_HUGE_BYTES;
	return slack;
}

int fast_image_premap_place(struct vma_area *vma, void **at)
{
	unsigned long gap;

	if (!img || !wants_huge_place(vma))
		return 0;
	gap = (vma->e->start - (unsigned long)*at) & (CKF_HUGE_BYTES - 1);
	if (!gap)
		return 0;
	if (xrealloc_safe(&gaps, (nr_gaps + 1) * sizeof(*gaps)))
		return -1;
	gaps[nr_gaps].iov_base = *at;
	gaps[nr_gaps++].iov_len = gap;
	*at += gap;
	return 0;
}

int fast_image_prepare_gaps(struct task_restore_args *ta)
{
	struct iovec *copy;

	ta->premap_gaps = (struct iovec *)rst_mem_align_cpos(RM_PRIVATE);
	ta->premap_gaps_n = 0;
	if (!img || !nr_gaps)
		return 0;
	copy = rst_mem_alloc(nr_gaps * sizeof(*copy), RM_PRIVATE);
	if (!copy)
		return -1;
	memcpy(copy, gaps, nr_gaps * sizeof(*copy));
	ta->premap_gaps_n = nr_gaps;
	return 0;
}

/* ids that workers must not have, and somebody is yet to get: all of the image. */
static pid_t max_image_id(void)
{
	struct pstree_item *pi;
	pid_t max = 0;
	int i;

	for_each_pstree_item(pi) {
		max = max_t(pid_t, max, vpid(pi));
		max = max_t(pid_t, max, pi->pgid);
		max = max_t(pid_t, max, pi->sid);
		for (i = 0; i < pi->nr_threads && pi->threads; i++)
			max = max_t(pid_t, max, pi->threads[i].ns[0].virt);
	}
	return max;
}

static int worker_ok(void *arg, int tid)
{
	return tid > *(pid_t *)arg ? 0 : -1;
}

/*
 * Threads get the ids after the last one given out: move that above the image's. The lock is CRIU's
 * own for this. Should it not work out, worker_ok() sends away workers with a wrong id.
 */
static void before_workers(void *arg)
{
	pid_t max = *(pid_t *)arg;
	char buf[16] = {};
	int fd;

	lock_last_pid();
	fd = open_proc_rw(PROC_GEN, LAST_PID_PATH);
	if (fd < 0)
		return;
	if (read(fd, buf, sizeof(buf) - 1) > 0 && atoi(buf) < max) {
		snprintf(buf, sizeof(buf), "%d", max);
		if (pwrite(fd, buf, strlen(buf), 0) < 0)
			pr_warn("Can't move the last pid to %d: %s\n", max, strerror(errno));
	}
	close(fd);
}

static void after_workers(void *arg)
{
	unlock_last_pid();
}

/* A read of the pack that hangs cannot be taken back: the task goes down, and with it the restore. */
static void stalled(void *arg)
{
	pr_err("No read of " CKF_PACK_NAME " has completed for %u s (--fast-timeout): giving up\n",
	       opts.fast_timeout);
	exit(1);
}

static uint32_t switches(void)
{
	uint32_t flags = 0;

	/* Without clone3() CRIU sets the last pid back and forth: a kernel worker could get any id. */
	if (getenv("CKF_NO_URING") || !kdat.has_clone3_set_tid)
		flags |= CKF_FILL_NO_URING;
	if (getenv("CKF_NO_DIRECT"))
		flags |= CKF_FILL_NO_DIRECT;
	if (huge_off || getenv("CKF_NO_HUGE"))
		flags |= CKF_FILL_NO_HUGE;
	if (getenv("CKF_NO_MOVE"))
		flags |= CKF_FILL_NO_MOVE;
	if (atomic_load(&shared->frugal))
		flags |= CKF_FILL_FRUGAL;
	return flags;
}

static void account(const struct ckf_fill_stats *s, unsigned long long start)
{
	unsigned long long none = 0;

	atomic_fetch_add(&shared->read_bytes, s->read_bytes);
	atomic_fetch_add(&shared->filled_bytes, s->filled_bytes);
	atomic_fetch_add(&shared->zero_bytes, s->zero_bytes);
	atomic_fetch_add(&shared->shared_bytes, s->shared_bytes);
	atomic_fetch_add(&shared->huge_pages, s->huge_pages);
	atomic_fetch_add(&shared->workers, s->workers);
	atomic_fetch_add(&shared->fill_ns, s->ns);
	atomic_fetch_add(&shared->fills, 1);
	if (s->uring)
		atomic_store(&shared->uring, 1);
	if (s->direct)
		atomic_store(&shared->direct, 1);
	atomic_compare_exchange_strong(&shared->first_ns, &none, start);
	atomic_store(&shared->last_ns, now_ns());
	cnt_add(CNT_PAGES_RESTORED, (s->filled_bytes + s->zero_bytes) / PAGE_SIZE);
	cnt_add(CNT_PAGES_SKIPPED_COW, s->shared_bytes / PAGE_SIZE);
}

/*
 * All tasks of the tree share one budget of workers: see judge_room(). A task takes what is left of it, and at
 * least one, which is itself.
 */
static unsigned int take_workers(const struct ckf_target *t)
{
	unsigned int budget = atomic_load(&shared->budget), want, busy;

	want = opts.fast_threads ?: ckf_fill_default_threads(t->nr_pages * PAGE_SIZE);
	busy = atomic_load(&shared->busy);
	if (busy + want > budget)
		want = busy < budget ? budget - busy : 1;
	atomic_fetch_add(&shared->busy, want);
	return want;
}

static int fill(const struct ckf_target *t, const struct ckf_dest *dests, size_t nr)
{
	pid_t max_id = max_image_id();
	struct ckf_fill_opts o = {
		.size = sizeof(o),
		.dir_fd = get_service_fd(IMG_FD_OFF),
		.worker_ok = worker_ok,
		.before_workers = before_workers,
		.after_workers = after_workers,
		.timeout_ms = opts.fast_timeout * 1000,
		.stalled = stalled,
		.arg = &max_id,
	};
	unsigned long long start = now_ns();
	struct ckf_fill_stats stats = {};
	struct ckf_error err = {};
	int ret;

	judge_cgroup_of_task();
	o.flags = switches();
	o.threads = take_workers(t);
	ret = ckf_fill(img, t, dests, nr, &o, &stats, &err);
	atomic_fetch_sub(&shared->busy, o.threads);
	if (ret) {
		pr_err("%s\n", err.msg);
		return -1;
	}
	account(&stats, start);
	pr_info("%s %" PRIu64 ": %" PRIu64 " bytes read, %" PRIu64 " filled, %" PRIu64 " zero, %" PRIu64
		" shared, %" PRIu64 " huge pages, %u workers, %" PRIu64 " us\n",
		ckf_target_kind_name(t->kind), t->id, stats.read_bytes, stats.filled_bytes, stats.zero_bytes,
		stats.shared_bytes, stats.huge_pages, stats.workers, stats.ns / 1000);
	return 0;
}

static const struct ckf_target *find_target(uint32_t kind, uint64_t id)
{
	int64_t pos = ckf_index_find_target(img->idx, kind, id);

	if (pos < 0) {
		pr_err("The image has no pages for %s %" PRIu64 "\n", ckf_target_kind_name(kind), id);
		return NULL;
	}
	return &img->idx->targets[pos];
}

/* Not in the list for its own sake: guard regions of madvise(), which CRIU knows of since 4.2. */
static bool vma_is_private(struct vma_area *vma)
{
#ifdef VMA_AREA_GUARD
	if (vma_area_is(vma, VMA_AREA_GUARD))
		return false;
#endif
	return vma_area_is_private(vma, kdat.task_size);
}

static bool vma_cow(struct vma_area *vma)
{
	return vma->pvma != NULL;
}

static bool vma_is_inherited(struct vma_area *vma)
{
	return vma->pvma != NULL && vma->pvma != VMA_COW_ROOT;
}

/* Where the pages of one VMA go now: before the fork (cow) the inherited ones, afterwards the others. */
static void make_dest(struct vma_area *vma, bool cow, struct ckf_dest *d)
{
	d->start = vma->e->start;
	d->end = vma->e->end;
	d->prot = vma->e->prot | PROT_WRITE;
	d->addr = NULL;
	d->flags = CKF_DEST_SKIP;
	if (!vma_area_is(vma, VMA_PREMMAPED)) {
		/* Read by the restorer: what can be done here is to check it. */
		if (!cow)
			d->flags |= CKF_DEST_CHECK;
		return;
	}
	if (vma_cow(vma) != cow)
		return;
	d->addr = decode_pointer(vma->premmaped_addr);
	d->flags = 0;
	if (vma_is_inherited(vma)) {
		d->flags |= CKF_DEST_SHARED;
		return;
	}
	if (!vma_area_is(vma, VMA_ANON_PRIVATE) && !vma_area_is(vma, VMA_AREA_AIORING))
		return;
	d->flags |= CKF_DEST_FRESH;
	if (!cow && !(vma->e->flags & (MAP_LOCKED | MAP_GROWSDOWN)))
		d->flags |= CKF_DEST_HUGE;
}

static int fill_private(struct pstree_item *t, const struct ckf_target *target, bool cow)
{
	struct vm_area_list *vmas = &rsti(t)->vmas;
	struct ckf_dest *dests;
	struct vma_area *vma;
	size_t nr = 0;
	int ret;

	dests = xmalloc(vmas->nr * sizeof(*dests));
	if (!dests)
		return -1;
	list_for_each_entry(vma, &vmas->h, list)
		if (vma_is_private(vma))
			make_dest(vma, cow, &dests[nr++]);
	ret = fill(target, dests, nr);
	xfree(dests);
	return ret;
}

/*
 * Which pages a VMA has in the image, for those that share pages with a child. A page that the parent's VMA has and
 * this one has not is thrown away by the caller.
 */
static void mark_pages(const struct ckf_target *target, struct vma_area *vma)
{
	const struct ckf_index *idx = img->idx;
	uint64_t i, start, end, off, nr;

	for (i = ckf_index_find_op(idx, target, vma->e->start); i < target->first_op + target->nr_ops; i++) {
		start = max_t(uint64_t, ckf_op_addr(&idx->ops[i]), vma->e->start);
		end = min_t(uint64_t, ckf_op_end(&idx->ops[i]), vma->e->end);
		if (start >= vma->e->end)
			break;
		off = (start - vma->e->start) / PAGE_SIZE;
		nr = (end - start) / PAGE_SIZE;
		bitmap_set(vma->page_bitmap, off, nr);
		if (vma_is_inherited(vma))
			bitmap_clear(vma->pvma->page_bitmap, off, nr);
	}
}

/* VMAs that are not premapped are filled by the restorer, which reads them from the pack. */
static int enqueue_direct(struct pstree_item *t, const struct ckf_target *target, struct vma_area *vma)
{
	const struct ckf_index *idx = img->idx;
	struct page_read pr;
	uint64_t i, start, end;

	fast_image_page_read(&pr);
	for (i = ckf_index_find_op(idx, target, vma->e->start); i < target->first_op + target->nr_ops; i++) {
		const struct ckf_op *op = &idx->ops[i];
		const struct ckf_chunk *c = &idx->chunks[op->chunk];

		start = max_t(uint64_t, ckf_op_addr(op), vma->e->start);
		end = min_t(uint64_t, ckf_op_end(op), vma->e->end);
		if (start >= vma->e->end)
			break;
		if (c->codec == CKF_CODEC_ZERO && (vma->e->flags & MAP_ANONYMOUS))
			continue;
		if (c->codec != CKF_CODEC_RAW) {
			pr_err("Pages at %" PRIx64 " are %s, but must be raw for a mapping of this kind\n", start,
			       ckf_codec_name(c->codec));
			return -1;
		}
		if (c->base) {
			pr_err("Pages at %" PRIx64 " are in a base, but must be in " CKF_PACK_NAME
			       " for a mapping of this kind\n", start);
			return -1;
		}
		pr.pi_off = c->pack_off + op->first_page * PAGE_SIZE + (start - ckf_op_addr(op));
		if (pagemap_enqueue_iovec(&pr, decode_pointer(start), end - start, &rsti(t)->vma_io))
			return -1;
	}
	return 0;
}

int fast_image_fill_cow(struct pstree_item *t)
{
	const struct ckf_target *target = find_target(CKF_TARGET_TASK, vpid(t));
	struct vma_area *vma;
	bool any = false;

	if (!target)
		return -1;
	list_for_each_entry(vma, &rsti(t)->vmas.h, list) {
		if (!vma_is_private(vma))
			continue;
		if (!vma_area_is(vma, VMA_PREMMAPED)) {
			if (enqueue_direct(t, target, vma))
				return -1;
		} else if (vma_cow(vma)) {
			mark_pages(target, vma);
			any = true;
		}
	}
	return any ? fill_private(t, target, true) : 0;
}

int fast_image_fill_task(struct pstree_item *t)
{
	const struct ckf_target *target;

	if (!img || rsti(t)->vmas.nr == 0)
		return 0;
	target = find_target(CKF_TARGET_TASK, vpid(t));
	return target ? fill_private(t, target, false) : -1;
}

/*
 * The same memory mapped once more, where it may have huge pages: as far from a multiple of 2 MiB as its
 * offset, which is 0. NULL when that is not to be had.
 */
static void *map_again(void *addr, unsigned long size, void **room, unsigned long *room_size)
{
	void *at;

	*room_size = size + CKF_HUGE_BYTES;
	*room = mmap(NULL, *room_size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (*room == MAP_FAILED)
		return NULL;
	at = (void *)round_up((unsigned long)*room, CKF_HUGE_BYTES);
	/* An old size of 0 leaves the old mapping where it is. */
	if (mremap(addr, 0, size, MREMAP_MAYMOVE | MREMAP_FIXED, at) == at)
		return at;
	munmap(*room, *room_size);
	return NULL;
}

int fast_image_fill_shmem(void *addr, unsigned long size, unsigned long shmid)
{
	const struct ckf_target *target = find_target(CKF_TARGET_SHMEM, shmid);
	struct ckf_dest dest = {
		.start = 0,
		.end = size,
		.addr = addr,
		.flags = CKF_DEST_FRESH,
	};
	unsigned long room_size;
	void *again = NULL, *room;
	int ret;

	if (!target)
		return -1;
	if (size >= CKF_HUGE_BYTES)
		again = map_again(addr, size, &room, &room_size);
	if (again) {
		dest.addr = again;
		dest.flags |= CKF_DEST_HUGE;
	}
	ret = fill(target, &dest, 1);
	if (again)
		munmap(room, room_size);
	return ret;
}

int fast_image_open_pack(void)
{
	struct ckf_error err = {};
	int fd;

	fd = ckf_image_open_pack(img, get_service_fd(IMG_FD_OFF), 0, &err);
	if (fd < 0)
		pr_err("%s\n", err.msg);
	return fd;
}

static int write_stats_file(const char *line)
{
	FILE *f;
	int ret;

	f = fopen(opts.fast_stats, "we");
	if (!f) {
		pr_perror("Can't create %s", opts.fast_stats);
		return -1;
	}
	ret = fputs(line, f) < 0;
	ret |= fclose(f);
	if (ret)
		pr_perror("Can't write %s", opts.fast_stats);
	return ret ? -1 : 0;
}

int fast_image_report(void)
{
	unsigned long long wall;
	char line[512];

	if (!img)
		return 0;
	wall = shared->last_ns - shared->first_ns;
	snprintf(line, sizeof(line),
		 "{\"version\":1,\"read_bytes\":%llu,\"filled_bytes\":%llu,\"zero_bytes\":%llu,"
		 "\"shared_bytes\":%llu,\"huge_pages\":%llu,\"fills\":%llu,\"workers\":%llu,"
		 "\"fill_ms\":%.3f,\"fill_wall_ms\":%.3f,\"gb_per_s\":%.3f,\"io_uring\":%s,\"direct\":%s}\n",
		 shared->read_bytes, shared->filled_bytes, shared->zero_bytes, shared->shared_bytes,
		 shared->huge_pages, shared->fills, shared->workers, shared->fill_ns / 1e6, wall / 1e6,
		 wall ? (double)shared->filled_bytes / wall : 0.0, shared->uring ? "true" : "false",
		 shared->direct ? "true" : "false");
	pr_info("summary %s", line);
	return opts.fast_stats ? write_stats_file(line) : 0;
}

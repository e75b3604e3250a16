// SPDX-License-Identifier: GPL-2.0-only
/*
 * Restoring memory from a ckfast fast image: the glue between CRIU and libckfast.
 *
 * CRIU decides where memory is mapped, libckfast reads, checks and places the pages. A task that is being
 * restored calls in twice: before it forks, for the VMAs that its children inherit, and afterwards for
 * the rest. In between the VMAs are mapped in the premapped area and empty.
 */
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <sys/mman.h>
#include <unistd.h>

#include <ckfast.h>

#include "types.h"
#include "common/list.h"
#include "bitmap.h"
#include "cr_options.h"
#include "fast-files.h"
#include "fast-image.h"
#include "fast-workers.h"
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

#undef LOG_PREFIX
#define LOG_PREFIX "fast-image: "

/* What CRIU itself takes beside the memory of the tasks. */
#define BYTES_OF_CRIU (4u << 20)

/* From this size on blocks of malloc() are mapped: while the index is read, and later. A fill takes up to 9 MiB. */
#define BLOCKS_OF_INDEX (64u << 10)
#define BLOCKS_OF_FILLS (16u << 20)

/* Mappings that a task has beside its own while it is restored. */
#define MAPS_OF_CRIU 1024

/* Up to so much of what the restorer restores by itself is filled here, and copied by it. */
#define STAGED_MAX (64u << 20)

/* To map a VMA here and to move it costs more than to copy so many pages; it counts where there are many. */
#define FEW_PAGES 16
#define MANY_VMAS 1024

/* So few are read as quickly as they are copied, if they are raw chunks of a pack in the page cache. */
#define READ_PAGES 4

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
	atomic_bool checked;	   /* the limits of the tasks' cgroup are in the budget, too */
	struct fast_gate gate;
	struct ckf_budget budget;  /* of all tasks together; lowered where memory is short */
};

static struct ckf_image *img;
static struct fast_shared *shared;
static bool huge_off;
static unsigned long max_map_count;

/* Of this task. */
static const struct ckf_target *task_target;
static struct ckf_target_info task_info;
static struct ckf_ops task_ops;	       /* near the last VMA: callers go through them in order */
static bool few_maps;	       /* it is near the limit of mappings */
static bool premap_none;       /* it is so near that nothing more than it has can be mapped */
static bool at_once;	       /* nobody inherits from it: what is inherited can wait for the rest */
static bool staging;	       /* the restorer's share of the pages comes from memory, not from the pack */
static bool pack_cached;       /* but for raw chunks of the own pack, which is in the page cache */
static bool many_vmas;	       /* it pays to leave those with few pages to the restorer */
static uint64_t few_left;      /* pages of such VMAs for which there is room among what is staged */
static char *staged;	       /* these pages, once they are filled */
static uint64_t staged_bytes;
static uint64_t nr_pieces;     /* ops, or parts of them, in VMAs that are left to the restorer */
static bool any_from_pack;

/* Parts of this task's premapped area that hold no VMA. They stay mapped until the restorer unmaps them: in a
 * hole something else could be mapped, a stack of a worker say, and then stay in the task for ever. */
static struct iovec *gaps;
static unsigned int nr_gaps;

unsigned long long fast_image_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000ull + ts.tv_nsec;
}

bool fast_image_on(void)
{
	return img != NULL;
}

const struct ckf_image *fast_image_get(void)
{
	return img;
}

const struct ckf_budget *fast_image_budget(void)
{
	return &shared->budget;
}

bool fast_image_take_spare(uint64_t bytes)
{
	return ckf_budget_take_spare(&shared->budget, bytes);
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

int fast_image_check_number(const char *opt, unsigned int n, unsigned int max)
{
	if (n <= max)
		return 0;
	pr_err("%s must be at most %u, not %u\n", opt, max, n);
	return -1;
}

const char *fast_image_version(void)
{
	static char text[64];

	snprintf(text, sizeof(text), "+ckfast %s, fast image %s", ckf_version(), ckf_format_version());
	return text;
}

int fast_image_remove_stale(void)
{
	/* The index first: without it the rest is nothing. */
	static const char *const names[] = { CKF_IDX_NAME, CKF_PACK_NAME, CKF_README_NAME };
	int dir = get_service_fd(IMG_FD_OFF);
	unsigned int i;

	if (opts.stream || !ckf_image_probe(dir))
		return 0;
	pr_info("The directory holds a fast image of another dump, which is removed\n");
	for (i = 0; i < ARRAY_SIZE(names); i++) {
		if (unlinkat(dir, names[i], 0) && errno != ENOENT) {
			pr_perror("Can't remove %s, which is of another dump", names[i]);
			return -1;
		}
	}
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

/* The kernel's default where it cannot be read. */
static unsigned long read_max_map_count(void)
{
	char buf[16] = {};
	unsigned long n = 0;
	int fd;

	fd = open("/proc/sys/vm/max_map_count", O_RDONLY | O_CLOEXEC);
	if (fd >= 0) {
		if (read(fd, buf, sizeof(buf) - 1) > 0)
			n = strtoul(buf, NULL, 10);
		close(fd);
	}
	return n ?: 65530;
}

/* Near the limit of a memory cgroup the fills have fewer workers, or do with little. */
static int lower_budget(uint64_t headroom)
{
	const struct ckf_budget_opts o = {
		.size = sizeof(o),
		.headroom_bytes = headroom,
		.caller_bytes = BYTES_OF_CRIU,
		.asked = opts.fast_threads,
	};
	struct ckf_budget b = { .size = sizeof(b) };
	struct ckf_error err = {};

	if (ckf_budget_check(img, &o, &b, &err)) {
		pr_err("%s\n", err.msg);
		return -1;
	}
	ckf_budget_lower(&shared->budget, &b);
	if (headroom < b.want_bytes)
		pr_info("%s: there is room for %" PRIu64 " bytes, wanted are %" PRIu64 "; %u workers\n",
			b.frugal ? "Memory is short" : "Memory is scarce", headroom, b.want_bytes, b.workers);
	return 0;
}

/*
 * The criu process has checked the limits of its own cgroup. CRIU may have moved the task to another one; the
 * first that has memory checks that for all, as long as cgroups have the same names for both. Not
 * later: the yard is closed before files are opened.
 */
static int check_cgroup_of_task(void)
{
	int yard = get_service_fd(CGROUP_YARD), proc, fd, ret;
	char path[PATH_MAX], full[PATH_MAX + 16];
	bool unified;

	if (atomic_exchange(&shared->checked, true) || yard < 0 || root_ns_mask & CLONE_NEWCGROUP)
		return 0;
	proc = open_pid_proc(PROC_SELF);
	if (proc < 0 || ckf_memcg_path(proc, path, sizeof(path), &unified))
		return 0;
	snprintf(full, sizeof(full), "%s%s", unified ? "unified" : "memory", path);
	fd = openat(yard, full, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return 0;
	ret = lower_budget(ckf_memcg_of_dir(fd));
	close(fd);
	return ret;
}

/* Blocks of this size or more do not lie in the heap but are mapped, and free() leaves no more than that at the end of
 * the heap. */
static void trim_heap(unsigned int bytes)
{
#ifdef __GLIBC__
	malloc_trim(0);
	mallopt(M_MMAP_THRESHOLD, bytes);
	mallopt(M_TRIM_THRESHOLD, bytes);
#endif
}

/*
 * The index must not lie in the heap, part of which it takes for a moment only: what CRIU keeps would come to lie in
 * between, and each task, which shares the heap with its parent, would write to many pages of it to find free blocks.
 * A check of CRIU may have left room at the end of the heap, which malloc() would use first. Buffers of fills shall lie
 * in the heap: the next fill of the task finds their pages still there.
 */
static int read_image(int dir, struct ckf_error *err)
{
	int ret;

	trim_heap(BLOCKS_OF_INDEX);
	ret = ckf_image_open(dir, &img, err);
	if (!ret)
		ret = ckf_image_prepare(img, err);
	trim_heap(BLOCKS_OF_FILLS);
	return ret;
}

int fast_image_open(void)
{
	struct ckf_image_info info = { .size = sizeof(info) };
	struct ckf_error err = {};
	int dir = get_service_fd(IMG_FD_OFF), proc, ret;

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
	if (read_image(dir, &err)) {
		pr_err("%s\n", err.msg);
		return -1;
	}
	ckf_image_get_info(img, &info);
	pack_cached = info.own_cached;
	if (fast_files_open(img))
		return -1;
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED) {
		pr_perror("Can't map statistics");
		return -1;
	}
	fast_gate_init(&shared->gate);
	if (fast_workers_init())
		return -1;
	max_map_count = read_max_map_count();
	huge_off = huge_pages_off();
	proc = open("/proc/self", O_PATH | O_DIRECTORY | O_CLOEXEC);
	ret = lower_budget(ckf_memcg_self(proc));
	close_safe(&proc);
	/* Where memory is short, there is none for a process more. */
	if (!ret && shared->budget.frugal && fast_files_check_now())
		return -1;
	pr_info("%" PRIu64 " targets, %" PRIu64 " chunks, %" PRIu64 " bytes packed, %u bases\n", info.nr_targets,
		info.nr_chunks, info.pack_bytes, info.nr_bases);
	return ret;
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

static const struct ckf_target *find_target(uint32_t kind, uint64_t id)
{
	const struct ckf_target *t = ckf_image_find_target(img, kind, id);

	if (!t)
		pr_err("The image has no pages for %s %" PRIu64 "\n", ckf_target_kind_name(kind), id);
	return t;
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

/* The page below a stack that grows may have been dumped, too. */
static uint64_t first_page(struct vma_area *vma)
{
	return vma->e->start - (vma_has_guard_gap_hidden(vma) ? PAGE_SIZE : 0);
}

/* Up to max + 1. */
static uint64_t count_pages(struct vma_area *vma, uint64_t max)
{
	const struct ckf_op_info *op = ckf_ops_seek(&task_ops, first_page(vma));
	uint64_t nr = 0;

	for (; op && nr <= max && op->start < vma->e->end; op = ckf_ops_next(&task_ops))
		nr += (min_t(uint64_t, op->end, vma->e->end) - max_t(uint64_t, op->start, first_page(vma))) /
		      PAGE_SIZE;
	return min_t(uint64_t, nr, max + 1);
}

/* Zeros that a mapping has anyway. */
static bool restorer_skips(struct vma_area *vma, const struct ckf_op_info *op)
{
	return op->codec == CKF_CODEC_ZERO && vma->e->flags & MAP_ANONYMOUS;
}

/* Of what the restorer puts in place: whether it comes from the pack; else it is staged. */
static bool read_from_pack(const struct ckf_op_info *op)
{
	return !staging || (pack_cached && op->codec == CKF_CODEC_RAW && !op->base);
}

static bool all_from_pack(struct vma_area *vma)
{
	const struct ckf_op_info *op = ckf_ops_seek(&task_ops, vma->e->start);

	for (; op && op->start < vma->e->end; op = ckf_ops_next(&task_ops))
		if (!read_from_pack(op) && !restorer_skips(vma, op))
			return false;
	return true;
}

/* For the restorer to put in place, from the pack or, while there is room for that, from memory. */
static bool take_few_pages(struct vma_area *vma)
{
	uint64_t nr;

	if (!many_vmas || vma->e->flags & MAP_GROWSDOWN)
		return false;
	nr = count_pages(vma, FEW_PAGES);
	if (nr > FEW_PAGES)
		return false;
	if (nr <= READ_PAGES && all_from_pack(vma))
		return true;
	if (nr > few_left)
		return false;
	few_left -= nr;
	return true;
}

/* Huge pages survive mremap() only between places that are equal modulo their size. */
static bool wants_huge_place(struct vma_area *vma)
{
	if (huge_off || few_maps || !vma_area_is_private(vma, kdat.task_size) || vma_area_len(vma) < CKF_HUGE_BYTES)
		return false;
	return ckf_target_wants_huge(img, task_target, vma->e->start, vma->e->end);
}

/*
 * A task's mappings are premapped beside those of the criu process and those that it has from its parent,
 * and a gap between two of them is one, too.
 */
static void check_maps(struct pstree_item *t)
{
	unsigned long nr = rsti(t)->vmas.nr + MAPS_OF_CRIU;

	if (t->parent)
		nr += rsti(t->parent)->vmas.nr;
	few_maps = 2 * nr > max_map_count;
	premap_none = nr > max_map_count;
}

/* The bytes of the plan in a VMA that CRIU leaves to the restorer. */
static uint64_t restorer_bytes(struct vma_area *vma)
{
	const struct ckf_op_info *op;
	uint64_t bytes = 0;

	if (!(vma->e->flags & MAP_HUGETLB) && !(vma->e->status & VMA_EXT_PLUGIN))
		return 0;
	for (op = ckf_ops_seek(&task_ops, vma->e->start); op && op->start < vma->e->end;
	     op = ckf_ops_next(&task_ops))
		bytes += op->end - op->start;
	return bytes;
}

/* bytes: what is left to the restorer anyway. */
static void choose_staging(struct vm_area_list *vmas, uint64_t bytes)
{
	staged_bytes = 0;
	nr_pieces = 0;
	any_from_pack = false;
	staging = premap_none || (!shared->budget.frugal && bytes <= STAGED_MAX);
	many_vmas = staging && vmas->nr > MANY_VMAS;
	few_left = 0;
	if (many_vmas && bytes < STAGED_MAX &&
	    fast_image_take_spare(STAGED_MAX - bytes))
		few_left = (STAGED_MAX - bytes) / PAGE_SIZE;
}

/*
 * Goes through the VMAs once, since there may be many. The dests of what is staged have room for each op once;
 * CRIU itself only looks at the order of the starts.
 */
static int survey_vmas(struct vm_area_list *vmas, uint64_t *bytes)
{
	struct vma_area *vma;
	uint64_t end = 0;

	*bytes = 0;
	list_for_each_entry(vma, &vmas->h, list) {
		*bytes += restorer_bytes(vma);
		if (!vma_is_private(vma))
			continue;
		if (vma->e->start < end || vma->e->end <= vma->e->start ||
		    (vma->e->start | vma->e->end) & (PAGE_SIZE - 1)) {
			pr_err("Mapping %" PRIx64 "-%" PRIx64 " overlaps the one before it, or is not made of pages\n",
			       vma->e->start, vma->e->end);
			return -1;
		}
		end = vma->e->end;
		if (wants_huge_place(vma))
			vmas->rst_priv_size += CKF_HUGE_BYTES;
	}
	return 0;
}

int fast_image_premap_begin(struct pstree_item *t)
{
	struct vm_area_list *vmas = &rsti(t)->vmas;
	uint64_t bytes;

	if (!img)
		return 0;
	task_target = find_target(CKF_TARGET_TASK, vpid(t));
	if (!task_target)
		return -1;
	task_info.size = sizeof(task_info);
	ckf_target_get_info(img, task_target, &task_info);
	ckf_ops_begin(&task_ops, img, task_target, 0);
	nr_gaps = 0; /* what was there is the parent's */
	if (check_cgroup_of_task())
		return -1;
	check_maps(t);
	if (survey_vmas(vmas, &bytes))
		return -1;
	choose_staging(vmas, bytes);
	return 0;
}

bool fast_image_premap_not(struct vma_area *vma)
{
	if (!img || vma->pvma)
		return false;
	if (count_pages(vma, 0))
		return premap_none || take_few_pages(vma);
	/* Made by the restorer, and not writable unless it is so in the end. */
	vma->e->status |= VMA_NO_PROT_WRITE;
	return true;
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

	if (getenv("CKF_NO_URING"))
		flags |= CKF_FILL_NO_URING;
	if (getenv("CKF_NO_DIRECT"))
		flags |= CKF_FILL_NO_DIRECT;
	if (huge_off || getenv("CKF_NO_HUGE"))
		flags |= CKF_FILL_NO_HUGE;
	if (getenv("CKF_NO_MOVE"))
		flags |= CKF_FILL_NO_MOVE;
	if (shared->budget.frugal)
		flags |= CKF_FILL_FRUGAL;
	return flags;
}

void fast_image_account(const struct ckf_fill_stats *s, unsigned long long start)
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
	atomic_store(&shared->last_ns, fast_image_now());
	cnt_add(CNT_PAGES_RESTORED, (s->filled_bytes + s->zero_bytes) / PAGE_SIZE);
	cnt_add(CNT_PAGES_SKIPPED_COW, s->shared_bytes / PAGE_SIZE);
}

void fast_image_fill_opts(struct ckf_fill_opts *o, struct fast_workers *workers)
{
	*o = (struct ckf_fill_opts){
		.size = sizeof(*o),
		.dir_fd = get_service_fd(IMG_FD_OFF),
		.flags = switches(),
		.timeout_ms = opts.fast_timeout * 1000,
		.stalled = stalled,
		.threads = 1,
	};
	if (!workers)
		return;
	*workers = (struct fast_workers){ .budget = &shared->budget };
	o->worker_ok = fast_workers_id_ok;
	o->before_workers = fast_workers_before;
	o->after_workers = fast_workers_after;
	o->arg = workers;
}

/* file: what the only dest maps, or -1. Not where it may be too large to be written: a mapping has no such limit. */
static int fill(const struct ckf_target *t, const struct ckf_dest *dests, size_t nr, int file)
{
	struct rlimit largest;
	struct ckf_target_info info = { .size = sizeof(info) };
	struct fast_workers workers;
	struct ckf_fill_opts o;
	unsigned long long start = fast_image_now();
	struct ckf_fill_stats stats = { .size = sizeof(stats) };
	struct ckf_error err = {};
	uint64_t bytes;
	int ret;

	ckf_target_get_info(img, t, &info);
	fast_image_fill_opts(&o, &workers);
	bytes = info.nr_pages * PAGE_SIZE;
	o.threads = fast_workers_wanted(bytes);
	if (file > 0 && !getrlimit(RLIMIT_FSIZE, &largest) && largest.rlim_cur == RLIM_INFINITY)
		o.file = file;
	fast_gate_enter(&shared->gate, bytes);
	ret = ckf_fill(img, t, dests, nr, &o, &stats, &err);
	fast_gate_leave(&shared->gate, bytes);
	fast_workers_end(&workers);
	if (ret) {
		pr_err("%s\n", err.msg);
		return -1;
	}
	fast_image_account(&stats, start);
	pr_info("%s %" PRIu64 ": %" PRIu64 " bytes read, %" PRIu64 " filled, %" PRIu64 " zero, %" PRIu64
		" shared, %" PRIu64 " huge pages, %u workers, %" PRIu64 " us\n",
		ckf_target_kind_name(info.kind), info.id, stats.read_bytes, stats.filled_bytes, stats.zero_bytes,
		stats.shared_bytes, stats.huge_pages, stats.workers, stats.ns / 1000);
	return 0;
}

static bool vma_cow(struct vma_area *vma)
{
	return vma->pvma != NULL;
}

static bool vma_is_inherited(struct vma_area *vma)
{
	return vma->pvma != NULL && vma->pvma != VMA_COW_ROOT;
}

/* Where the pages of one VMA go now: before the fork (cow) the inherited ones, afterwards the others. Those of
 * a task without children are all filled in one go: a small fill costs more than its pages. */
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
	if (!at_once && vma_cow(vma) != cow)
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
	if (!vma_cow(vma) && !(vma->e->flags & (MAP_LOCKED | MAP_GROWSDOWN)))
		d->flags |= CKF_DEST_HUGE;
}

/*
 * Where the pages of a VMA that is left to the restorer go: one after the other, in the order of the plan. Those
 * that it reads itself are checked here.
 */
static void make_staged_dests(struct vma_area *vma, uint64_t *off, struct ckf_dest *dests, size_t *nr)
{
	const struct ckf_op_info *op;

	for (op = ckf_ops_seek(&task_ops, vma->e->start); op && op->start < vma->e->end;
	     op = ckf_ops_next(&task_ops)) {
		struct ckf_dest *d = &dests[*nr];

		d->start = max_t(uint64_t, op->start, vma->e->start);
		d->end = min_t(uint64_t, op->end, vma->e->end);
		d->addr = NULL;
		d->flags = CKF_DEST_SKIP;
		if (restorer_skips(vma, op)) {
			/* nothing to do */
		} else if (read_from_pack(op)) {
			d->flags |= CKF_DEST_CHECK;
		} else {
			d->addr = staged + *off;
			d->flags = CKF_DEST_FRESH;
			*off += d->end - d->start;
		}
		(*nr)++;
	}
}

static bool is_staged(struct vma_area *vma)
{
	return staging && !vma_area_is(vma, VMA_PREMMAPED);
}

/* In what the restorer takes along: the last large thing there, since all of it moves when it grows. */
static int alloc_staged(struct task_restore_args *ta)
{
	char *room;

	ta->staged = (char *)rst_mem_align_cpos(RM_PRIVATE);
	if (!staged_bytes)
		return 0;
	room = rst_mem_alloc(staged_bytes + PAGE_SIZE, RM_PRIVATE);
	if (!room) {
		pr_err("No %" PRIu64 " bytes for the restorer\n", staged_bytes);
		return -1;
	}
	staged = (char *)round_up((unsigned long)room, PAGE_SIZE);
	ta->staged += staged - room;
	return 0;
}

static int fill_private(struct pstree_item *t, bool cow)
{
	struct vm_area_list *vmas = &rsti(t)->vmas;
	uint64_t off = 0;
	struct ckf_dest *dests;
	struct vma_area *vma;
	size_t nr = 0;
	int ret;

	dests = xmalloc((vmas->nr + nr_pieces) * sizeof(*dests));
	if (!dests)
		return -1;
	list_for_each_entry(vma, &vmas->h, list) {
		if (!vma_is_private(vma))
			continue;
		if (cow || !is_staged(vma))
			make_dest(vma, cow, &dests[nr++]);
		else
			make_staged_dests(vma, &off, dests, &nr);
	}
	ret = fill(task_target, dests, nr, -1);
	xfree(dests);
	return ret;
}

/*
 * Which pages a VMA has in the image, for those that share pages with a child. A page that the parent's VMA has and
 * this one has not is thrown away by the caller.
 */
static void mark_pages(struct vma_area *vma)
{
	const struct ckf_op_info *op;
	uint64_t start, end, off, nr;

	for (op = ckf_ops_seek(&task_ops, vma->e->start); op && op->start < vma->e->end;
	     op = ckf_ops_next(&task_ops)) {
		start = max_t(uint64_t, op->start, vma->e->start);
		end = min_t(uint64_t, op->end, vma->e->end);
		off = (start - vma->e->start) / PAGE_SIZE;
		nr = (end - start) / PAGE_SIZE;
		bitmap_set(vma->page_bitmap, off, nr);
		if (vma_is_inherited(vma))
			bitmap_clear(vma->pvma->page_bitmap, off, nr);
	}
}

/* Where in the pack the restorer can read the pages of an op itself. */
static int verbatim_off(const struct ckf_op_info *op, uint64_t start, off_t *off)
{
	struct ckf_chunk_info c = { .size = sizeof(c) };

	ckf_image_get_chunk(img, op->chunk, &c);
	if (c.codec != CKF_CODEC_RAW) {
		pr_err("Pages at %" PRIx64 " are %s, but must be raw for a mapping of this kind\n", start,
		       ckf_codec_name(c.codec));
		return -1;
	}
	if (c.base) {
		pr_err("Pages at %" PRIx64 " are in a base, but must be in " CKF_PACK_NAME
		       " for a mapping of this kind\n", start);
		return -1;
	}
	*off = c.pack_off + op->first_page * PAGE_SIZE + (start - op->start);
	return 0;
}

/* VMAs that are not premapped are filled by the restorer: from memory, or from the pack. */
static int enqueue(struct pstree_item *t, struct vma_area *vma)
{
	const struct ckf_op_info *op;
	struct page_read pr;
	uint64_t start, end;

	fast_image_page_read(&pr);
	for (op = ckf_ops_seek(&task_ops, vma->e->start); op && op->start < vma->e->end;
	     op = ckf_ops_next(&task_ops)) {
		start = max_t(uint64_t, op->start, vma->e->start);
		end = min_t(uint64_t, op->end, vma->e->end);
		nr_pieces++;
		if (restorer_skips(vma, op))
			continue;
		if (!read_from_pack(op)) {
			pr.pi_off = VMA_IO_STAGED + staged_bytes;
			staged_bytes += end - start;
		} else if (verbatim_off(op, start, &pr.pi_off)) {
			return -1;
		} else {
			any_from_pack = true;
		}
		if (pagemap_enqueue_iovec(&pr, decode_pointer(start), end - start, &rsti(t)->vma_io))
			return -1;
	}
	return 0;
}

int fast_image_fill_cow(struct pstree_item *t)
{
	struct vma_area *vma;
	bool any = false;

	list_for_each_entry(vma, &rsti(t)->vmas.h, list) {
		if (!vma_is_private(vma))
			continue;
		if (!vma_area_is(vma, VMA_PREMMAPED)) {
			if (enqueue(t, vma))
				return -1;
		} else if (vma_cow(vma)) {
			mark_pages(vma);
			any = true;
		}
	}
	at_once = list_empty(&t->children);
	return any && !at_once ? fill_private(t, true) : 0;
}

int fast_image_fill_task(struct pstree_item *t, struct task_restore_args *ta)
{
	if (!img || rsti(t)->vmas.nr == 0)
		return 0;
	return alloc_staged(ta) ? -1 : fill_private(t, false);
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

int fast_image_fill_shmem(int fd, void *addr, unsigned long size, unsigned long shmid)
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
	ret = fill(target, &dest, 1, fd);
	if (again)
		munmap(room, room_size);
	return ret;
}

static int open_pack(void)
{
	struct ckf_error err = {};
	int fd;

	fd = ckf_image_open_pack(img, get_service_fd(IMG_FD_OFF), 0, &err);
	if (fd < 0)
		pr_err("%s\n", err.msg);
	return fd;
}

int fast_image_prepare_ios(struct pstree_item *t, struct task_restore_args *ta)
{
	ta->vma_ios_fd = any_from_pack ? open_pack() : -1;
	if (any_from_pack && ta->vma_ios_fd < 0)
		return -1;
	return pagemap_render_iovec(&rsti(t)->vma_io, ta);
}

static int write_stats_file(const char *line)
{
	int flags = O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, fd, ret;
	FILE *f;

	/* In the working directory, which may be somebody else's. */
	if (!strchr(opts.fast_stats, '/'))
		flags |= O_NOFOLLOW;
	fd = open(opts.fast_stats, flags, 0600);
	f = fd < 0 ? NULL : fdopen(fd, "w");
	if (!f) {
		pr_perror("Can't create %s", opts.fast_stats);
		close_safe(&fd);
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

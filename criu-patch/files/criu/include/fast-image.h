/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Restoring memory from a ckfast fast image.
 *
 * A fast image holds the same .img files as a dump, but its pages are in ckfast.pack, and ckfast.idx
 * says what goes where. The loader is libckfast; fast-image.c tells it where CRIU has mapped things.
 */
#ifndef __CR_FAST_IMAGE_H__
#define __CR_FAST_IMAGE_H__

#include <stdbool.h>
#include <stdint.h>

struct page_read;
struct pstree_item;
struct task_restore_args;
struct vma_area;

/*
 * Opens the image directory as a fast image if it is one, or if --fast-image says that it must be.
 * Called once, in the criu process, before any task is created.
 */
extern int fast_image_open(void);

/* True when the pages come from a fast image. */
extern bool fast_image_on(void);

/* For what fills other things than memory of tasks: the image, and how much all may do at once. */
struct ckf_budget;
struct ckf_fill_opts;
struct ckf_fill_stats;
struct ckf_image;
struct fast_workers;
extern const struct ckf_image *fast_image_get(void);
extern const struct ckf_budget *fast_image_budget(void);
/* Memory beyond what all fills may take: true when there was that much, which is the caller's then. */
extern bool fast_image_take_spare(uint64_t bytes);
/* The options of a fill by the calling thread; with workers where there is a struct for them. */
extern void fast_image_fill_opts(struct ckf_fill_opts *o, struct fast_workers *workers);
/* Counts a fill that began at start, of fast_image_now(). */
extern void fast_image_account(const struct ckf_fill_stats *s, unsigned long long start);
extern unsigned long long fast_image_now(void);

/* In place of open_page_read() for a task: nothing is read page by page. */
extern int fast_image_page_read(struct page_read *pr);

/* Options that exclude one another. fast: a fast image is asked for. */
extern int fast_image_check_opts(bool fast);

/* Begins the premapped area of a task: makes it as long as it must be. */
extern int fast_image_premap_begin(struct pstree_item *t);

/* True for a VMA that the restorer maps by itself, for it has no pages, or cannot be premapped. */
extern bool fast_image_premap_not(struct vma_area *vma);

/* Where in the premapped area a VMA goes: *at may move up, and leaves a gap. */
extern int fast_image_premap_place(struct vma_area *vma, void **at);

/* Tells the restorer of the gaps, which it unmaps. */
extern int fast_image_prepare_gaps(struct task_restore_args *ta);

/* Before children are forked: memory that they share with the task. */
extern int fast_image_fill_cow(struct pstree_item *t);

/* After that: all other private memory of the task. */
extern int fast_image_fill_task(struct pstree_item *t, struct task_restore_args *ta);

/* fd: the file that is mapped at addr, or -1. */
extern int fast_image_fill_shmem(int fd, void *addr, unsigned long size, unsigned long shmid);

/* What the restorer takes its own share of pages from. */
extern int fast_image_prepare_ios(struct pstree_item *t, struct task_restore_args *ta);

/* The summary in the log and in --fast-stats. */
extern int fast_image_report(void);

/* Both for the command line; larger values make no sense. */
#define FAST_THREADS_MAX 1024
#define FAST_TIMEOUT_MAX 86400

/* Seconds without a completed read after which a restore fails. */
#define FAST_TIMEOUT_DEFAULT 120

/* Reads the number of an option; 0, or 1 with a message. */
extern int fast_image_parse_number(const char *opt, const char *arg, unsigned int max, unsigned int *out);

/* The same for a number that came through RPC, where 0 is the default: 0, or -1 with a message. */
extern int fast_image_check_number(const char *opt, unsigned int n, unsigned int max);

/* For --version: what is restored beside dumps. */
extern const char *fast_image_version(void);

/* At the end of a dump: a fast image that was in its directory is of no use any more. */
extern int fast_image_remove_stale(void);

#endif /* __CR_FAST_IMAGE_H__ */

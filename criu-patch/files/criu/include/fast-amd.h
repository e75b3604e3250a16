/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * For the amdgpu plugin: memory of AMD GPUs from the pack of a fast image, and to the files of a dump.
 *
 * KFD gives dma-bufs of the objects. The copies are those of libckfast, by the GPU's own engines; at a restore they
 * are made by a process beside the tasks, since a task whose objects KFD has restored cannot use libhsakmt.
 */
#ifndef __CR_FAST_AMD_H__
#define __CR_FAST_AMD_H__

#include <stdint.h>
#include <stdio.h>

/* An object with contents. */
struct fast_amd_bo {
	uint64_t bytes;
	int dmabuf;
};

/* Starts the process that fills, if the image has memory of AMD GPUs: in the criu process, before there are tasks. */
extern int fast_amd_start(void);

/*
 * In a task, for each GPU: the objects of its table, in that order. 0: they are being filled. 1: the plugin has to
 * copy what fast_amd_open_file() gives. -1: the image has other objects.
 */
extern int fast_amd_fill(unsigned int id, unsigned int gpu_id, const struct fast_amd_bo *bos, unsigned int nr);

/* In the criu process, before any task runs: 0 when all that was begun has arrived. */
extern int fast_amd_join(void);

/*
 * The contents of objects on a GPU, or of one object of a render node, by the name of the file that the dump had. NULL
 * where the image has that file, or there is none of that name.
 */
extern FILE *fast_amd_open_file(const char *name);

/*
 * At a dump, for each GPU: writes the contents of objects behind what f has. 0; 1: the plugin has to copy them itself,
 * nothing was written; -1.
 */
extern int fast_amd_save(FILE *f, const struct fast_amd_bo *bos, unsigned int nr);

/* When the dump has ended. */
extern void fast_amd_save_end(void);

#endif /* __CR_FAST_AMD_H__ */

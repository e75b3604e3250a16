/* SPDX-License-Identifier: MIT */
/* The files that dumps of fuzz_dump.c have. New ones go to the end: inputs name them by numbers. */
#ifndef DUMP_NAMES_H
#define DUMP_NAMES_H

static const char *const names[] = {
	"inventory.img",
	"pstree.img",
	"core-1.img",
	"core-2.img",
	"mm-1.img",
	"mm-2.img",
	"pagemap-1.img",
	"pagemap-2.img",
	"pagemap-shmem-7.img",
	"pages-1.img",
	"pages-2.img",
	"pages-3.img",
	"ckfast-gpu-1.img",
	"ckfast-gpu-pages-1.img",
	"parent",
	"files.img",
	"stats-dump",
	"fdinfo-2.img",
	"ckfast.idx",
	"pagemap-01.img",
	"pagemap-4294967295.img",
	"fs-1.img",
	"ids-1.img",
	"remap-fpath.img",
	"cpuinfo.img",
	"mountpoints-12.img",
	"ghost-file-1.img",
	"amdgpu-kfd-7.img",
	"amdgpu-pages-7-001a.img",
	"amdgpu-renderD-9.img",
	"amdgpu-drm-pages-9-128-0000.img",
	"amdgpu-drm-pages-9-128-0001.img",
};

#endif

/* SPDX-License-Identifier: MIT */
/*
 * amd-world DEV SYS GPU_ID:MINOR:MIB…: makes the files of the fake: DEV/kfd, DEV/dri/renderD* and
 * SYS/kfd/kfd/topology, for one CPU and these GPUs. A test mounts them over /dev and /sys/class.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "world.h"

#define HEAP_PRIVATE 2
#define LINK_PCIE 2
#define FIRST_OFF (1ull << 20) /* of objects in a render node */

static void die(const char *what)
{
	perror(what);
	exit(1);
}

/* Makes the directories above a path. */
static void make_parents(char *path)
{
	for (char *p = strchr(path + 1, '/'); p; p = strchr(p + 1, '/')) {
		*p = '\0';
		if (mkdir(path, 0755) && errno != EEXIST)
			die(path);
		*p = '/';
	}
}

static void put(const char *dir, const char *name, const char *text)
{
	char path[512];
	FILE *f;

	snprintf(path, sizeof(path), "%s/kfd/kfd/topology/%s", dir, name);
	make_parents(path);
	f = fopen(path, "w");
	if (!f || fputs(text, f) < 0 || fclose(f))
		die(path);
}

static void put_node(const char *dir, unsigned int node, const char *name, const char *fmt, ...)
{
	char text[1024], path[128];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	snprintf(path, sizeof(path), "nodes/%u/%s", node, name);
	put(dir, path, text);
}

static int make_file(const char *dir, const char *name, uint64_t bytes, struct stat *st)
{
	char path[512];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	make_parents(path);
	fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
	if (fd < 0 || ftruncate(fd, (off_t)bytes) || fstat(fd, st))
		die(path);
	return fd;
}

static void add_gpu(struct amd_world *w, const char *dev, const char *sys, const char *spec)
{
	struct amd_gpu *gpu = &w->gpus[w->nr_gpus++];
	unsigned int node = w->nr_gpus;
	unsigned long long mib;
	struct stat st;
	char name[64];

	if (node > AMD_MAX_GPUS ||
	    sscanf(spec, "%u:%u:%llu", &gpu->gpu_id, &gpu->minor, &mib) != 3) {
		fprintf(stderr, "%s: want GPU_ID:MINOR:MIB\n", spec);
		exit(2);
	}
	gpu->vram_bytes = mib << 20;
	gpu->next_off = FIRST_OFF;
	snprintf(name, sizeof(name), "dri/renderD%u", gpu->minor);
	/* Places are not used again, and GTT is not counted: room for many lives. */
	close(make_file(dev, name, 1ull << 40, &st));
	gpu->ino = st.st_ino;
	put_node(sys, node, "gpu_id", "%u\n", gpu->gpu_id);
	put_node(sys, node, "properties",
		 "cpu_cores_count 0\nsimd_count 64\nsimd_per_cu 4\nmem_banks_count 1\n"
		 "caches_count 0\ngfx_target_version 90010\n"
		 "io_links_count 1\nvendor_id 4098\ndevice_id 29711\ndrm_render_minor %u\n"
		 "num_sdma_engines 2\nnum_cp_queues 24\n",
		 gpu->minor);
	put_node(sys, node, "mem_banks/0/properties", "heap_type %d\nsize_in_bytes %llu\n",
		 HEAP_PRIVATE, mib << 20);
	put_node(sys, node, "io_links/0/properties", "type %d\nnode_from %u\nnode_to 0\n",
		 LINK_PCIE, node);
	snprintf(name, sizeof(name), "io_links/%u/properties", node - 1);
	put_node(sys, 0, name, "type %d\nnode_from 0\nnode_to %u\n", LINK_PCIE, node);
}

int main(int argc, char **argv)
{
	struct amd_world *w;
	struct stat st;
	int fd;

	if (argc < 4) {
		fprintf(stderr, "usage: amd-world DEV SYS GPU_ID:MINOR:MIB...\n");
		return 2;
	}
	fd = make_file(argv[1], "kfd", AMD_MMIO_OFF + AMD_PAGE, &st);
	w = mmap(NULL, sizeof(*w), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (w == MAP_FAILED)
		die("kfd");
	w->dev = st.st_dev;
	w->ino = st.st_ino;
	put(argv[2], "generation_id", "1\n");
	put(argv[2], "system_properties", "platform_oem 0\nplatform_id 0\nplatform_rev 0\n");
	put(argv[2], "nodes/0/gpu_id", "0\n");
	put_node(argv[2], 0, "properties", "cpu_cores_count 8\nmem_banks_count 1\n");
	put_node(argv[2], 0, "mem_banks/0/properties", "heap_type 0\nsize_in_bytes %llu\n",
		 1ull << 36);
	for (int i = 3; i < argc; i++)
		add_gpu(w, argv[1], argv[2], argv[i]);
	w->magic = AMD_MAGIC;
	return 0;
}

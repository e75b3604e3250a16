/* SPDX-License-Identifier: MIT */
/*
 * rocmprog DIR [MIB [CHILDREN [LAYERS [OBJECTS]]]]: a program as the ROCm runtime makes it look to
 * the kernel: it has /dev/kfd and all render nodes open, and on each GPU objects in VRAM and GTT,
 * mapped at the addresses where the GPU sees them; host memory that a GPU knows (userptr);
 * doorbells. MIB: of one more object on each GPU. CHILDREN: processes that have all that, too, each
 * with its number behind the names of its files. LAYERS: of weights in one more object on each GPU;
 * the last one is the GPU's own, the others are the same on all. OBJECTS: that it makes by
 * each render node alone, the first with the contents of one that /dev/kfd has made.
 *
 * On SIGUSR1 it checks every byte, and that its objects can be freed and new ones made.
 */

#include "gem.h"
#include "kfd.h"
#include "tests/progs/bf16.h"

#define MAX_GPUS 4
#define HOST_PAGES 40u
#define MAX_OBJECTS 20u

static const struct shape {
	uint32_t flags;
	uint64_t pages;
} shapes[] = {
	{ KFD_MEM_VRAM, 700 },
	{ KFD_MEM_GTT, 3 },
	{ KFD_MEM_VRAM, 1 },
};
#define NR_SHAPES (sizeof(shapes) / sizeof(shapes[0]))

static struct {
	uint32_t gpu_id;
	int node; /* render node */
} gpus[MAX_GPUS];
static unsigned int nr_gpus;
static int kfd;

static uint64_t number_of(const char *path, const char *name)
{
	unsigned long long v = 0;
	char line[128], key[64];
	FILE *f = fopen(path, "r");

	while (f && fgets(line, sizeof(line), f)) {
		if (!name && sscanf(line, "%llu", &v) == 1)
			break;
		if (name && sscanf(line, "%63s %llu", key, &v) == 2 && !strcmp(key, name))
			break;
		v = 0;
	}
	if (f)
		fclose(f);
	return v;
}

static void find_gpus(void)
{
	char path[128], node_path[64];

	for (unsigned int node = 1; nr_gpus < MAX_GPUS; node++) {
		snprintf(path, sizeof(path), "/sys/class/kfd/kfd/topology/nodes/%u/gpu_id", node);
		if (access(path, R_OK))
			break;
		gpus[nr_gpus].gpu_id = (uint32_t)number_of(path, NULL);
		snprintf(path, sizeof(path), "/sys/class/kfd/kfd/topology/nodes/%u/properties",
			 node);
		snprintf(node_path, sizeof(node_path), "/dev/dri/renderD%llu",
			 (unsigned long long)number_of(path, "drm_render_minor"));
		gpus[nr_gpus].node = open(node_path, O_RDWR | O_CLOEXEC);
		if (gpus[nr_gpus++].node < 0)
			die("%s", node_path);
	}
	if (!nr_gpus)
		die("no GPU");
}

static struct kfd_alloc make_object(unsigned int gpu, uint32_t flags, void *addr, uint64_t bytes)
{
	struct kfd_alloc a = {
		.addr = (uintptr_t)addr,
		.bytes = bytes,
		.gpu_id = gpus[gpu].gpu_id,
		.flags = flags | KFD_MEM_WRITABLE,
	};

	if (flags & KFD_MEM_USERPTR)
		a.mmap_offset = (uintptr_t)addr;
	if (ioctl(kfd, KFD_IOC_ALLOC, &a))
		die("KFD_IOC_ALLOC");
	return a;
}

static char *reserve(uint64_t bytes)
{
	char *addr = mmap(NULL, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (addr == MAP_FAILED)
		die("mmap");
	return addr;
}

/* An object at an address that the program reserves first. */
static char *map_object(unsigned int gpu, uint32_t flags, uint64_t bytes, int fd)
{
	char *addr = reserve(bytes);
	struct kfd_alloc a;

	a = make_object(gpu, flags, addr, bytes);
	if (mmap(addr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd,
		 (off_t)a.mmap_offset) == MAP_FAILED)
		die("mmap of an object");
	return addr;
}

static struct area add_object(unsigned int gpu, const struct shape *shape)
{
	struct area a = { .name = "object",
			  .nr_pages = shape->pages,
			  .seed = 100 * gpu + shape->pages,
			  .profile = RANDOM,
			  .prot = PROT_READ | PROT_WRITE };

	a.addr = map_object(gpu, shape->flags, shape->pages * PAGE, gpus[gpu].node);
	area_fill(&a);
	return a;
}

/* The same by the render node alone, at the same address for the GPU. */
static struct area add_gem(unsigned int gpu, unsigned int i)
{
	struct area a = { .name = "object of a render node",
			  .nr_pages = i ? 10 + i : shapes[0].pages,
			  .profile = RANDOM,
			  .prot = PROT_READ | PROT_WRITE };
	const uint64_t bytes = a.nr_pages * PAGE;
	union gem_create c = { .in = { .bytes = bytes,
				       .alignment = PAGE,
				       .domains = i % 2 ? GEM_DOMAIN_GTT : GEM_DOMAIN_VRAM } };
	struct gem_va va = { .op = GEM_VA_MAP, .flags = 14, .bytes = bytes };
	union gem_mmap m;

	a.seed = 100 * gpu + a.nr_pages;
	a.addr = reserve(bytes);
	if (ioctl(gpus[gpu].node, GEM_IOC_CREATE, &c))
		die("GEM_IOC_CREATE");
	m.handle = va.handle = c.out.handle;
	va.addr = (uintptr_t)a.addr;
	if (ioctl(gpus[gpu].node, GEM_IOC_VA, &va) || ioctl(gpus[gpu].node, GEM_IOC_MMAP, &m) ||
	    mmap(a.addr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, gpus[gpu].node,
		 (off_t)m.offset) == MAP_FAILED)
		die("an object of a render node");
	area_fill(&a);
	return a;
}

static uint64_t layer_number(unsigned int gpu, uint64_t layer, uint64_t nr_layers)
{
	return layer + 1 == nr_layers ? nr_layers + gpu : layer;
}

static char *add_weights(unsigned int gpu, uint64_t nr_layers)
{
	char *addr = map_object(gpu, KFD_MEM_VRAM, nr_layers * LAYER_BYTES, gpus[gpu].node);

	for (uint64_t i = 0; i < nr_layers; i++)
		layer_fill((uint16_t *)(addr + i * LAYER_BYTES), layer_number(gpu, i, nr_layers),
			   0);
	return addr;
}

static bool weights_good(unsigned int gpu, const char *addr, uint64_t nr_layers)
{
	uint16_t *want = malloc(LAYER_BYTES);
	bool good = want;

	for (uint64_t i = 0; i < nr_layers && good; i++) {
		layer_fill(want, layer_number(gpu, i, nr_layers), 0);
		good = !memcmp(addr + i * LAYER_BYTES, want, LAYER_BYTES);
	}
	free(want);
	return good;
}

static const char *live(void)
{
	struct kfd_alloc a = make_object(0, KFD_MEM_VRAM, NULL, PAGE);
	struct kfd_free f = { .handle = a.handle };

	return ioctl(kfd, KFD_IOC_FREE, &f) ? "free" : NULL;
}

/* "ready" and "report", with the number of this process. */
static const char *numbered(const char *name, unsigned int nr)
{
	static char buf[32];

	snprintf(buf, sizeof(buf), nr ? "%s%u" : "%s", name, nr);
	return buf;
}

int main(int argc, char **argv)
{
	struct area areas[MAX_GPUS * (NR_SHAPES + 1 + MAX_OBJECTS) + 1];
	struct shape large = { KFD_MEM_VRAM, 0 };
	unsigned int nr = 0, children, nr_objects, self = 0;
	char *doorbell, *weights[MAX_GPUS];
	uint64_t nr_layers;

	nr_objects = argc > 5 ? (unsigned int)atoi(argv[5]) : 0;
	if (argc < 2 || argc > 6 || nr_objects > MAX_OBJECTS) {
		fprintf(stderr, "usage: rocmprog DIR [MIB [CHILDREN [LAYERS [OBJECTS]]]]\n");
		return 2;
	}
	large.pages = argc > 2 ? strtoull(argv[2], NULL, 10) * ((1 << 20) / PAGE) : 0;
	children = argc > 3 ? (unsigned int)atoi(argv[3]) : 0;
	nr_layers = argc > 4 ? strtoull(argv[4], NULL, 10) : 0;
	table_init();
	for (unsigned int i = 1; i <= children && !self; i++)
		if (!fork())
			self = i;
	trigger_init();
	kfd = open("/dev/kfd", O_RDWR | O_CLOEXEC);
	if (kfd < 0)
		die("/dev/kfd");
	find_gpus();
	for (unsigned int g = 0; g < nr_gpus; g++) {
		for (unsigned int i = 0; i < NR_SHAPES; i++)
			areas[nr++] = add_object(g, &shapes[i]);
		if (large.pages)
			areas[nr++] = add_object(g, &large);
		if (nr_layers)
			weights[g] = add_weights(g, nr_layers);
		for (unsigned int i = 0; i < nr_objects; i++)
			areas[nr++] = add_gem(g, i);
	}
	areas[nr++] = area_new("host", HOST_PAGES, MAP_PRIVATE | MAP_ANONYMOUS, -1, RANDOM);
	make_object(0, KFD_MEM_USERPTR, areas[nr - 1].addr, HOST_PAGES * PAGE);
	doorbell = map_object(0, KFD_MEM_DOORBELL, 2 * PAGE, kfd);
	report(argv[1], numbered("ready", self), "%d", (int)getpid());
	for (;;) {
		const char *bad = NULL;

		trigger_wait();
		for (unsigned int i = 0; i < nr; i++)
			if (area_check(&areas[i]) >= 0)
				bad = areas[i].name;
		for (unsigned int g = 0; g < nr_gpus && nr_layers; g++)
			if (!weights_good(g, weights[g], nr_layers))
				bad = "weights";
		if (!bad)
			bad = live();
		*(volatile uint64_t *)doorbell = 1;
		report(argv[1], numbered("report", self), "%s %s", bad ? "BAD" : "OK",
		       bad ? bad : "");
	}
}

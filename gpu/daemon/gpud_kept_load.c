/* SPDX-License-Identifier: MIT */
/* Reads images that are to be kept, as far as there is memory; gpud_kept.c says more. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/ckf_threads.h"
#include "loader/ckf_kept.h"
#include "loader/ckf_memory.h"
#include "gpud_kept.h"

#define SPARE_BYTES (512ull << 20) /* of the machine, or of the memory cgroup, stay free */
/* With less, memory is given back. The difference keeps images from coming and going. */
#define SHORT_BYTES (448ull << 20)
#define RECENT_NS GPUD_NS_PER_S	  /* until an image that was written a moment ago is tried again */
#define LOOK_NS (100 * NS_PER_MS) /* between two looks at memory while an image is read */

static unsigned long long mib(uint64_t bytes)
{
	return bytes >> 20;
}

/* What the machine and the memory cgroup have left, or -errno where that cannot be told. */
static int free_bytes(uint64_t *bytes)
{
	int proc = open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC);
	int ret = proc < 0 ? -errno : ckf_memory_available(proc, bytes);

	if (proc >= 0)
		close(proc);
	return ret;
}

bool gpud_memory_is_short(void)
{
	uint64_t bytes;

	return !free_bytes(&bytes) && bytes < SHORT_BYTES;
}

/* Takes a part of what may be kept. may_drop: others are dropped for it. -EDQUOT, or -ENOMEM. */
static int make_room(struct gpud_kept *k, uint64_t bytes, bool may_drop, struct ckf_error *err)
{
	const uint64_t limit = k->g->opts.keep_bytes ? k->g->opts.keep_bytes : UINT64_MAX;
	uint64_t used, idle, spare;
	int ret;

	for (;;) {
		ret = free_bytes(&spare);
		if (ret)
			return ckf_error_set(err, ret, "cannot tell how much memory is free: %s",
					     strerror(-ret));
		spare = spare > SPARE_BYTES ? spare - SPARE_BYTES : 0;
		pthread_mutex_lock(&k->lock);
		gpud_image_find_idle(k, &idle);
		used = k->counts.bytes;
		if (bytes <= spare && bytes <= limit && used <= limit - bytes) {
			k->counts.bytes += bytes;
			pthread_mutex_unlock(&k->lock);
			return 0;
		}
		pthread_mutex_unlock(&k->lock);
		idle = may_drop ? idle : 0;
		/* Nothing is dropped in vain. */
		if (bytes > limit || used - idle > limit - bytes)
			return ckf_error_set(err, -EDQUOT,
					     "the image takes %llu MiB, %llu MiB are in use, and "
					     "%llu MiB may be kept (--keep-bytes)",
					     mib(bytes), mib(used - idle), mib(limit));
		if (bytes > spare + idle)
			return ckf_error_set(err, -ENOMEM,
					     "the image takes %llu MiB, and the machine or the "
					     "memory cgroup can spare %llu MiB",
					     mib(bytes), mib(spare + idle));
		gpud_image_drop_idle(k, GPUD_DROPPED_ROOM);
	}
}

/* Asked between chunks: drops, and memory that gets short, need not wait for the end. */
static int stop_load(void *arg)
{
	struct gpud_load *l = arg;
	const uint64_t now_ns = ckf_now_ns();
	uint64_t look_ns = atomic_load(&l->look_ns);

	if (now_ns >= look_ns &&
	    atomic_compare_exchange_strong(&l->look_ns, &look_ns, now_ns + LOOK_NS) &&
	    gpud_memory_is_short())
		atomic_store(&l->is_short, true);
	return atomic_load(&l->dropped) || atomic_load(&l->is_short) || l->cancelled(l->arg);
}

/* Memory with all that is to be kept of the image. On failure nothing is left of it. */
static int mem_new(struct gpud_kept *k, const struct ckf_image *img, struct gpud_load *l,
		   struct gpud_kept_mem **out, struct ckf_error *err)
{
	struct gpud_kept_mem *mem = calloc(1, sizeof(*mem));
	uint64_t bytes;
	int ret;

	if (!mem)
		return ckf_error_set(err, -ENOMEM, "no memory");
	mem->k = k;
	mem->users = 1;
	ret = ckf_kept_new(img, &mem->kept, err);
	if (ret)
		goto out;
	bytes = ckf_kept_bytes(mem->kept);
	bytes = ckf_align_up(bytes ? bytes : 1, CKF_HUGE_BYTES);
	ret = make_room(k, bytes, l->may_drop, err);
	if (ret)
		goto out;
	mem->bytes = bytes;
	mem->addr = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (mem->addr == MAP_FAILED) {
		mem->addr = NULL;
		ret = ckf_error_set(err, -errno, "cannot map memory: %s", strerror(errno));
		goto out;
	}
	(void)madvise(mem->addr, bytes, MADV_HUGEPAGE);
	(void)madvise(mem->addr, bytes, MADV_DONTDUMP);
	ret = ckf_kept_load(mem->kept, img, mem->addr, k->g->opts.threads, stop_load, l, err);
	if (!ret)
		ret = ckf_cuda_pool_pin(k->g->pool, mem->addr, bytes, err);
	mem->pinned = !ret;
out:
	if (ret)
		gpud_kept_put(mem);
	else
		*out = mem;
	return ret;
}

/* A descriptor of where the image is now, or -errno. */
static int image_dir(const struct gpud_image *im, struct ckf_error *err)
{
	int fd = im->path ? open(im->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
			  : fcntl(im->dir_fd, F_DUPFD_CLOEXEC, 0);

	return fd < 0 ? ckf_error_set(err, -errno, "cannot open the directory: %s", strerror(errno))
		      : fd;
}

/* Opens the image and reads it. With the turn. fd: of its directory. */
static int read_image(struct gpud_kept *k, int fd, struct gpud_load *l, struct gpud_kept_mem **mem,
		      struct ckf_error *err)
{
	struct ckf_image *img = NULL;
	struct ckf_cuda_pool *pool;
	int ret;

	ret = gpud_pool(k->g, &pool, err);
	if (!ret && !ckf_image_probe(fd))
		ret = ckf_error_set(err, -EOPNOTSUPP,
				    "it is no fast image, and only these are kept");
	if (!ret)
		ret = ckf_image_open(fd, &img, err);
	if (!ret)
		ret = mem_new(k, img, l, mem, err);
	ckf_image_close(img);
	if (ret == -ECANCELED && atomic_load(&l->is_short))
		ret = ckf_error_set(err, -ENOMEM, "memory got short while the image was read");
	return ret;
}

/* The end of gpud_image_load(): mem is the image's, or given back. */
static int end_load(struct gpud_kept *k, struct gpud_image *im, int ret, struct gpud_kept_mem *mem,
		    struct ckf_error *err)
{
	const uint64_t now_ns = ckf_now_ns();

	pthread_mutex_lock(&k->lock);
	k->loading = NULL;
	k->load = NULL;
	if (im->gone && (!ret || ret == -ECANCELED))
		ret = ckf_error_set(err, -ESTALE, "the image was dropped while it was read");
	k->counts.reads += !ret;
	k->counts.failures += ret != 0;
	if (!ret) {
		im->mem = mem;
		mem = NULL;
		im->used_ns = im->kept_ns = now_ns;
		im->wanted = false;
	} else {
		im->wanted = im->path || (im->wanted && ret == -EAGAIN);
		im->retry_ns = now_ns + (ret == -EAGAIN ? RECENT_NS : RETRY_NS);
	}
	pthread_mutex_unlock(&k->lock);
	gpud_kept_put(mem);
	return ret;
}

int gpud_image_load(struct gpud_kept *k, struct gpud_image *im, struct gpud_load *l,
		    uint64_t *bytes, struct ckf_error *err)
{
	struct gpud_kept_mem *mem = NULL;
	int fd, ret;

	pthread_mutex_lock(&k->lock);
	k->loading = im;
	k->load = l;
	atomic_store(&l->dropped, im->gone);
	pthread_mutex_unlock(&k->lock);
	fd = image_dir(im, err);
	ret = fd < 0 ? fd : 0;
	if (!ret) {
		gpud_image_set_dir(k, im, fd);
		ret = read_image(k, fd, l, &mem, err);
	}
	*bytes = mem ? mem->bytes : 0;
	return end_load(k, im, ret, mem, err);
}

/* Whether the memory is that of the image as it is now. With the turn. */
static bool is_current(const struct gpud_image *im, const struct gpud_kept_mem *mem)
{
	struct ckf_packs_seen *seen = NULL;
	struct ckf_image *img = NULL;
	int fd = image_dir(im, NULL);
	bool is;

	is = fd >= 0 && !ckf_image_open(fd, &img, NULL) && !ckf_packs_see(img, &seen, NULL) &&
	     ckf_kept_is_of(mem->kept, img, seen);
	free(seen);
	ckf_image_close(img);
	if (fd >= 0)
		close(fd);
	return is;
}

uint64_t gpud_image_check(struct gpud_kept *k, struct gpud_image *im)
{
	struct gpud_kept_mem *mem;
	uint64_t bytes = 0;

	pthread_mutex_lock(&k->lock);
	mem = im->mem;
	if (mem)
		mem->users++;
	pthread_mutex_unlock(&k->lock);
	if (mem && is_current(im, mem))
		bytes = mem->bytes;
	else
		gpud_image_drop_mem(k, im, GPUD_DROPPED_CHANGED);
	gpud_kept_put(mem);
	return bytes;
}

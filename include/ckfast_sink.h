/* SPDX-License-Identifier: MIT */
/*
 * Device memory as something that is filled: what a backend for a kind of GPU has to offer.
 *
 * The loader calls it: ckf_fill_sink() fills device memory from a fast image or from a plain
 * dump through these functions and knows nothing else of GPUs.
 * The backend for CUDA is gpu/cuda/cuda_sink.c, that for AMD's GPUs is in gpu/amd/.
 *
 * The life of a fill:
 *
 *	open		a device, with its slots
 *	alloc		device memory for a target
 *	slot_take	pinned host memory, which the loader reads and decodes into and checks
 *	submit		starts the copies from the slot to the device, and gives the slot back
 *	...
 *	drain		until all copies have arrived
 *	share		a handle, for the process that is to own the memory
 *	close
 *
 * The other way, for a dump: slot_take, fetch, slot_put.
 *
 * Making pinned memory costs more time than copying through it, and small slots stay in the CPU's
 * caches. So a backend makes a fixed number of slots once, and they are used again and again; one
 * open device may serve many fills. One stream is nearly as fast as the link to the device:
 * more of them hide the start of each copy, they do not add speed.
 *
 * Slots may be shared by all devices and all jobs of a process. A thread that waits for a slot must
 * not hold one, or all of them could wait for each other.
 *
 * Threads: open, close, alloc, free and share are for one thread at a time, and close only when no
 * other call is under way. slot_take, slot_put, submit, fetch, clear and drain may be called by
 * many threads at once. A backend starts no thread that outlives close.
 *
 * Errors: 0 or -errno, as in ckfast.h. -ENODEV there is no such device or no driver for
 * it, -ENOMEM no memory on the host or on the device, -EIO the device failed: copies that were
 * under way may have happened or not, and only free and close are of use afterwards. A backend has
 * no other way to report; it never prints.
 */
#ifndef CKF_SINK_H
#define CKF_SINK_H

#include "ckfast.h"

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

struct ckf_sink;     /* an open device; the backend's */
struct ckf_sink_mem; /* a range of device memory; the backend's */

struct ckf_sink_opts {
	size_t size;	     /* at least up to nr_streams */
	const char *device;  /* as the backend names its devices; NULL: the first one */
	uint32_t slot_bytes; /* a multiple of the page size, at least the largest chunk */
	unsigned int nr_slots;
	unsigned int nr_streams; /* at least 1 */
};

/* Pinned host memory. It belongs to the thread that took it, until submit or slot_put. */
struct ckf_sink_slot {
	void *addr; /* page-aligned */
	uint32_t bytes;
	uint32_t nr; /* which one: 0 to nr_slots - 1 */
};

/* One copy out of a slot. Offsets and bytes are multiples of the page size. */
struct ckf_sink_copy {
	struct ckf_sink_mem *mem;
	uint64_t mem_off;  /* bytes into mem */
	uint32_t slot_off; /* bytes into the slot */
	uint32_t bytes;
};

struct ckf_sink_ops {
	const char *name; /* of the backend, for messages */

	int (*open)(const struct ckf_sink_opts *opts, struct ckf_sink **out, struct ckf_error *err);
	/* Waits for copies under way, frees all slots and all memory that was not freed. Takes
	 * NULL. */
	void (*close)(struct ckf_sink *sink);

	/* At least bytes of device memory; its contents are unspecified. */
	int (*alloc)(struct ckf_sink *sink, uint64_t bytes, struct ckf_sink_mem **out,
		     struct ckf_error *err);
	/* Not while copies to it are under way. Memory that was shared stays for those who have it.
	 */
	void (*free)(struct ckf_sink_mem *mem);
	/*
	 * A file descriptor, close-on-exec and the caller's, by which another process maps the same
	 * memory. After drain: what the other process then reads is complete. Or -errno.
	 */
	int (*share)(struct ckf_sink_mem *mem, struct ckf_error *err);

	/* Waits until a slot is free: that is, until the copies out of it have ended. */
	int (*slot_take)(struct ckf_sink *sink, struct ckf_sink_slot *out, struct ckf_error *err);
	/* Gives back a slot that is not submitted after all. */
	void (*slot_put)(struct ckf_sink *sink, const struct ckf_sink_slot *slot);

	/*
	 * Starts nr copies on a stream (0 to nr_streams - 1) and gives the slot back, also when it
	 * fails. copies is read during the call only. Copies of one stream happen in order, those
	 * of different streams in any. The backend refuses ranges outside of mem or slot with
	 * -EINVAL.
	 */
	int (*submit)(struct ckf_sink *sink, unsigned int stream, const struct ckf_sink_slot *slot,
		      const struct ckf_sink_copy *copies, size_t nr, struct ckf_error *err);
	/*
	 * Copies from the device to a slot and waits for it; the slot stays the caller's. The copy
	 * is after those of the same stream that were started before.
	 */
	int (*fetch)(struct ckf_sink *sink, unsigned int stream, const struct ckf_sink_slot *slot,
		     const struct ckf_sink_copy *copy, struct ckf_error *err);
	/* Starts writing zeros to a range, which needs no slot. Order as with submit. */
	int (*clear)(struct ckf_sink *sink, unsigned int stream, struct ckf_sink_mem *mem,
		     uint64_t mem_off, uint64_t bytes, struct ckf_error *err);
	/* Waits until everything that was started has arrived. The first error of any copy. */
	int (*drain)(struct ckf_sink *sink, struct ckf_error *err);

	/* How many streams there are, at least 1. NULL: one. */
	unsigned int (*nr_streams)(const struct ckf_sink *sink);
};

/*
 * Filling device memory through a backend, as ckf_fill() fills other memory. Bytes are read into
 * the backend's slots, or decoded into them, checked there, and copied to the device from there;
 * zero chunks are cleared on the device. No thread and no descriptor is left behind, and no copy
 * under way.
 */

/* Device memory that part of a target's addresses is filled into. */
struct ckf_sink_dest {
	uint64_t start; /* in the target, multiple of the page size */
	uint64_t end;	/* exclusive */
	struct ckf_sink *sink;
	struct ckf_sink_mem *mem; /* its first byte is start's */
};

/*
 * dests: sorted by start, not overlapping; their memory may have any contents. Every op of the
 * target must lie in dests, else -EBADMSG. All of opts counts, but before_workers() is asked once,
 * and nobody watches a fill to which it gives no worker. Returns when all copies have arrived (each
 * sink is drained); every chunk has been checked then. stats->filled_bytes counts bytes copied,
 * zero_bytes bytes cleared.
 *
 * Each thread has one slot at a time and waits for the next while its copies run: two slots for
 * each thread keep both reads and copies going. -EINVAL when a slot is smaller than a chunk.
 */
int ckf_fill_sink(const struct ckf_image *img, const struct ckf_target *t,
		  const struct ckf_sink_ops *ops, const struct ckf_sink_dest *dests,
		  size_t nr_dests, const struct ckf_fill_opts *opts, struct ckf_fill_stats *stats,
		  struct ckf_error *err);

/*
 * Memory of AMD GPUs, by libhsakmt, which is loaded when the first ckf_amd_open() needs it. All
 * GPUs of the machine share one set of pinned slots; each has a queue on each of its SDMA engines.
 * Where the engines cannot be had, the CPU loads and stores through the BAR, if it shows the
 * memory.
 *
 * The objects are another process's: they come as dma-bufs, which KFD gives to who dumps and
 * restores. A process whose own objects KFD has restored cannot use this: libhsakmt wants address
 * spaces of its own.
 *
 * Threads: open and close are for one thread, with nothing else under way; the rest may be called
 * by many at once, for different objects.
 */
struct ckf_amd;
struct ckf_amd_objects;

#define CKF_AMD_STORES (1u << 0) /* no engines, even where there are some */

struct ckf_amd_opts {
	size_t size;	     /* of this struct; 0 in what follows stands for the default */
	uint32_t slot_bytes; /* a multiple of the page size, at least the largest chunk */
	uint32_t flags;	     /* CKF_AMD_ */
	unsigned int nr_slots;
	unsigned int nr_queues;	 /* for each GPU */
	unsigned int timeout_ms; /* after which an engine that does nothing has failed */
};

/* 0 with err set: err says why the engines cannot be used. -EINVAL, -ENOMEM. */
int ckf_amd_open(const struct ckf_amd_opts *opts, struct ckf_amd **out, struct ckf_error *err);
/* All objects were released. Takes NULL. */
void ckf_amd_close(struct ckf_amd *amd);

struct ckf_amd_object {
	uint64_t start; /* in a target, or in a file; a multiple of the page size in a target */
	uint64_t bytes; /* a multiple of the page size */
	int dmabuf;	/* stays the caller's, who may close it after the import */
};

/*
 * objects: sorted by start, not overlapping, of any GPUs. -EOPNOTSUPP the CPU cannot map one of
 * them, and there are no engines; -EINVAL one is shorter than said.
 */
int ckf_amd_import(struct ckf_amd *amd, const struct ckf_amd_object *objects, size_t nr,
		   struct ckf_amd_objects **out, struct ckf_error *err);
/* Takes NULL. */
void ckf_amd_release(struct ckf_amd_objects *objects);

/* Fills the objects as ckf_fill_sink() does. */
int ckf_amd_fill(const struct ckf_amd_objects *objects, const struct ckf_image *img,
		 const struct ckf_target *t, const struct ckf_fill_opts *opts,
		 struct ckf_fill_stats *stats, struct ckf_error *err);
/*
 * Writes the contents of each object to fd, at its start, by so many threads (0: two for each
 * queue). -EIO, or that of the write.
 */
int ckf_amd_save(const struct ckf_amd_objects *objects, int fd, unsigned int threads,
		 struct ckf_error *err);

/*
 * The same by `ckfast gpud`, which has engines, queues and slots ready, and reads the image itself.
 * It is the one that ckf_gpud_connect() finds. Any thread.
 */

/*
 * How many AMD GPUs it serves, or why it cannot be asked to fill their memory: -ENOENT or
 * -ECONNREFUSED it does not run, -EOPNOTSUPP it is of another version, -ENODEV it serves none.
 */
int ckf_amd_gpud_gpus(struct ckf_error *err);
/*
 * Has it fill objects, as for ckf_amd_import(), whose descriptors stay the caller's, with a target
 * of the image in dir_fd. A descriptor for ckf_amd_gpud_wait(); or -errno, and then nothing is
 * written to them, also not later.
 */
int ckf_amd_gpud_fill(int dir_fd, uint64_t target, const struct ckf_amd_object *objects, size_t nr,
		      struct ckf_error *err);
/* Waits until all is filled and checked, and closes fill. stats may be NULL. */
int ckf_amd_gpud_wait(int fill, struct ckf_gpu_fill_stats *stats, struct ckf_error *err);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif

#endif

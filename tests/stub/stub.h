/* SPDX-License-Identifier: MIT */
/*
 * The fake CUDA driver, from inside.
 *
 * Device memory is in memfds, so that it can be exported, counted and found when it leaks; the
 * addresses of device memory are addresses of the process. Streams are queues with a thread each.
 *
 * What makes it fit for checkpoints is one rule: whoever holds stub.lock, or executes an item of a
 * stream, is inside the gate (gate.c). Locking a process for a checkpoint closes the gate, so that
 * afterwards no thread holds anything that another one could need, wherever it is stopped. For the
 * same reason nothing here calls malloc(), unless it is asked to: the application may be stopped
 * inside it.
 *
 * Environment: see tests/stub/README.md.
 */
#ifndef STUB_H
#define STUB_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "gpu/cuda/ckf_cuda_abi.h"
#include "functions.h"

#define STUB_MAX_GPUS 8
#define STUB_PAGE 4096u
#define STUB_GRANULARITY (2u << 20)
#define STUB_MEMFD_NAME "ckfast-stub-gpu" /* and the number of the GPU */
#define STUB_EXPORT __attribute__((visibility("default")))

/* Errors of the driver that ckfast has no use for, by their numbers in the driver's documents. */
enum {
	STUB_ERROR_INVALID_DEVICE = 101,
	STUB_ERROR_ALREADY_MAPPED = 208,
	STUB_ERROR_PEER_ALREADY = 704,
	STUB_ERROR_INVALID_HANDLE = 400,
	STUB_ERROR_ILLEGAL_ADDRESS = 700,
	STUB_ERROR_HOST_ALREADY = 712,
	STUB_ERROR_HOST_NOT = 713,
};

/* What is in the machine. Of the process that asks: at a restore it is that of the caller. */
struct stub_hw {
	uint32_t nr_gpus;
	uint32_t uuid_shift;
	uint64_t gpu_bytes;
};

/* Device memory. It is there as long as a handle or a mapping refers to it. */
struct stub_mem {
	struct stub_mem *next;
	uint64_t handle; /* 0: of cuMemAlloc */
	uint64_t bytes;
	int device;
	int fd; /* -1: small, plain and mapped; or away for a checkpoint */
	bool imported;
	bool exportable;
	uint32_t opens; /* by CUDA IPC */
	uint32_t refs;
	uint32_t maps;
	void *saved; /* its contents during a checkpoint */
};

/* Device memory at an address. */
struct stub_map {
	struct stub_map *next;
	uint64_t addr;
	uint64_t bytes;	 /* as asked for */
	uint64_t mapped; /* whole pages */
	uint64_t id;
	struct stub_mem *mem;
	struct CUctx_st *ctx; /* that it goes away with; NULL: mapped by cuMemMap */
	uint32_t read;	      /* devices that may read, and write, one bit each */
	uint32_t write;
};

/* Reserved addresses, or pinned host memory. */
struct stub_range {
	struct stub_range *next;
	uint64_t addr;
	uint64_t bytes;
	uint32_t flags;
	bool registered; /* host memory of the application */
};

struct CUctx_st {
	struct CUctx_st *next;
	int device;
	bool live;
	bool primary;
	uint32_t users; /* of a primary context */
	uint32_t flags;
	uint32_t peers;
	struct CUstream_st *null_stream;
};

enum stub_kind {
	STUB_COPY,
	STUB_SET,
	STUB_RECORD, /* the time of an event */
	STUB_WAIT,   /* until another stream has got so far */
};

struct stub_item {
	struct stub_item *next;
	enum stub_kind kind;
	uint64_t dst;
	uint64_t src;
	uint64_t bytes;
	uint32_t value;
	uint32_t width;	  /* of a SET's value in bytes */
	int device;	  /* of the stream */
	uint64_t time_ns; /* of submission */
	struct CUevent_st *event;
	struct CUstream_st *dep;
	uint64_t dep_seq;
};

/* Once made, a stream stays in the list and its thread lives; a dead one is used again. */
struct CUstream_st {
	struct CUstream_st *next;
	struct CUctx_st *ctx;
	uint32_t flags;
	uint32_t wake; /* futex: changes with each item */
	bool live;
	bool busy; /* an item is being executed */
	uint64_t submitted;
	uint64_t done;
	uint64_t copies; /* that are not done */
	struct stub_item *head;
	struct stub_item **tail;
};

struct CUevent_st {
	struct CUevent_st *next;
	struct CUctx_st *ctx;
	struct CUstream_st *stream; /* where it was recorded last; NULL: never */
	uint64_t seq;
	uint64_t time_ns;
	uint32_t flags;
	bool live;
};

/* All but the first two fields only under lock, inside the gate. */
struct stub {
	pthread_mutex_t lock;
	uint32_t init;
	struct stub_hw hw;
	uint32_t gpu[STUB_MAX_GPUS]; /* of each device of the process: which one of hw */
	struct CUctx_st *ctxs;
	struct stub_mem *mems;
	struct stub_map *maps;
	struct stub_range *reserved;
	struct stub_range *pinned;
	struct CUstream_st *streams;
	uint64_t next_id;
	CUresult async_error; /* sticks, as with the real one */
	int busy_fd;	      /* keeps CRIU from dumping a process that holds device memory */
};

extern struct stub stub;

/* gate.c */
void stub_gate_enter(void);
void stub_gate_call(void); /* enters for a call of the application */
void stub_gate_leave(void);
bool stub_gate_close(uint64_t deadline_ns); /* false: not empty in time; it is open again */
void stub_gate_open(void);
void stub_futex_wait(uint32_t *word, uint32_t value, uint64_t timeout_ns); /* 0: for ever */
void stub_futex_wake(uint32_t *word);
uint64_t stub_now_ns(void);
void stub_sleep_ns(uint64_t ns);

CUresult stub_get_proc(const char *name, void **out, int version, int *status);

/* table.c: calls of the application, and what is to fail */
CUresult stub_enter(enum stub_fn fn);
void stub_leave(enum stub_fn fn);
/* Calls malloc(), as the real driver does in most of its calls, where the environment asks for it.
 */
void stub_heap_touch(void);

/* The body of an exported function: expr, inside the gate. */
#define STUB_CALL(symbol, expr)                         \
	({                                              \
		CUresult res_ = stub_enter(F_##symbol); \
                                                        \
		if (!res_) {                            \
			res_ = (expr);                  \
			stub_leave(F_##symbol);         \
		}                                       \
		res_;                                   \
	})

/* The same, under the lock. */
#define STUB_LOCKED(symbol, expr)                           \
	STUB_CALL(symbol, ({                                \
			  CUresult locked_;                 \
                                                            \
			  pthread_mutex_lock(&stub.lock);   \
			  locked_ = (expr);                 \
			  pthread_mutex_unlock(&stub.lock); \
			  locked_;                          \
		  }))

/* pool.c: objects of one size, zeroed; NULL when there is no memory. Under the lock. */
struct stub_pool {
	size_t size;
	void *free;
};
void *stub_pool_get(struct stub_pool *pool);
void stub_pool_put(struct stub_pool *pool, void *object);

/* device.c */
struct CUctx_st *stub_ctx(void); /* current one of this thread; NULL: none */
const struct stub_hw *stub_env_hw(void);
const char *stub_env_id(void); /* "" or what tells the GPUs of this test from others */
uint64_t stub_delay_ns(void);
uint32_t stub_together(void); /* GPUs that must have copies at the same time; or 0 */
CUuuid stub_gpu_uuid(const struct stub_hw *hw, uint32_t gpu);
bool stub_busy_fd_open(void);

/* scan.c: bytes of device memory that any process holds on a GPU. */
uint64_t stub_scan_used(uint32_t gpu, const char *id);
/* Bytes that one process holds. */
uint64_t stub_scan_used_by(int pid, uint32_t gpu, const char *id);
void stub_scan_name(char *out, size_t size, uint32_t gpu, const char *id);
/* fn for each name in a directory, until it returns false. */
void stub_scan_dir(const char *path, bool (*fn)(const char *name, void *arg), void *arg);
void stub_scan_lines(const char *path, void (*fn)(const char *line, void *arg), void *arg);

/* mem.c */
int stub_memfd_new(uint32_t gpu, uint64_t bytes, CUresult *res);
struct stub_map *stub_map_find(uint64_t addr);
bool stub_range_ok(uint64_t addr, uint64_t bytes, int device, bool write);
bool stub_is_device(uint64_t addr);
void stub_mem_trim(struct stub_mem *m); /* closes a descriptor that is not needed */
CUresult stub_mem_import(int fd, struct stub_mem **out);
CUresult stub_map_plain(struct stub_mem *mem, uint64_t bytes, struct CUctx_st *ctx,
			CUdeviceptr *out);
void stub_map_free(struct stub_map *m);
void stub_mem_free_ctx(struct CUctx_st *ctx);
struct stub_range *stub_range_find(struct stub_range *list, uint64_t addr);

/* queue.c */
struct CUevent_st *stub_event_of(CUevent event); /* NULL: there is none */
CUresult stub_event_new(CUevent *out, unsigned int flags);

/* stream.c */
CUresult stub_stream_new(struct CUctx_st *ctx, uint32_t flags, struct CUstream_st **out);
CUresult stub_submit(CUstream stream, const struct stub_item *item, bool wait);
void stub_drain_ctx(struct CUctx_st *ctx); /* NULL: all */
bool stub_drain_until(uint64_t deadline_ns);
void stub_streams_end(struct CUctx_st *ctx);
struct CUstream_st *stub_stream_of(CUstream stream); /* NULL: there is none */
CUresult stub_stream_sync(struct CUstream_st *s, uint64_t upto);
/* Whether it has got so far, without waiting. */
bool stub_stream_poll(struct CUstream_st *s, uint64_t upto);
CUresult stub_stream_wait(struct CUstream_st *s, struct CUstream_st *dep, uint64_t seq);
bool stub_thread_start(void *(*fn)(void *), void *arg);

/* ckpt.c */
CUresult stub_ckpt_start(void);

#endif

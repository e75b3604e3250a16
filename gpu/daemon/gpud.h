/* SPDX-License-Identifier: MIT */
/* Private to gpud: what its files share. gpud.c has the life of a connection. */
#ifndef CKF_GPUD_PRIVATE_H
#define CKF_GPUD_PRIVATE_H

#include <pthread.h>
#include <stdatomic.h>
#include <sys/socket.h>

#include "format/ckf_gpu_dump.h"
#include "gpu/suspend/ckf_gpud.h"
#include "ckf_gpud_server.h"
#include "gpu/amd/ckf_amd_sink.h"
#include "gpu/cuda/ckf_cuda_pool.h"
#include "gpu/suspend/ckf_gpud_msg.h"

enum gpud_job_kind {
	GPUD_IDLE,
	GPUD_FILLING,
	GPUD_SAVING,
	GPUD_KEEPING,
	GPUD_FILLING_AMD,
	GPUD_JOB_KINDS,
	/* A checkpoint call: counted like a job, but moves no bytes. */
	GPUD_CALLING = GPUD_JOB_KINDS,
	GPUD_REQUEST_KINDS,
};

/* For the metrics: why requests failed. */
enum gpud_failure {
	GPUD_FAILED_OTHER,
	GPUD_FAILED_CORRUPT,
	GPUD_FAILED_UNSUPPORTED,
	GPUD_FAILED_MEMORY,
	GPUD_FAILED_NO_DEVICE,
	GPUD_FAILED_DEVICE,
	GPUD_FAILED_CANCELLED,
	GPUD_FAILED_NOT_FOUND,
	GPUD_FAILED_NO_SPACE,
	GPUD_FAILED_PROTOCOL,
	GPUD_FAILED_PERMISSION,
	GPUD_FAILED_LIMIT,
	GPUD_FAILURE_KINDS,
};

/* Why clients were refused. */
enum gpud_refusal {
	GPUD_REFUSED_USER,
	GPUD_REFUSED_CONNECTIONS,
	GPUD_REFUSED_REQUESTS,
	GPUD_REFUSED_BYTES,
	GPUD_REFUSAL_KINDS,
};

/* Those with higher numbers do their work, but nobody counts it. */
#define GPUD_COUNTED_GPUS CKF_GPU_MAX_DEVICES

/* Requests of one kind that have ended. */
struct gpud_sum {
	uint64_t nr;
	uint64_t failed;
	uint64_t failures[GPUD_FAILURE_KINDS];
	/* Of those that succeeded. */
	uint64_t bytes;
	uint64_t ns;
	uint64_t gpu_bytes[GPUD_COUNTED_GPUS]; /* GPUD_FILLING_AMD: of AMD's GPUs, else NVIDIA's */
	uint64_t last_bytes;
	uint64_t last_ns;
};

struct gpud_pairs {
	CUcheckpointGpuPair *pairs;
	unsigned int nr;
};

struct gpud_conn {
	struct ckf_gpud *g;
	struct gpud_conn *next; /* under g->lock */
	pthread_t thread;
	int sock;
	struct ucred peer;   /* pid: in gpud's pid namespace; 0: it is in another one */
	uint64_t held_bytes; /* of device memory that the job makes; under g->lock */
	bool greeted;	     /* HELLO is past */
	pthread_mutex_t send_lock;
	struct gpud_pairs pairs; /* for the next RESUME */
	bool bad;		 /* the peer broke the rules: the connection is to be closed */

	/* Of the job. */
	enum gpud_job_kind job;
	int dir_fd;
	uint64_t gpu_bytes[GPUD_COUNTED_GPUS]; /* of this job on each GPU, by ordinal */
	/* Of the job, for the status. */
	atomic_int kind; /* enum gpud_job_kind, of any request that was let in */
	_Atomic uint64_t total_bytes;
	_Atomic uint64_t done_bytes;
	_Atomic uint64_t start_ns;
	/* When the client heard that the job gets on, and how far it was. */
	_Atomic uint64_t said_ns;
	_Atomic uint64_t said_bytes;
};

struct ckf_gpud {
	struct ckf_gpud_opts opts;
	uint64_t start_ns;
	pthread_t opener;
	atomic_bool stopping;

	pthread_mutex_t lock; /* for all below */
	pthread_cond_t cond;  /* the pool is there, or a connection has ended */
	bool opened;
	int open_ret;
	struct ckf_error open_err;
	struct ckf_cuda_pool *pool; /* NULL until opened */
	struct gpud_kept *kept;	    /* has a lock of its own */
	struct gpud_amd *amd;	    /* likewise; before there are connections; NULL: no AMD GPUs */
	struct gpud_conn *conns;
	unsigned int nr_conns;
	struct gpud_sum sums[GPUD_REQUEST_KINDS];
	uint64_t refused[GPUD_REFUSAL_KINDS];
};

/* gpud_conn.c */

/* A client is busy restoring, and may not read for a long time; one that never does ends here. */
#define GPUD_SEND_S 3600
#define GPUD_NS_PER_S 1000000000ull
/* Of threads that read and fill: a restore has few others, and waits for them. */
#define GPUD_FILL_NICE 10

/* Waits until the driver is there. */
int gpud_pool(struct ckf_gpud *g, struct ckf_cuda_pool **pool, struct ckf_error *err);
/* Likewise; *pool is NULL where only AMD GPUs are served. */
int gpud_pool_or_none(struct ckf_gpud *g, struct ckf_cuda_pool **pool, struct ckf_error *err);
/* Sends a message of this connection; any thread. fd: -1 or one that stays the caller's. */
int gpud_send(struct gpud_conn *c, const struct ckf_gpud_msg *m, int fd, struct ckf_error *err);
/* For ckf_cuda_sink_opts: true when the peer is gone or gpud is to stop. arg: struct gpud_conn. */
int gpud_cancelled(void *arg);
/* Something was done: the client, which waits, hears of it now and then. */
void gpud_moves(struct gpud_conn *c);
/* An error of the rules of ckf_gpud.h: -EPROTO, and the connection will be closed. */
int gpud_bad(struct gpud_conn *c, const char *what, struct ckf_error *err);

/* gpud_fill.c, gpud_fill_amd.c, gpud_save.c, gpud_checkpoint.c, gpud_status.c */

/* Requests: 0 when everything was answered, or the error that is still to be answered. fd: the
 * descriptor that came with it, or -1; gpud.c closes it. */
int gpud_fill(struct gpud_conn *c, int fd, struct ckf_error *err);
int gpud_save(struct gpud_conn *c, const struct ckf_gpud_msg *m, int fd, struct ckf_error *err);
int gpud_checkpoint(struct gpud_conn *c, const struct ckf_gpud_msg *m, int fd,
		    struct ckf_error *err);
int gpud_pair(struct gpud_conn *c, const struct ckf_gpud_msg *m, struct ckf_error *err);
int gpud_status(struct gpud_conn *c, struct ckf_error *err);
int gpud_keep(struct gpud_conn *c, int fd, struct ckf_error *err);
int gpud_drop(struct gpud_conn *c, int fd, struct ckf_error *err);
int gpud_amd_gpus(struct gpud_conn *c, struct ckf_error *err);
int gpud_fill_amd(struct gpud_conn *c, const struct ckf_gpud_msg *m, int fd, struct ckf_error *err);

/* gpud_job.c */

extern const char *const gpud_job_names[GPUD_JOB_KINDS];

/*
 * dir_fd: the directory of the image, open until the end of the job. -EDQUOT: the user has too many
 * requests under way. After an error, too, gpud_job_end() follows.
 */
int gpud_job_start(struct gpud_conn *c, enum gpud_job_kind kind, int dir_fd, struct ckf_error *err);
/* Where an open directory is, as gpud's mount namespace names it. */
bool gpud_dir_path(int dir_fd, char *path, size_t bytes);
/* So many bytes of the job are on this GPU. For the thread of the connection. */
void gpud_job_add_gpu(struct gpud_conn *c, unsigned int ordinal, uint64_t bytes);
/* Counts it and logs it. bytes: of device memory. */
void gpud_job_end(struct gpud_conn *c, int ret, uint64_t bytes, const struct ckf_error *err);

/* The same for a checkpoint call. */
int gpud_call_start(struct gpud_conn *c, struct ckf_error *err);
void gpud_call_end(struct gpud_conn *c, int ret);
/* What the metrics call an error, which is not 0. */
enum gpud_failure gpud_failure_of(int ret);
/* A client was refused. */
void gpud_refused(struct ckf_gpud *g, enum gpud_refusal why);

/* What is under way, and who was refused. */
struct gpud_counts {
	unsigned int connections;
	unsigned int in_flight[GPUD_REQUEST_KINDS];
	uint64_t refused[GPUD_REFUSAL_KINDS];
};

/* All counts, of one moment. */
void gpud_count(struct ckf_gpud *g, struct gpud_sum sums[GPUD_REQUEST_KINDS],
		struct gpud_counts *n);

/* gpud_client.c */

/* Root, and the user that gpud runs as. */
bool gpud_client_trusted(const struct ucred *peer);
bool gpud_client_allowed(const struct ckf_gpud *g, int sock, const struct ucred *peer);
/* Gives the calling thread the client's rights on files, where the client has fewer than gpud. */
int gpud_client_become(const struct gpud_conn *c, struct ckf_error *err);
/* -EPERM where the client has no business with that process. */
int gpud_client_check_process(const struct gpud_conn *c, int pid, struct ckf_error *err);
/* A request of the client begins, needs so much memory of GPUs, and ends: -EDQUOT. */
int gpud_client_begin(struct gpud_conn *c, enum gpud_job_kind kind, struct ckf_error *err);
int gpud_client_hold(struct gpud_conn *c, uint64_t bytes, struct ckf_error *err);
void gpud_client_end(struct gpud_conn *c);

/* gpud_kept.c: images that are kept in memory */

struct gpud_kept_mem;
struct ckf_kept;
struct ckf_image;

/* Why an image is no longer kept. */
enum gpud_kept_drop {
	GPUD_DROPPED_ASKED,
	GPUD_DROPPED_CHANGED,
	GPUD_DROPPED_ROOM,  /* for another one */
	GPUD_DROPPED_SHORT, /* the machine's memory is short */
	GPUD_DROP_KINDS,
};

struct gpud_kept_counts {
	unsigned int images; /* in memory */
	uint64_t bytes;	     /* of memory, with what is dropped and still used by fills */
	uint64_t hits;	     /* fills from kept images, and, where images are kept, others */
	uint64_t misses;
	uint64_t reads;
	uint64_t failures;
	uint64_t dropped[GPUD_DROP_KINDS];
};

struct gpud_kept_info {
	const char *path; /* NULL: not known */
	uint64_t bytes;
	uint64_t hits;
	unsigned int fills; /* under way */
	uint64_t age_ns;
	uint64_t idle_ns;
};

/* Makes g->kept, and later starts the thread that reads the images of g->opts. */
int gpud_kept_new(struct ckf_gpud *g, struct ckf_error *err);
int gpud_kept_start(struct gpud_kept *k, struct ckf_error *err);
/* When g is stopping, or was not started. Takes NULL. */
void gpud_kept_free(struct gpud_kept *k);

/*
 * What is kept of the image, whose packs are opened with the rights of the calling thread; or NULL.
 * gpud_kept_put(), which takes NULL, when nothing reads it any more.
 */
struct gpud_kept_mem *gpud_kept_get(struct gpud_kept *k, const struct ckf_image *img);
void gpud_kept_put(struct gpud_kept_mem *mem);
/* A fill found nothing, and has ended. */
void gpud_kept_missed(struct gpud_kept *k);
const struct ckf_kept *gpud_kept_of(const struct gpud_kept_mem *mem);

/* Until the peer of c is gone. *bytes: of memory. -EDQUOT, -ENOMEM, or why it cannot be read. */
int gpud_kept_keep(struct gpud_kept *k, int dir_fd, struct gpud_conn *c, uint64_t *bytes,
		   struct ckf_error *err);
/* dir_fd: -1: all. *nr: how many, also those not read yet. -ENOENT: that one is not kept. */
int gpud_kept_drop_dir(struct gpud_kept *k, int dir_fd, uint64_t *nr, struct ckf_error *err);

void gpud_kept_count(struct gpud_kept *k, struct gpud_kept_counts *counts);
/* fn for each image in memory, with a lock held. */
void gpud_kept_each(struct gpud_kept *k, void (*fn)(void *arg, const struct gpud_kept_info *info),
		    void *arg);

/* gpud_amd.c: AMD's GPUs */

struct gpud_amd;

/* Opens them, and sets g->amd; else says why in the log, if the machine has some. */
int gpud_amd_new(struct ckf_gpud *g, struct ckf_error *err);
/* When no connection is open. Takes NULL. */
void gpud_amd_free(struct gpud_amd *a);
/* For a job, until gpud_amd_put(). a may be NULL. -ENODEV: there are none, or not at this time. */
int gpud_amd_get(struct gpud_amd *a, struct ckf_amd **out, struct ckf_error *err);
void gpud_amd_put(struct gpud_amd *a);

/* gpud_metrics.c */

/* The metrics in Prometheus' text format, for free(). */
int gpud_metrics(struct ckf_gpud *g, char **text, size_t *len, struct ckf_error *err);

/* gpud_status.c */

/* A name without what would have to be escaped in JSON and in metrics. Returns buf. */
const char *gpud_plain(const char *s, char *buf, size_t bytes);

/* gpud_map.c: devices of an image, and those of this machine that they are filled on */

struct gpud_place {
	uint8_t old_uuid[16];
	uint8_t new_uuid[16];
	const struct ckf_gpu_device *wanted; /* of the image */
	unsigned int ordinal;		     /* in the pool, where bytes go there */
	uint64_t bytes;			     /* that go there */
	bool found;			     /* new_uuid and ordinal are */
};

struct gpud_map {
	struct gpud_place *places; /* one for each device of the image */
	unsigned int nr;
	bool moved; /* some device with memory is another one than at the dump */
};

/* The dumps must outlive the map. -ENODEV names the device that is missing and those there are. */
int gpud_map_new(const struct ckf_cuda_pool *pool, struct ckf_gpu_dump *const *dumps,
		 unsigned int nr, struct gpud_map *out, struct ckf_error *err);
void gpud_map_free(struct gpud_map *map);
unsigned int gpud_map_ordinal(const struct gpud_map *map, const struct ckf_gpu_dump *d,
			      uint32_t device);

/* gpud_source.c: the directory that memory is filled from */

struct ckf_image;
struct ckf_target;

struct gpud_part {
	struct ckf_gpu_dump *dump;
	const struct ckf_target *target; /* of a fast image, else NULL */
	int pages_fd;			 /* of a dump that has contents, else -1 */
};

struct gpud_source {
	struct ckf_image *img; /* NULL: a dump */
	struct gpud_part *parts;
	unsigned int nr;
};

/*
 * First the tables of all processes, which takes no time and says how much memory is needed where;
 * then what it takes to read their contents. The caller keeps dir_fd. gpud_source_close() also
 * after an error.
 */
int gpud_source_tables(int dir_fd, struct gpud_source *src, struct ckf_error *err);
int gpud_source_contents(int dir_fd, struct gpud_source *src, struct ckf_error *err);
void gpud_source_close(struct gpud_source *src);

#endif

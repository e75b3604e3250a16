/* SPDX-License-Identifier: MIT */
/*
 * gpud itself, without its command line: contexts and slots, connections and their jobs. What is
 * said to it is in ckf_gpud.h.
 */
#ifndef CKF_GPUD_SERVER_H
#define CKF_GPUD_SERVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/ckf_error.h"

#define CKF_GPUD_SLOT_BYTES (4u << 20) /* larger ones do not stay in the caches of the CPU */
#define CKF_GPUD_MAX_SLOTS 1024

struct ckf_gpud;

/* What happened: a job that has ended, or gpud itself. */
struct ckf_gpud_event {
	bool failed;
	const char *text; /* one line */
	/* Of a job; 0 or NULL where it does not apply or is not known. */
	uint32_t pid;		  /* of the client, in gpud's pid namespace */
	const char *image;	  /* the directory, as gpud's mount namespace names it */
	const unsigned int *gpus; /* ordinals of those that have memory of the job */
	unsigned int nr_gpus;
	uint64_t bytes; /* of device memory */
	uint64_t ns;
};

/* Whose members are served beside root and the user that gpud runs as. */
struct ckf_gpud_group {
	bool set;
	uint32_t gid;
};

struct ckf_gpud_opts {
	size_t size;	       /* sizeof(struct ckf_gpud_opts) */
	unsigned int nr_slots; /* 0: for a daemon, by the CPUs */
	unsigned int threads;  /* of one job at most; 0: the CPUs */
	struct ckf_gpud_group group;
	/* Of one user at a time; 0: no limit. */
	unsigned int client_requests;
	uint64_t client_bytes; /* of device memory that is made for fills under way */
	/* Directories of images that are kept in memory; all stay the caller's. */
	const char *const *keep;
	unsigned int nr_keep;
	uint64_t keep_bytes; /* of all kept images together; 0: as memory allows */
	/* From any thread. May be NULL. The event is valid until it returns. */
	void (*log)(void *arg, const struct ckf_gpud_event *e);
	void *arg;
};

/*
 * Gives up all rights of root but those that a gpud needs, and takes no new ones. For a process
 * without other threads: they keep theirs.
 */
int ckf_gpud_drop_rights(const struct ckf_gpud_group *group, struct ckf_error *err);

/*
 * Starts to open the driver, in a thread: that takes a quarter of a second, in which an image can
 * be read. A driver that does not come is an error of ckf_gpud_warm() and of the jobs.
 */
int ckf_gpud_new(const struct ckf_gpud_opts *opts, struct ckf_gpud **out, struct ckf_error *err);
/* When no connection is open and no other function under way. Takes NULL. */
void ckf_gpud_free(struct ckf_gpud *g);

/* Makes contexts on these devices, or on all with nr 0, and waits for them and for the slots. */
int ckf_gpud_warm(struct ckf_gpud *g, const unsigned int *devices, unsigned int nr,
		  struct ckf_error *err);

/* A socket at a path, and which file it is. */
struct ckf_gpud_listener {
	int fd;
	const char *path; /* the caller's; NULL: the service manager's socket, and file */
	uint64_t dev;
	uint64_t ino;
};

/*
 * Listens at path, mode 0600, in a directory that is made with mode 0700 if it is not there; with a
 * group, these are 0660 and 0710.
 * -EADDRINUSE when somebody answers there already; what a dead gpud left is removed. Of several
 * that do this at the same time one succeeds.
 */
int ckf_gpud_listen(const char *path, const struct ckf_gpud_group *group,
		    struct ckf_gpud_listener *l, struct ckf_error *err);
/*
 * Takes the socket that the service manager has made (LISTEN_FDS), in place of ckf_gpud_listen();
 * l->fd is -1 where it has made none. Before there are threads.
 */
int ckf_gpud_inherit(struct ckf_gpud_listener *l, struct ckf_error *err);
/* Removes the file, if it is still the same, and closes the socket. */
void ckf_gpud_unlisten(struct ckf_gpud_listener *l);

/*
 * Tells the service manager, as sd_notify(3) does, where there is one. Whether it hears is of no
 * consequence.
 */
void ckf_gpud_tell(const char *state);

/*
 * Gives metrics to Prometheus until ckf_gpud_export_end(). where: the path of a file, with a '/',
 * or [ADDR:]PORT for HTTP, on the loopback address unless ADDR is given; it stays the caller's.
 */
struct ckf_gpud_exporter;
bool ckf_gpud_export_valid(const char *where);
int ckf_gpud_export(struct ckf_gpud *g, const char *where, struct ckf_gpud_exporter **out,
		    struct ckf_error *err);
/* Before ckf_gpud_free(). Takes NULL. */
void ckf_gpud_export_end(struct ckf_gpud_exporter *e);

/*
 * Serves listen_fd, each connection in a thread, until stop_fd is readable. Then jobs are stopped,
 * and it returns when the last connection has ended. Both fds stay the caller's. Tells the service
 * manager of both.
 */
int ckf_gpud_run(struct ckf_gpud *g, int listen_fd, int stop_fd, struct ckf_error *err);

/* Serves one connection in the calling thread, and closes it; then waits for those that joined. */
int ckf_gpud_serve(struct ckf_gpud *g, int sock, struct ckf_error *err);

/*
 * The client's side of KEEP and DROP, over a socket of ckf_gpud_connect(). *bytes: of memory that
 * the image takes. dir_fd: -1: all; *nr: how many images were dropped.
 */
int ckf_gpud_keep(int sock, int dir_fd, uint64_t *bytes, struct ckf_error *err);
int ckf_gpud_drop(int sock, int dir_fd, uint64_t *nr, struct ckf_error *err);

#endif

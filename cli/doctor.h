/* SPDX-License-Identifier: MIT */
/*
 * What the parts of ckfast doctor share. Each check adds lines to a report: what was found, and,
 * unless that is fine, what it costs or what to do.
 *
 * Checks read files below doctor.root and ask the kernel, the driver and other programs only by
 * doctor.ask and doctor.run, so that tests can put something else in place of the machine.
 */
#ifndef CKF_DOCTOR_H
#define CKF_DOCTOR_H

#include "ckfast_needs.h"
#include "ckf_cli.h"

enum doctor_state {
	DOCTOR_OK,
	DOCTOR_DEGRADED, /* a restore works, but loses time or leaves something out */
	DOCTOR_BROKEN,	 /* a restore fails until something is done */
};

#define DOCTOR_TEXT_BYTES 512
#define DOCTOR_MAX_LINES 256

struct doctor_line {
	const char *name;
	enum doctor_state state;
	bool image; /* of an image, not of the machine */
	char text[DOCTOR_TEXT_BYTES];
	const char *hint; /* NULL: ok */
	json_t *facts;	  /* numbers for scripts; owned */
};

/* How a program that was run ended. */
enum doctor_end {
	DOCTOR_EXITED,
	DOCTOR_KILLED,	  /* by a signal */
	DOCTOR_TIMED_OUT, /* and was killed */
	DOCTOR_NOT_RUN,
};

struct doctor_output {
	enum doctor_end end;
	int status;	  /* exit code, signal, or errno */
	char text[16384]; /* the start of its stdout, zero-terminated */
};

struct doctor {
	const char *root;	 /* in front of all absolute paths; "" but in tests */
	const char *search_path; /* as $PATH */
	/* Runs a program, without a shell and for at most timeout_ms. */
	void (*run)(char *const argv[], unsigned int timeout_ms, struct doctor_output *out);
	/* Asks one question, of doctor_probe.c, in a process of its own. */
	void (*ask)(const char *question, unsigned int timeout_ms, struct doctor_output *out);
	struct doctor_line lines[DOCTOR_MAX_LINES];
	size_t nr_lines;
	size_t nr_dropped; /* lines beyond those */
	char criu[64];	   /* version of the criu that a container runtime finds, or "" */
	bool image;	   /* the lines that are added are of an image */
};

/* doctor_report.c */

/*
 * Adds a line. hint is a constant, NULL exactly with DOCTOR_OK. Returns the object for facts, which
 * stays the report's, or NULL: json_object_set_new() takes that.
 */
json_t *doctor_add(struct doctor *d, const char *name, enum doctor_state state, const char *hint,
		   const char *fmt, ...) __attribute__((format(printf, 5, 6)));
void doctor_fini(struct doctor *d);
enum doctor_state doctor_worst(const struct doctor *d);
/* Of the machine, with an image, only what is not ok. */
void doctor_print(const struct doctor *d, bool has_image);
/* New reference, or NULL. path: of the image, or NULL. */
json_t *doctor_json(const struct doctor *d, const char *path);

/* doctor_file.c: files below the root. */

#define DOCTOR_PATH_BYTES 4096
/* The name of a file below the root; false when it is too long. */
bool doctor_path(const struct doctor *d, char buf[DOCTOR_PATH_BYTES], const char *path);
/* The start of a file, zero-terminated; false when it cannot be read. */
bool doctor_read(const struct doctor *d, const char *path, char *buf, size_t bytes);
bool doctor_read_u64(const struct doctor *d, const char *path, uint64_t *value);
/* The rest of the line that begins with key, without spaces in front, into buf; false: none. */
bool doctor_field(const char *text, const char *key, char *buf, size_t bytes);
/* The word in brackets, as in "always [madvise] never"; false: there is none. */
bool doctor_choice(const char *text, char *buf, size_t bytes);
bool doctor_exists(const struct doctor *d, const char *path);

/* Effective capabilities, by number as in linux/capability.h. */
bool doctor_has_cap(const struct doctor *d, unsigned int cap);

/* doctor_child.c */

void doctor_run(char *const argv[], unsigned int timeout_ms, struct doctor_output *out);
/* Asks this same program. */
void doctor_ask(const char *question, unsigned int timeout_ms, struct doctor_output *out);
/* The answer, a JSON object, or NULL. New reference. */
json_t *doctor_answer(const struct doctor_output *out);

/* doctor_probe.c: answers a question on stdout. enum ckf_exit. */
int doctor_probe(const struct cli_verb *verb, const char *question);

/* doctor_cuda.c: two of these questions, which load the driver or wait for gpud. */
json_t *doctor_ask_cuda(void);
json_t *doctor_ask_gpud(void);

/* The checks. */
void doctor_check_criu(struct doctor *d);	  /* doctor_criu.c */
void doctor_check_gpu(struct doctor *d);	  /* doctor_gpu.c */
void doctor_check_kernel(struct doctor *d);	  /* doctor_kernel.c */
void doctor_check_limits(struct doctor *d);	  /* doctor_limits.c */
void doctor_check_pid(struct doctor *d, int pid); /* doctor_pid.c */

/* Of a fast image: doctor_image.c, which calls those of doctor_cpu.c and doctor_needs.c. */
void doctor_check_image(struct doctor *d, const char *path, const struct cli_bases *bases);
void doctor_check_cpu(struct doctor *d, const struct ckf_needs *n,
		      const struct ckf_needs_info *info);
void doctor_check_files(struct doctor *d, const struct ckf_needs *n,
			const struct ckf_needs_info *info);
void doctor_check_devices(struct doctor *d, const struct ckf_needs *n,
			  const struct ckf_needs_info *info);
void doctor_check_options(struct doctor *d, const struct ckf_needs_info *info);

/* Whether NVIDIA's driver is there; what it says of its devices: a new reference, or NULL. */
bool doctor_has_gpu(const struct doctor *d);
json_t *doctor_ask_devices(struct doctor *d, struct doctor_output *out);
/* What may be charged, by cgroups and the machine. CKF_UNLIMITED where nothing is known. */
struct doctor_memory {
	struct ckf_memcg_limits limits; /* of cgroups alone */
	uint64_t headroom_bytes;	/* more loses time */
	uint64_t resident_bytes;	/* of more, some is swapped out */
	uint64_t hard_bytes;		/* more fails: memory, and the swap space that is free */
	bool hard_by_group;		/* by a cgroup, not by the machine */
};
void doctor_get_memory(const struct doctor *d, struct doctor_memory *m);
/* The threads that pids cgroups leave. */
uint64_t doctor_threads(const struct doctor *d);
void doctor_check_rights(struct doctor *d); /* doctor_rights.c */

#endif

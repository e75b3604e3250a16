/* SPDX-License-Identifier: MIT */
/*
 * What the verbs of the ckfast command share. One file per verb, cmd_<verb>.c.
 *
 * Results go to stdout, all else to stderr. A verb returns an enum ckf_exit. Strings that come from
 * images and dumps are printed through cli_escape(): a process may have named itself anything.
 */
#ifndef CKF_CLI_H
#define CKF_CLI_H

#include <jansson.h>

#include "ckfast.h"

#define CLI_JSON_VERSION 1

struct cli_verb {
	const char *name;
	const char *args;
	const char *summary;
	const char *help;  /* the lines on the options */
	bool has_archives; /* its operands may also be archives or layouts */
	bool has_program;  /* options end at the first argument: what follows is a program's */
	/* argv[0] is "ckfast VERB", which getopt_long() puts before its messages. */
	int (*run)(const struct cli_verb *verb, int argc, char **argv);
};

extern const struct cli_verb cli_verb_convert;
extern const struct cli_verb cli_verb_inspect;
extern const struct cli_verb cli_verb_verify;
extern const struct cli_verb cli_verb_extract;
extern const struct cli_verb cli_verb_flatten;
extern const struct cli_verb cli_verb_run;
extern const struct cli_verb cli_verb_park;
extern const struct cli_verb cli_verb_unpark;
extern const struct cli_verb cli_verb_gpud;
extern const struct cli_verb cli_verb_keep;
extern const struct cli_verb cli_verb_drop;
extern const struct cli_verb cli_verb_calibrate;
extern const struct cli_verb cli_verb_doctor;
extern const struct cli_verb cli_verb_watch;

/* options.c: values of options. 0, or -EINVAL. */

/* Decimal, with K, M or G for powers of 1024. */
int cli_parse_bytes(const char *s, uint64_t *bytes);
int cli_parse_int(const char *s, int min, int max, int *value);
/* auto, raw, lz4, zstd, bf16. */
int cli_parse_codec(const char *s, int *codec);
/* ram, nvme, ssd, network, or bytes per second as above. */
int cli_parse_profile(const char *s, struct ckf_storage *storage);
/* -EINVAL when the codec has no such level; *min and *max say which it has. */
int cli_check_level(int codec, int level, int *min, int *max);

#define CLI_MAX_THREADS 256
#define CLI_MAX_NICE 19

/* Directories that --base has named. */
struct cli_bases {
	const char **dirs;
	size_t nr;
	char **copies; /* of the arguments, which the names lie in */
	size_t nr_copies;
};

/* DIR[,DIR…]; adds to those that are there. -EINVAL (an empty name) or -ENOMEM. */
int cli_add_bases(const char *s, struct cli_bases *b);
void cli_free_bases(struct cli_bases *b);

/* An option of a verb. One of flag, string, number and take says what it is. */
struct cli_opt {
	const char *name;
	char letter; /* of the short form, or 0 */
	bool *flag;  /* becomes true: there is no value */
	const char **string;
	int *number; /* from min to max */
	int min;
	int max;
	/* Any other value, in optarg. An exit code, by cli_usage(). */
	int (*take)(const struct cli_verb *verb, const struct cli_opt *o);
	void *arg;
};

#define CLI_MAX_OPTS 16

/*
 * Takes the options of argv, by a table that ends with a NULL name; --help is understood for every
 * verb. optind is the first argument then. An exit code.
 */
int cli_take_options(const struct cli_verb *verb, int argc, char **argv, const struct cli_opt *opts,
		     bool *help);

/* Values of options that several verbs have: arg is of the type that is named. */
int cli_take_threads(const struct cli_verb *verb, const struct cli_opt *o); /* unsigned int */
int cli_take_bases(const struct cli_verb *verb, const struct cli_opt *o);   /* struct cli_bases */
int cli_take_profile(const struct cli_verb *verb, const struct cli_opt *o); /* struct ckf_storage */

/* rewrite.c: what extract and flatten have in common, an image as the source and a directory made.
 */

struct cli_rewrite {
	int (*run)(const char *fast, const char *out, const struct ckf_convert_opts *opts,
		   struct ckf_error *err);
	const char *done; /* what is said of the directory when all went well */
	bool in_place;	  /* run takes NULL for out: there is --in-place */
};
/* enum ckf_exit */
int cli_rewrite(const struct cli_verb *verb, int argc, char **argv, const struct cli_rewrite *rw);

/* print.c */

#define CLI_PROFILE_LEN 48
/* "nvme (3.00 GB/s), measured". Returns buf. */
const char *cli_profile(const struct ckf_storage *storage, char buf[CLI_PROFILE_LEN]);
/* New reference, or NULL. */
json_t *cli_profile_json(const struct ckf_storage *storage);

#define CLI_BYTES_LEN 16
/* "17 B", "1.5 GiB". Returns buf. */
const char *cli_bytes(uint64_t bytes, char buf[CLI_BYTES_LEN]);
/* Printable ASCII stays, all else becomes \xNN; cut off at the end of buf. Returns buf. */
const char *cli_escape(const char *s, char *buf, size_t buf_bytes);
#define CLI_PATH_LEN (4 * 4096 + 1)
/* For a path that the user has given: control characters become \xNN. Returns buf. */
const char *cli_path(const char *s, char buf[CLI_PATH_LEN]);
/* A JSON string of any bytes: escaped as above where they are not UTF-8. */
json_t *cli_json_string(const char *s);
/* JSON integers of jansson are signed: what does not fit becomes the largest one. */
json_t *cli_json_u64(uint64_t v);
/* Prints and frees. enum ckf_exit. obj may be NULL (no memory). */
int cli_json_print(const struct cli_verb *verb, json_t *obj);
uint64_t cli_now_ns(void);

/* "ckfast VERB: PATH: message" to stderr. */
void cli_message(const struct cli_verb *verb, const char *path, const char *msg);
/* The same for an error. Returns its exit code. */
int cli_fail(const struct cli_verb *verb, const char *path, int rc, const struct ckf_error *err);
/* The same for an error of a verb that makes to, or NULL, of from. */
int cli_fail_making(const struct cli_verb *verb, const char *from, const char *to, int rc,
		    const struct ckf_error *err);
/* The same for an error of a verb that reads the fast image at path, or makes to of it. */
int cli_fail_image(const struct cli_verb *verb, const char *path, const char *to, int rc,
		   const struct ckf_error *err);
/*
 * The operands of a verb that makes one directory or archive of another, or with in_place replaces
 * one: *to is NULL then. An exit code.
 */
int cli_take_operands(const struct cli_verb *verb, int argc, char **argv, bool in_place,
		      const char **from, const char **to);
/* Message and a pointer to --help. Returns CKF_EXIT_USAGE. */
int cli_usage(const struct cli_verb *verb, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));
/* The page of VERB --help on stdout. Returns CKF_EXIT_OK. */
int cli_help(const struct cli_verb *verb);

/* progress.c */

struct cli_progress {
	bool on; /* stderr is a terminal */
	uint64_t start_ns;
	uint64_t last_ns;
};

void cli_progress_start(struct cli_progress *p, bool quiet);
/* stored_bytes 0: no ratio. Draws only when some time has passed since the last call. */
void cli_progress_draw(struct cli_progress *p, uint64_t done_bytes, uint64_t total_bytes,
		       uint64_t stored_bytes);
/* Takes the bar away. Before anything else is printed. */
void cli_progress_clear(struct cli_progress *p);
/* The progress callback of the library, with a struct cli_progress. */
void cli_progress_show(void *arg, const struct ckf_progress *p);

/* What convert, extract and flatten tell while they run. */
struct cli_ui {
	const struct cli_verb *verb;
	const char *path; /* that warnings are about */
	bool quiet;
	struct cli_progress progress;
};

/* Lets a run tell of its progress and its warnings by ui, and end at SIGINT and SIGTERM. */
void cli_ui_start(struct cli_ui *ui, struct ckf_convert_opts *opts);

/* SIGINT and SIGTERM ask for an end; a second one kills. */
void cli_stop_catch(void);
/* For the stop callback of convert and extract. */
int cli_stop_asked(void *arg);

/* open.c */

/* An fd of the directory, or -errno. */
int cli_open_dir(const char *path, struct ckf_error *err);
#define CLI_OWN_BYTES 4096
/* The path to run this program once more by. Returns buf. */
const char *cli_own_program(char buf[CLI_OWN_BYTES]);
/* The path of the agent for CUDA programs, which is installed beside this program. */
int cli_find_agent(char buf[CLI_OWN_BYTES], struct ckf_error *err);
#endif

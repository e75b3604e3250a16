/* SPDX-License-Identifier: MIT */
/* A machine made of files and of answers, for the checks of ckfast doctor. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "doctor_world.h"

#define MAX_ANSWERS 16

static struct {
	const char *question; /* or the path of a program */
	enum doctor_end end;
	int status;
	const char *text;
} answers[MAX_ANSWERS];
static unsigned int nr_answers;

static char above[32]; /* the directory of the root */
char dw_root[64];
struct doctor *dw_doctor;
unsigned int dw_nr_run;

static const struct {
	const char *path;
	const char *text;
} fine[] = {
	{ "/proc/self/status", "Name:\tckfast\nCapEff:\t000001ffffffffff\nSeccomp:\t0\n"
			       "THP_enabled:\t1\n" },
	{ "/proc/self/limits",
	  "Limit                     Soft Limit           Hard Limit           Units     \n"
	  "Max open files            1024                 20000                files     \n"
	  "Max locked memory         8388608              8388608              bytes     \n" },
	{ "/proc/self/cgroup", "0::/\n" },
	{ "/proc/meminfo", "MemTotal:   8388608 kB\nMemAvailable:    4194304 kB\n" },
	{ "/proc/sys/kernel/io_uring_disabled", "0\n" },
	{ "/proc/sys/kernel/ns_last_pid", "17\n" },
	{ "/proc/sys/vm/max_map_count", "65530\n" },
	{ "/proc/sys/vm/overcommit_memory", "0\n" },
	{ "/sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never\n" },
	{ "/sys/kernel/mm/transparent_hugepage/defrag", "always defer [madvise] never\n" },
	{ "/sys/kernel/mm/transparent_hugepage/shmem_enabled", "always [never] deny\n" },
	{ "/usr/sbin/iptables-restore", "" },
	{ "/usr/sbin/ip6tables-restore", "" },
};

static const char *fine_answer(const char *question)
{
	if (!strcmp(question, "set_tid"))
		return "{\"errno\": 22}";
	if (!strcmp(question, "userfaultfd"))
		return "{\"errno\": 0, \"move\": true}";
	return "{\"errno\": 0}";
}

static bool find_answer(const char *question, struct doctor_output *out)
{
	memset(out, 0, sizeof(*out));
	for (unsigned int i = nr_answers; i--;) {
		if (strcmp(answers[i].question, question))
			continue;
		out->end = answers[i].end;
		out->status = answers[i].status;
		snprintf(out->text, sizeof(out->text), "%s",
			 answers[i].text ? answers[i].text : "");
		return true;
	}
	return false;
}

static void ask(const char *question, unsigned int timeout_ms, struct doctor_output *out)
{
	assert_true(timeout_ms > 0);
	if (!find_answer(question, out))
		snprintf(out->text, sizeof(out->text), "%s", fine_answer(question));
}

static void run(char *const argv[], unsigned int timeout_ms, struct doctor_output *out)
{
	assert_true(timeout_ms > 0);
	dw_nr_run++;
	if (!find_answer(argv[0] + strlen(dw_root), out))
		fail_msg("%s is run", argv[0]);
}

void dw_put(const char *path, const char *text)
{
	char full[DOCTOR_PATH_BYTES];
	FILE *f;

	snprintf(full, sizeof(full), "%s%s", dw_root, path);
	if (!text) {
		assert_false(unlink(full));
		return;
	}
	for (char *p = full + strlen(dw_root) + 1; (p = strchr(p, '/')); *p++ = '/') {
		*p = 0;
		assert_true(!mkdir(full, 0755) || errno == EEXIST);
	}
	f = fopen(full, "w");
	assert_non_null(f);
	assert_true(fputs(text, f) >= 0);
	assert_int_equal(fclose(f), 0);
}

static void add_answer(const char *question, enum doctor_end end, int status, const char *text)
{
	assert_true(nr_answers < MAX_ANSWERS);
	answers[nr_answers].question = question;
	answers[nr_answers].end = end;
	answers[nr_answers].status = status;
	answers[nr_answers++].text = text;
}

void dw_answer(const char *question, enum doctor_end end, int status, const char *text)
{
	if (!question)
		nr_answers = 0;
	else
		add_answer(question, end, status, text);
}

void dw_program(const char *path, enum doctor_end end, int status, const char *text)
{
	add_answer(path, end, status, text);
}

int dw_set_up(void **state)
{
	(void)state;
	umask(022);
	/* Nothing may depend on what is above the root: there, others may write. */
	snprintf(above, sizeof(above), "/tmp/ckf-test-doctor-XXXXXX");
	if (!mkdtemp(above) || chmod(above, 0775))
		return -1;
	snprintf(dw_root, sizeof(dw_root), "%s/root", above);
	if (mkdir(dw_root, 0755))
		return -1;
	for (size_t i = 0; i < sizeof(fine) / sizeof(fine[0]); i++)
		dw_put(fine[i].path, fine[i].text);
	nr_answers = 0;
	dw_nr_run = 0;
	dw_doctor = calloc(1, sizeof(*dw_doctor));
	if (!dw_doctor)
		return -1;
	dw_doctor->root = dw_root;
	dw_doctor->run = run;
	dw_doctor->ask = ask;
	return 0;
}

int dw_tear_down(void **state)
{
	char cmd[128];

	(void)state;
	doctor_fini(dw_doctor);
	free(dw_doctor);
	snprintf(cmd, sizeof(cmd), "rm -rf %s", above);
	return system(cmd);
}

const struct doctor_line *dw_line(const char *name, unsigned int which)
{
	for (size_t i = 0; i < dw_doctor->nr_lines; i++)
		if (!strcmp(dw_doctor->lines[i].name, name) && !which--)
			return &dw_doctor->lines[i];
	return NULL;
}

void dw_expect(void (*check)(struct doctor *d), const char *name, enum doctor_state state,
	       const char *says)
{
	const struct doctor_line *line;

	doctor_fini(dw_doctor);
	check(dw_doctor);
	line = dw_line(name, 0);
	if (!line || dw_line(name, 1))
		fail_msg("not one line about %s", name);
	if (line->state != state || !line->hint != !state)
		fail_msg("%s: state %d, want %d: %s", name, line->state, state, line->text);
	if (!strstr(line->text, says) && !(line->hint && strstr(line->hint, says)))
		fail_msg("%s: \"%s\" is not in: %s; %s", name, says, line->text,
			 line->hint ? line->hint : "");
}

/* SPDX-License-Identifier: MIT */
/* A machine made of files and of answers, for the checks of ckfast doctor. */
#ifndef CKF_TEST_DOCTOR_WORLD_H
#define CKF_TEST_DOCTOR_WORLD_H

#include "cli/doctor.h"

/* The folder that stands for /, and a report of it; made by dw_set_up() with all that is fine. */
extern char dw_root[64];
extern struct doctor *dw_doctor;

int dw_set_up(void **state);
int dw_tear_down(void **state);

/* A file of the machine, with its folders. NULL: takes it away. */
void dw_put(const char *path, const char *text);

/* What the next questions get: question NULL forgets all. text NULL: as on a machine that has
 * everything. */
void dw_answer(const char *question, enum doctor_end end, int status, const char *text);
/* What a program prints when it is run. */
void dw_program(const char *path, enum doctor_end end, int status, const char *text);
/* How many programs were run. */
extern unsigned int dw_nr_run;

/* Runs a check for a new report: it has exactly one line with that name, in that state, in whose
 * text or hint says is. */
void dw_expect(void (*check)(struct doctor *d), const char *name, enum doctor_state state,
	       const char *says);
/* The same of the report as it is; which: the how manieth line of that name, from 0. */
const struct doctor_line *dw_line(const char *name, unsigned int which);

#endif

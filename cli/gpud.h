/* SPDX-License-Identifier: MIT */
/* Private to the verb gpud: its log and its status. */
#ifndef CKF_CLI_GPUD_H
#define CKF_CLI_GPUD_H

#include "gpu/daemon/ckf_gpud_server.h"
#include "ckf_cli.h"

/* gpud_log.c */

struct gpud_log {
	const struct cli_verb *verb;
	const char *name; /* of this gpud, in messages that are not about a job */
	bool json;
};

/* For struct ckf_gpud_opts; arg: struct gpud_log. */
void gpud_log_event(void *arg, const struct ckf_gpud_event *e);
/* gpud itself. */
void gpud_log_info(const struct gpud_log *log, const char *text);
void gpud_log_warning(const struct gpud_log *log, const char *text);
/* The error that ends gpud. Returns its exit code. */
int gpud_log_fail(const struct gpud_log *log, int rc, const struct ckf_error *err);

/* gpud_status.c */

/* Asks the gpud at path, and prints what it says. enum ckf_exit. */
int gpud_status_show(const struct cli_verb *verb, const char *path, bool json);

#endif

/* SPDX-License-Identifier: MIT */
/* Both ends of a connection to a gpud that says what a test wants. */
#ifndef CKF_TEST_GPUD_ENDS_H
#define CKF_TEST_GPUD_ENDS_H

#include "base/ckf_error.h"
#include "gpu/suspend/ckf_gpud.h"

struct ends {
	int client;
	int gpud; /* -1: has hung up */
	struct ckf_error err;
};

/*
 * Of cmocka: *state is a struct ends. A client that waits for an answer which the test has not
 * given ends the test after a minute.
 */
int ends_set_up(void **state);
int ends_tear_down(void **state);

/* What gpud will have said when it is asked. fd goes beside it, -1: none. */
void ends_say(struct ends *e, const struct ckf_gpud_msg *m, int fd);
void ends_answer(struct ends *e, uint32_t op, uint64_t arg, const char *text, int fd);
void ends_hang_up(struct ends *e);

/* The next request that the client has sent. */
struct ckf_gpud_msg ends_heard(struct ends *e);

/* A call has returned want, with that in its message, which is forgotten. */
void ends_expect(struct ends *e, int got, int want, const char *message);

/* How many descriptors this process has. */
unsigned int ends_count_fds(void);

#endif

/* SPDX-License-Identifier: MIT */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/ckf_scm.h"
#include "gpud_ends.h"

#define MAX_FDS 1024
#define MAX_SECONDS 60

int ends_set_up(void **state)
{
	struct ends *e = calloc(1, sizeof(*e));
	int sv[2];

	alarm(MAX_SECONDS);
	if (!e || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv))
		return -1;
	e->client = sv[0];
	e->gpud = sv[1];
	*state = e;
	return 0;
}

int ends_tear_down(void **state)
{
	struct ends *e = *state;

	close(e->client);
	if (e->gpud >= 0)
		close(e->gpud);
	free(e);
	return 0;
}

void ends_say(struct ends *e, const struct ckf_gpud_msg *m, int fd)
{
	assert_int_equal(ckf_scm_send(e->gpud, m, sizeof(*m), fd), 0);
}

void ends_answer(struct ends *e, uint32_t op, uint64_t arg, const char *text, int fd)
{
	struct ckf_gpud_msg m = { .op = op, .arg = arg };

	strncpy(m.text, text, sizeof(m.text) - 1);
	ends_say(e, &m, fd);
}

void ends_hang_up(struct ends *e)
{
	close(e->gpud);
	e->gpud = -1;
}

struct ckf_gpud_msg ends_heard(struct ends *e)
{
	struct ckf_gpud_msg m;
	int fd;

	assert_int_equal(ckf_scm_recv(e->gpud, &m, sizeof(m), &fd), sizeof(m));
	if (fd >= 0)
		close(fd);
	return m;
}

void ends_expect(struct ends *e, int got, int want, const char *message)
{
	assert_int_equal(got, want);
	assert_non_null(strstr(e->err.msg, message));
	e->err = (struct ckf_error){ 0 };
}

unsigned int ends_count_fds(void)
{
	unsigned int nr = 0;

	for (int fd = 0; fd < MAX_FDS; fd++)
		nr += fcntl(fd, F_GETFD) >= 0;
	return nr;
}

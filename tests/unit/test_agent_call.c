/* SPDX-License-Identifier: MIT */
/*
 * Conversations with an agent that does not want them to end. Each of these calls returns; before
 * there were deadlines for whole requests, some of them did not.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "gpu/suspend/ckf_agent_call.h"
#include "base/ckf_scm.h"

#define TIMEOUT_MS 100

/* A process that talks over the other end until it is killed. */
static pid_t start_agent(struct ckf_agent_call *c, void (*talk)(int sock, int ours))
{
	int sv[2];
	pid_t pid;

	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		talk(sv[1], sv[0]);
		_exit(0);
	}
	close(sv[1]);
	memset(c, 0, sizeof(*c));
	c->pid = pid;
	c->sock = sv[0];
	c->timeout_ms = TIMEOUT_MS;
	return pid;
}

static void end_agent(pid_t pid)
{
	assert_int_equal(kill(pid, SIGKILL), 0);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
}

static void talk_for_ever(int sock, int ours)
{
	struct ckf_agent_msg m = { .op = CKF_AGENT_ALLOC, .bytes = 2 << 20 };
	int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

	close(ours);
	for (;;)
		ckf_scm_send(sock, &m, sizeof(m), fd);
}

/* Also a process that holds our end as well: it never sees that we have closed it. */
static void say_nothing(int sock, int ours)
{
	(void)sock;
	(void)ours;
	for (;;)
		pause();
}

static void steal_answers(int sock, int ours)
{
	struct ckf_agent_msg m = { .op = CKF_AGENT_ALLOC };
	int fd;

	for (;;) {
		ckf_scm_send(sock, &m, sizeof(m), sock);
		if (ckf_scm_recv(ours, &m, sizeof(m), &fd) > 0 && fd >= 0)
			close(fd);
	}
}

static void say_rubbish(int sock, int ours)
{
	struct ckf_agent_msg m = { .op = CKF_AGENT_ERROR };

	memset(m.text, '\n', sizeof(m.text));
	ckf_scm_send(sock, &m, sizeof(m), -1);
	say_nothing(sock, ours);
}

/* Only memory comes with a descriptor, and memory without one is none. */
static void say_wrong_things(int sock, int ours)
{
	struct ckf_agent_msg done = { .op = CKF_AGENT_DONE }, memory = { .op = CKF_AGENT_ALLOC };
	struct ckf_agent_msg other = { .op = 99 };

	close(ours);
	ckf_scm_send(sock, &done, sizeof(done), sock);
	ckf_scm_send(sock, &memory, sizeof(memory), -1);
	ckf_scm_send(sock, &other, sizeof(other), sock);
	ckf_scm_send(sock, &memory, sizeof(memory), sock);
	pause();
}

static void say_half(int sock, int ours)
{
	struct ckf_agent_msg m = { .op = CKF_AGENT_ALLOC };

	close(ours);
	ckf_scm_send(sock, &m, sizeof(m) / 2, sock);
	pause();
}

static int open_fds(void)
{
	int n = 0;

	for (int fd = 0; fd < 1024; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

/* All that comes until there is an error. */
static int receive_all(struct ckf_agent_call *c, struct ckf_error *err)
{
	struct ckf_agent_msg m;
	int fd, ret;

	do {
		ret = ckf_agent_recv(c, &m, &fd, err);
		if (fd >= 0)
			close(fd);
	} while (!ret);
	return ret;
}

static void test_agent_that_talks_for_ever(void **state)
{
	struct ckf_agent_msg m = { .op = CKF_AGENT_PARK };
	struct ckf_error err = { 0 };
	struct ckf_agent_call c;
	int before = open_fds();
	pid_t pid;

	(void)state;
	pid = start_agent(&c, talk_for_ever);
	assert_int_equal(ckf_agent_send(&c, &m, -1, &err), 0);
	assert_int_equal(receive_all(&c, &err), -ETIMEDOUT);
	assert_non_null(strstr(err.msg, "has not answered in time"));
	assert_int_equal(ckf_agent_end(&c, NULL), 0);
	assert_int_equal(c.sock, -1);
	assert_int_equal(open_fds(), before);
	end_agent(pid);
}

static void test_agent_that_does_not_read(void **state)
{
	struct ckf_agent_msg m = { .op = CKF_AGENT_UNPARK };
	struct ckf_error err = { 0 };
	struct ckf_agent_call c;
	pid_t pid;
	int ret;

	(void)state;
	pid = start_agent(&c, say_nothing);
	ret = ckf_agent_send(&c, &m, -1, &err);
	m.op = CKF_AGENT_MAP;
	while (!ret)
		ret = ckf_agent_send(&c, &m, -1, &err);
	assert_int_equal(ret, -ETIMEDOUT);
	assert_non_null(strstr(err.msg, "does not read"));
	assert_int_equal(ckf_agent_end(&c, NULL), 0);
	end_agent(pid);
}

static void test_agent_that_takes_our_answers(void **state)
{
	struct ckf_agent_msg m = { .op = CKF_AGENT_PARK };
	struct ckf_error err = { 0 };
	struct ckf_agent_call c;
	pid_t pid;

	(void)state;
	pid = start_agent(&c, steal_answers);
	assert_int_equal(ckf_agent_send(&c, &m, -1, &err), 0);
	assert_int_equal(receive_all(&c, &err), -ETIMEDOUT);
	assert_int_equal(ckf_agent_end(&c, NULL), 0);
	end_agent(pid);
}

static void test_agent_that_says_rubbish(void **state)
{
	struct ckf_agent_msg m = { .op = CKF_AGENT_PARK };
	struct ckf_error err = { 0 };
	struct ckf_agent_call c;
	pid_t pid;

	(void)state;
	pid = start_agent(&c, say_rubbish);
	assert_int_equal(ckf_agent_send(&c, &m, -1, &err), 0);
	assert_int_equal(receive_all(&c, &err), -EIO);
	assert_null(strchr(err.msg, '\n'));
	assert_non_null(strstr(err.msg, "????"));
	assert_int_equal(ckf_agent_end(&c, NULL), 0);
	end_agent(pid);
}

static void test_agent_that_says_wrong_things(void **state)
{
	struct ckf_agent_msg m = { .op = CKF_AGENT_PARK };
	struct ckf_agent_call c;
	int before = open_fds(), fd;
	pid_t pid;

	(void)state;
	pid = start_agent(&c, say_wrong_things);
	assert_int_equal(ckf_agent_send(&c, &m, -1, NULL), 0);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(ckf_agent_recv(&c, &m, &fd, NULL), -EPROTO);
		assert_int_equal(fd, -1);
	}
	assert_int_equal(ckf_agent_done(&c, NULL), -EPROTO);
	ckf_agent_end(&c, NULL);
	assert_int_equal(open_fds(), before);
	end_agent(pid);
}

/* What comes while the conversation ends is closed, too, whatever it is. */
static void test_agent_that_says_half(void **state)
{
	struct ckf_agent_call c;
	int before = open_fds();
	pid_t pid;

	(void)state;
	pid = start_agent(&c, say_half);
	assert_int_equal(ckf_agent_end(&c, NULL), 0);
	assert_int_equal(open_fds(), before);
	end_agent(pid);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_agent_that_talks_for_ever),
		cmocka_unit_test(test_agent_that_does_not_read),
		cmocka_unit_test(test_agent_that_takes_our_answers),
		cmocka_unit_test(test_agent_that_says_rubbish),
		cmocka_unit_test(test_agent_that_says_wrong_things),
		cmocka_unit_test(test_agent_that_says_half),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: MIT */
/*
 * Programs that may hang or be killed: another criu, and this same program asking the kernel what a
 * filter may punish, or a driver that does not answer. Each runs in a process group of its own
 * until a deadline. One that cannot even be killed, since it hangs in the kernel, is left behind.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "doctor.h"

#define NS_PER_MS 1000000ull
#define POLL_MS 20
#define KILL_MS 500 /* for the end of a process that was killed */

extern char **environ;

/* Nothing of the caller's but the environment, where that is asked for. */
static int spawn(const char *path, char *const argv[], char *const envp[], int out_fd, pid_t *pid)
{
	posix_spawn_file_actions_t fa;
	posix_spawnattr_t attr;
	sigset_t none, all;
	int ret;

	sigemptyset(&none);
	sigfillset(&all);
	ret = posix_spawn_file_actions_init(&fa);
	if (ret)
		return ret;
	ret = posix_spawnattr_init(&attr);
	if (ret) {
		posix_spawn_file_actions_destroy(&fa);
		return ret;
	}
	ret = posix_spawn_file_actions_adddup2(&fa, out_fd, STDOUT_FILENO);
	if (!ret)
		ret = posix_spawn_file_actions_addopen(&fa, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
	if (!ret)
		ret = posix_spawn_file_actions_addopen(&fa, STDERR_FILENO, "/dev/null", O_WRONLY,
						       0);
	if (!ret)
		ret = posix_spawn_file_actions_addclosefrom_np(&fa, STDERR_FILENO + 1);
	if (!ret)
		ret = posix_spawnattr_setsigmask(&attr, &none);
	if (!ret)
		ret = posix_spawnattr_setsigdefault(&attr, &all);
	if (!ret)
		ret = posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK |
							      POSIX_SPAWN_SETSIGDEF |
							      POSIX_SPAWN_SETPGROUP);
	if (!ret)
		ret = posix_spawn(pid, path, &fa, &attr, argv, envp);
	posix_spawnattr_destroy(&attr);
	posix_spawn_file_actions_destroy(&fa);
	return ret;
}

/* Takes what there is within POLL_MS; false at the end of the output. What has no room is lost. */
static bool take_output(int fd, struct doctor_output *out, size_t *len)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	char lost[512];
	ssize_t got;

	if (poll(&p, 1, POLL_MS) <= 0)
		return true;
	if (*len + 1 < sizeof(out->text))
		got = read(fd, out->text + *len, sizeof(out->text) - 1 - *len);
	else
		return read(fd, lost, sizeof(lost)) > 0;
	if (got > 0)
		*len += (size_t)got;
	return got > 0;
}

/* Until it has ended, or the time is over. */
static void watch(pid_t pid, int fd, unsigned int timeout_ms, struct doctor_output *out)
{
	uint64_t deadline = cli_now_ns() + timeout_ms * NS_PER_MS;
	bool open = true, killed = false;
	size_t len = 0;
	int status;

	for (;;) {
		if (open)
			open = take_output(fd, out, &len);
		else
			usleep(POLL_MS * 1000 / 10);
		if ((killed || !open) && waitpid(pid, &status, WNOHANG) == pid)
			break;
		if (cli_now_ns() < deadline)
			continue;
		out->end = DOCTOR_TIMED_OUT;
		if (killed)
			return;
		kill(-pid, SIGKILL);
		killed = true;
		deadline = cli_now_ns() + KILL_MS * NS_PER_MS;
	}
	if (killed)
		return;
	out->end = WIFSIGNALED(status) ? DOCTOR_KILLED : DOCTOR_EXITED;
	out->status = WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status);
}

static void run(const char *path, char *const argv[], char *const envp[], unsigned int timeout_ms,
		struct doctor_output *out)
{
	int fds[2], ret;
	pid_t pid;

	memset(out, 0, sizeof(*out));
	out->end = DOCTOR_NOT_RUN;
	if (pipe2(fds, O_CLOEXEC)) {
		out->status = errno;
		return;
	}
	ret = spawn(path, argv, envp, fds[1], &pid);
	close(fds[1]);
	out->status = ret;
	if (!ret)
		watch(pid, fds[0], timeout_ms, out);
	close(fds[0]);
}

void doctor_run(char *const argv[], unsigned int timeout_ms, struct doctor_output *out)
{
	char *const envp[] = { "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C", NULL };

	run(argv[0], argv, envp, timeout_ms, out);
}

void doctor_ask(const char *question, unsigned int timeout_ms, struct doctor_output *out)
{
	char *const argv[] = { "ckfast", "doctor", "--probe", (char *)question, NULL };
	char own[CLI_OWN_BYTES];

	run(cli_own_program(own), argv, environ, timeout_ms, out);
}

json_t *doctor_answer(const struct doctor_output *out)
{
	json_t *obj;

	if (out->end != DOCTOR_EXITED || out->status)
		return NULL;
	obj = json_loads(out->text, 0, NULL);
	if (json_is_object(obj))
		return obj;
	json_decref(obj);
	return NULL;
}

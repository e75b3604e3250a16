/* SPDX-License-Identifier: MIT */
/*
 * reaper SECONDS COMMAND…: runs COMMAND and ends with its exit status, or 124 when it takes longer.
 *
 * Restored processes lose their parent. Here they become children of this program: their ids are
 * free as soon as they end, whatever the machine's init does, and none outlives the test.
 */
#include <sys/prctl.h>
#include <sys/wait.h>

#include "prog.h"

static volatile sig_atomic_t stopped;

static void on_signal(int sig)
{
	stopped = sig;
}

/* Kills a child, if there is one, by the first line of /proc/self/task/TID/children. */
static bool kill_one_child(void)
{
	char path[64];
	int child = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/self/task/%d/children", (int)getpid());
	f = fopen(path, "r");
	if (!f)
		return false;
	if (fscanf(f, "%d", &child) != 1)
		child = 0;
	fclose(f);
	return child > 0 && !kill(child, SIGKILL) && waitpid(child, NULL, 0) == child;
}

/* The wait status of command, or -1 when a signal came first. Takes in all others that end. */
static int wait_for(pid_t command)
{
	for (;;) {
		int status;
		pid_t pid = waitpid(-1, &status, 0);

		if (stopped || (pid < 0 && errno != EINTR))
			return -1;
		if (pid == command)
			return status;
	}
}

int main(int argc, char **argv)
{
	const struct sigaction act = { .sa_handler = on_signal };
	pid_t command;
	int status;

	if (argc < 3) {
		fprintf(stderr, "usage: reaper SECONDS COMMAND...\n");
		return 2;
	}
	if (prctl(PR_SET_CHILD_SUBREAPER, 1))
		die("prctl");
	sigaction(SIGALRM, &act, NULL);
	sigaction(SIGTERM, &act, NULL);
	sigaction(SIGINT, &act, NULL);
	sigaction(SIGHUP, &act, NULL);
	command = fork();
	if (command < 0)
		die("fork");
	if (command == 0) {
		execvp(argv[2], argv + 2);
		die("%s", argv[2]);
	}
	alarm((unsigned int)strtoul(argv[1], NULL, 10));
	status = wait_for(command);
	if (status == -1)
		fprintf(stderr, "stopped after at most %s s\n", argv[1]);
	while (kill_one_child())
		;
	if (status == -1)
		return stopped == SIGALRM ? 124 : 128 + (int)stopped;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

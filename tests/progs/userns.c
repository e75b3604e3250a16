/* SPDX-License-Identifier: MIT */
/*
 * userns PIDFILE ROOT PROGRAM ARGUMENT…: runs a program in namespaces of its own and in the root
 * directory ROOT, as containers do: root there is user 100000 here. Writes its pid to PIDFILE.
 */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <unistd.h>

static char stack[64 << 10];
static int mapped[2];

static void die(const char *what)
{
	fprintf(stderr, "userns: %s: %s\n", what, strerror(errno));
	_exit(1);
}

static void enter(const char *root)
{
	if (mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL))
		die("private");
	if (mount(root, root, NULL, MS_BIND, NULL) || chdir(root))
		die(root);
	if (mount("proc", "proc", "proc", 0, NULL))
		die("proc");
	if (syscall(SYS_pivot_root, ".", ".") || umount2(".", MNT_DETACH) || chdir("/"))
		die("pivot_root");
}

static int run(void *arg)
{
	char **argv = arg;
	char c;

	if (read(mapped[0], &c, 1) != 1)
		die("read");
	close(mapped[0]);
	close(mapped[1]);
	if (setgid(0) || setgroups(0, NULL) || setuid(0))
		die("setuid");
	if (setsid() < 0)
		die("setsid");
	enter(argv[0]);
	for (int fd = 0; fd < 256; fd++)
		close(fd); /* what was opened outside */
	execv(argv[1], argv + 1);
	return 1;
}

static void put(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);

	if (fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text))
		die(path);
	close(fd);
}

int main(int argc, char **argv)
{
	char path[64], text[32];
	pid_t pid;

	if (argc < 4 || pipe(mapped))
		die("userns PIDFILE ROOT PROGRAM ARGUMENT…");
	pid = clone(run, stack + sizeof(stack),
		    CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS |
			    CLONE_NEWNET | SIGCHLD,
		    argv + 2);
	if (pid < 0)
		die("clone");
	snprintf(path, sizeof(path), "/proc/%d/uid_map", pid);
	put(path, "0 100000 65536\n");
	snprintf(path, sizeof(path), "/proc/%d/gid_map", pid);
	put(path, "0 100000 65536\n");
	snprintf(text, sizeof(text), "%d\n", pid);
	put(argv[1], text);
	if (write(mapped[1], "x", 1) != 1)
		die("write");
	return 0;
}

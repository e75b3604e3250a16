// SPDX-License-Identifier: GPL-2.0-only
/*
 * What makes a dump fail, found before device memory is taken.
 *
 * CRIU looks at descriptors, mappings and sockets after the checkpoint of devices. A dump that
 * fails there has moved all device memory for nothing, and the driver cannot always give it back.
 * So the rules that CRIU applies later are applied here to what /proc shows, while all tasks are
 * stopped.
 *
 * What stock CRIU dumps must not be refused. So each rule is one of CRIU's own, which the comment
 * beside it names, and where CRIU's answer depends on more than is known here, CRIU is left to give
 * it. Files of the NVIDIA driver are left out: they are closed by the driver's checkpoint.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/major.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <ckfast.h>

#include "criu-log.h"
#include "autofs.h"
#include "cr_options.h"
#include "external.h"
#include "hugetlb.h"
#include "memfd.h"
#include "plugin.h"
#include "pstree.h"
#include "tty.h"
#include "tun.h"

#include "preflight.h"

#undef LOG_PREFIX
#define LOG_PREFIX "ckfast-cuda: "

#define MAX_LINES 16 /* of the log, for one task: its other faults are of the same kinds */
#define MAX_RANKS 64 /* of NCCL, in one network namespace */
#define MAX_DEPTH 64 /* of the tree */
#define STAT_BLOCK 512
#define DRIVER_DEVICE "/dev/nvidia"
#define IO_URING "anon_inode:[io_uring]"
#define USERFAULTFD "anon_inode:[userfaultfd]"
#define NCCL_SOCKET "@/tmp/nccl-socket-"
/* What CRIU needs --tcp-established for. */
#define CONNECTED                                                                             \
	(1 << TCP_ESTABLISHED | 1 << TCP_SYN_SENT | 1 << TCP_FIN_WAIT1 | 1 << TCP_FIN_WAIT2 | \
	 1 << TCP_CLOSE_WAIT | 1 << TCP_LAST_ACK | 1 << TCP_CLOSING)

struct nccl_rank {
	unsigned long inode; /* of the socket that the rank listens at */
	int rank;
};

/* The task that is looked at. */
struct task {
	int pid;
	int dir;   /* /proc/PID */
	int pidfd; /* or -1: sockets are not looked at */
	unsigned int lines;
	unsigned int connections;
	unsigned int locks;
	bool uring;
	struct nccl_rank ranks[MAX_RANKS];
	unsigned int nr_ranks;
	int rank; /* that it is itself, or -1 */
};

static const struct kind {
	const char *link; /* what it begins with */
	const char *name;
	const char *cure;
} kinds[] = {
	{ IO_URING, "an io_uring",
	  "start the program by 'ckfast run', or with USE_LIBUV=0 (PyTorch's TCPStore), "
	  "UV_USE_IO_URING=0 (libuv)" },
	{ "anon_inode:[perf_event]", "a perf event", "end the profiler in it" },
	{ USERFAULTFD, "a userfaultfd", "have it close that" },
	{ "anon_inode:bpf-prog", "a BPF program", "have it close that" },
	{ "anon_inode:bpf_link", "a BPF link", "have it close that" },
	{ "anon_inode:seccomp notify", "the listener of a seccomp filter", "have it close that" },
	{ "anon_inode:[landlock-ruleset]", "a Landlock ruleset", "have it close that" },
	{ "anon_inode:[fscontext]", "the context of a mount", "have it close that" },
	{ "anon_inode:kvm-vm", "a virtual machine", "dump it without" },
	{ "/dmabuf:", "a DMA buffer", "have it close what it has exported (NCCL_DMABUF_ENABLE=0)" },
};

static bool refused;

static void __attribute__((format(printf, 2, 3))) refuse(struct task *t, const char *fmt, ...)
{
	char text[512];
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	refused = true;
	if (t->lines++ >= MAX_LINES)
		return;
	if (getenv("CKFAST_NO_PREFLIGHT"))
		pr_warn("Process %d %s\n", t->pid, text);
	else
		pr_err("Process %d %s\n", t->pid, text);
}

static FILE *open_text(const struct task *t, const char *name)
{
	int fd = openat(t->dir, name, O_RDONLY | O_CLOEXEC);
	FILE *f = fd < 0 ? NULL : fdopen(fd, "r");

	if (!f && fd >= 0)
		close(fd);
	return f;
}

bool preflight_maps(int pid, const char *name)
{
	char path[64], line[PATH_MAX + 128];
	bool found = false;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/maps", pid);
	f = fopen(path, "re");
	while (f && !found && fgets(line, sizeof(line), f))
		found = strstr(line, name) != NULL;
	if (f)
		fclose(f);
	return found;
}

/* Another plugin may dump files that CRIU itself does not: dump_unsupp_fd(). */
static bool others_dump_files(void)
{
	return !list_empty(&cr_plugin_ctl.hook_chain[CR_PLUGIN_HOOK__DUMP_EXT_FILE]);
}

/*
 * What fdinfo has beside its first three lines. The features of a userfaultfd hold the highest bit
 * once it was set up; before that it can have no memory, and drivers have such ones.
 */
static void read_fdinfo(struct task *t, int fd, unsigned int *locks, bool *set_up)
{
	char name[32], line[256];
	unsigned int features;
	FILE *f;

	*locks = 0;
	*set_up = false;
	snprintf(name, sizeof(name), "fdinfo/%d", fd);
	f = open_text(t, name);
	while (f && fgets(line, sizeof(line), f)) {
		if (!strncmp(line, "lock:\t", 6) && line[6] != '\n')
			(*locks)++;
		if (sscanf(line, "API: %*x:%x:", &features) == 1)
			*set_up = features >> 31;
	}
	if (f)
		fclose(f);
}

/* dump_one_file(): anonymous inodes, and what is of no type at all. */
static void check_kind(struct task *t, const char *fd, const char *link, bool set_up)
{
	if (!strcmp(link, USERFAULTFD) && !set_up)
		return;
	for (size_t i = 0; i < sizeof(kinds) / sizeof(*kinds); i++) {
		const struct kind *k = &kinds[i];

		if (!strncmp(link, k->link, strlen(k->link)))
			refuse(t, "cannot be dumped: it has %s (%s): %s", k->name, fd, k->cure);
	}
	t->uring |= !strcmp(link, IO_URING);
}

/* dump_chrdev(). */
static bool dumps_device(const struct stat *st)
{
	unsigned int number = minor(st->st_rdev);

	switch (major(st->st_rdev)) {
	case MEM_MAJOR:
		return true;
	case MISC_MAJOR:
		if (number == TUN_MINOR || number == AUTOFS_MINOR)
			return true;
		break;
	}
	return is_tty(st->st_rdev, st->st_dev);
}

static void check_device(struct task *t, const char *fd, const char *link, const struct stat *st)
{
	const char *cure = "have it close that";

	if (!strncmp(link, DRIVER_DEVICE, strlen(DRIVER_DEVICE)) ||
	    (S_ISCHR(st->st_mode) && dumps_device(st)))
		return;
	if (!strncmp(link, "/dev/infiniband/", 16))
		cure = "start the program with NCCL_IB_DISABLE=1, or without RDMA";
	else if (!strncmp(link, "/dev/gdrdrv", 11))
		cure = "start the program with NCCL_GDRCOPY_ENABLE=0, or without GDRCopy";
	refuse(t, "cannot be dumped: it has the device %s (%s): %s", link, fd, cure);
}

/* dump_ghost_remap(), which is for files that have a path and no name. */
static void check_ghost(struct task *t, const char *link, const struct stat *st)
{
	unsigned long long bytes = (unsigned long long)st->st_blocks * STAT_BLOCK;
	int unused;

	if (!S_ISREG(st->st_mode) || st->st_nlink || *link != '/' || bytes <= opts.ghost_limit)
		return;
	/* Dumped in another way: memfds; hugetlbfs; files that the caller has promised to provide.
	 */
	if (is_memfd(st->st_dev) || is_hugetlb_dev(st->st_dev, &unused) ||
	    !list_empty(&opts.external))
		return;
	refuse(t,
	       "cannot be dumped: the file %s has no name and %llu bytes: use --ghost-limit "
	       "%lluM%s",
	       link, bytes, (bytes + (1 << 20) - 1) >> 20,
	       strncmp(link, "/dev/shm/nccl-", 14)
		       ? ""
		       : ", or start the program with NCCL_SHM_DISABLE=1");
}

/* can_dump_inet_sk(). */
static void check_inet(struct task *t, const char *fd, int sock)
{
	struct tcp_info info = {};
	socklen_t len = sizeof(int);
	int type, protocol;

	if (getsockopt(sock, SOL_SOCKET, SO_TYPE, &type, &len) ||
	    getsockopt(sock, SOL_SOCKET, SO_PROTOCOL, &protocol, &len) || type != SOCK_STREAM ||
	    protocol != IPPROTO_TCP)
		return;
	len = sizeof(info);
	if (getsockopt(sock, IPPROTO_TCP, TCP_INFO, &info, &len))
		return;
	if (info.tcpi_state == TCP_LISTEN && info.tcpi_unacked && !opts.tcp_skip_in_flight)
		refuse(t,
		       "cannot be dumped: connections wait to be accepted (%s): use "
		       "--skip-in-flight, or try again",
		       fd);
	if (!opts.tcp_established_ok && !opts.tcp_close)
		t->connections += (CONNECTED >> info.tcpi_state) & 1;
}

/* dump_socket(). */
static void check_socket(struct task *t, const char *fd, int number, unsigned long inode)
{
	socklen_t len = sizeof(int);
	int sock, family;

	for (unsigned int i = 0; i < t->nr_ranks; i++) {
		if (t->ranks[i].inode == inode)
			t->rank = t->ranks[i].rank;
	}
	sock = t->pidfd < 0 ? -1 : (int)syscall(SYS_pidfd_getfd, t->pidfd, number, 0);
	if (sock < 0)
		return;
	if (!getsockopt(sock, SOL_SOCKET, SO_DOMAIN, &family, &len)) {
		if (family == AF_INET || family == AF_INET6)
			check_inet(t, fd, sock);
		else if (family != AF_UNIX && family != AF_PACKET && family != AF_NETLINK)
			refuse(t,
			       "cannot be dumped: it has a socket of family %d (%s): have it close "
			       "that",
			       family, fd);
	}
	close(sock);
}

static void check_fd(struct task *t, int fds, const char *name)
{
	char link[PATH_MAX], fd[32];
	int number = atoi(name);
	unsigned int locks;
	struct stat st;
	bool set_up;
	ssize_t len = readlinkat(fds, name, link, sizeof(link) - 1);

	if (len < 0 || fstatat(fds, name, &st, 0))
		return;
	link[len] = '\0';
	snprintf(fd, sizeof(fd), "descriptor %d", number);
	read_fdinfo(t, number, &locks, &set_up);
	/* dump_file_locks() */
	if (!opts.handle_file_locks)
		t->locks += locks;
	if (S_ISSOCK(st.st_mode))
		check_socket(t, fd, number, (unsigned long)st.st_ino);
	else if (S_ISREG(st.st_mode) && *link == '/')
		check_ghost(t, link, &st);
	else if (!others_dump_files() && (S_ISCHR(st.st_mode) || S_ISBLK(st.st_mode)))
		check_device(t, fd, link, &st);
	else if (!others_dump_files())
		check_kind(t, fd, link, set_up);
}

static void check_fds(struct task *t)
{
	int fds = openat(t->dir, "fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fds < 0 ? NULL : fdopendir(fds);
	struct dirent *de;

	while (dir && (de = readdir(dir))) {
		if (*de->d_name != '.')
			check_fd(t, fds, de->d_name);
	}
	if (dir)
		closedir(dir);
	else if (fds >= 0)
		close(fds);
	if (t->connections)
		refuse(t,
		       "cannot be dumped: it has %u connections of TCP: use --tcp-established or "
		       "--tcp-close",
		       t->connections);
	if (t->locks)
		refuse(t, "cannot be dumped: it holds %u locks of files: use --file-locks",
		       t->locks);
}

/* vma_get_mapfile() for rings, whose descriptor may be closed; dump_filemap() for files. */
static void check_maps(struct task *t)
{
	static const char deleted[] = " (deleted)\n";
	char line[PATH_MAX + 128], range[64], name[96];
	FILE *f = open_text(t, "maps");
	dev_t last_dev = 0;
	ino_t last_ino = 0;
	struct stat st;
	char *path;
	size_t len;

	while (f && fgets(line, sizeof(line), f)) {
		len = strlen(line);
		if (!t->uring && strstr(line, " " IO_URING))
			check_kind(t, "mapped", IO_URING, false);
		path = strchr(line, '/');
		if (!path || len < sizeof(deleted) ||
		    strcmp(line + len - sizeof(deleted) + 1, deleted))
			continue;
		line[len - 1] = '\0';
		snprintf(range, sizeof(range), "%.*s", (int)strcspn(line, " "), line);
		snprintf(name, sizeof(name), "map_files/%s", range);
		/* Neighbours are parts of one file. */
		if (fstatat(t->dir, name, &st, 0) ||
		    (st.st_dev == last_dev && st.st_ino == last_ino))
			continue;
		last_dev = st.st_dev;
		last_ino = st.st_ino;
		check_ghost(t, path, &st);
	}
	if (f)
		fclose(f);
}

/* The ranks of NCCL on this machine: each has a socket by which it is asked for memory. */
static void read_ranks(struct task *t)
{
	FILE *f = open_text(t, "net/unix");
	char line[512];
	char *name;

	while (f && t->nr_ranks < MAX_RANKS && fgets(line, sizeof(line), f)) {
		struct nccl_rank *r = &t->ranks[t->nr_ranks];

		name = strstr(line, NCCL_SOCKET);
		if (name && sscanf(line, "%*s %*s %*s %*s %*s %*s %lu", &r->inode) == 1 &&
		    sscanf(name + strlen(NCCL_SOCKET), "%d-", &r->rank) == 1)
			t->nr_ranks++;
	}
	if (f)
		fclose(f);
}

/* Whether a variable that the task was started with is set, and to 0 or to something else. */
static bool has_setting(struct task *t, const char *name, bool zero)
{
	FILE *f = open_text(t, "environ");
	size_t len = strlen(name), cap = 0;
	char *var = NULL;
	bool found = false;

	while (f && !found && getdelim(&var, &cap, '\0', f) > 0)
		found = !strncmp(var, name, len) && var[len] == '=' &&
			(atoi(var + len + 1) == 0) == zero;
	free(var);
	if (f)
		fclose(f);
	return found;
}

/*
 * The driver checkpoints a process that has memory of another one, by CUDA IPC or by the virtual
 * memory API, and then fails to restore it, for good. Nothing of that is to be seen from outside.
 * But two ranks of NCCL on one machine have such memory, unless they were told not to. With the
 * agent, the agent knows.
 */
static void check_nccl(struct task *t, const struct task *other)
{
	if (has_setting(t, "NCCL_P2P_DISABLE", false) &&
	    (has_setting(t, "NCCL_CUMEM_ENABLE", true) ||
	     has_setting(t, "NCCL_CUMEM_HOST_ENABLE", true) ||
	     has_setting(t, "NCCL_SHM_DISABLE", false)))
		return;
	refuse(t,
	       "has GPU memory of process %d by NCCL, which the driver cannot restore: start the "
	       "programs by "
	       "'ckfast run', or with NCCL_P2P_DISABLE=1 NCCL_CUMEM_ENABLE=0",
	       other->pid);
}

/* dump_pstree() */
static void check_session(struct task *t)
{
	if (!opts.shell_job && getsid(t->pid) != t->pid)
		refuse(t, "cannot be dumped: it is not the leader of its session: use --shell-job, "
			  "or start it by setsid");
}

static void check_task(struct task *t, struct task *first_rank)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d", t->pid);
	t->dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (t->dir < 0)
		return;
	t->pidfd = (int)syscall(SYS_pidfd_open, t->pid, 0);
	read_ranks(t);
	if (t->pid == root_item->pid->real)
		check_session(t);
	check_fds(t);
	check_maps(t);
	if (t->rank >= 0 && !preflight_maps(t->pid, CKF_AGENT_LIBRARY)) {
		if (first_rank->pid && first_rank->rank != t->rank)
			check_nccl(t, first_rank);
		else
			*first_rank = *t;
	}
	if (t->pidfd >= 0)
		close(t->pidfd);
	close(t->dir);
}

/* Of the tree below pid. One that is deeper is still asked when it is stopped. */
static int add_pids(int pid, unsigned int depth, pid_t **pids, size_t *nr)
{
	char path[64], name[96];
	struct dirent *de;
	int child, ret = 0;
	pid_t *more;
	DIR *dir;
	FILE *f;

	more = realloc(*pids, (*nr + 1) * sizeof(*more));
	if (!more)
		return -1;
	*pids = more;
	more[(*nr)++] = pid;
	snprintf(path, sizeof(path), "/proc/%d/task", pid);
	dir = depth ? opendir(path) : NULL;
	while (dir && !ret && (de = readdir(dir))) {
		snprintf(name, sizeof(name), "%s/%d/children", path, atoi(de->d_name));
		f = fopen(name, "re");
		while (f && !ret && fscanf(f, "%d", &child) == 1)
			ret = add_pids(child, depth - 1, pids, nr);
		if (f)
			fclose(f);
	}
	if (dir)
		closedir(dir);
	return ret;
}

static void check_shared(const pid_t *pids, size_t nr)
{
	struct ckf_error err = {};

	if (!ckf_gpu_check_shared(pids, nr, &err))
		return;
	refused = true;
	if (getenv("CKFAST_NO_PREFLIGHT"))
		pr_warn("Not to be dumped: %s\n", err.msg);
	else
		pr_err("Not to be dumped: %s\n", err.msg);
}

/* For the log. */
static int outcome(void)
{
	if (refused && getenv("CKFAST_NO_PREFLIGHT"))
		return 0;
	if (refused)
		pr_err("Nothing was taken from the processes: they go on\n");
	return refused ? -1 : 0;
}

int preflight_shared(int pid)
{
	pid_t *pids = NULL;
	size_t nr = 0;
	int ret;

	refused = false;
	ret = add_pids(pid, MAX_DEPTH, &pids, &nr);
	if (ret)
		pr_err("No memory for a list of processes\n");
	else
		check_shared(pids, nr);
	free(pids);
	return ret ? ret : outcome();
}

/* They may have begun to share something since they were asked. */
static int check_shared_again(void)
{
	struct pstree_item *item;
	pid_t *pids;
	size_t nr = 0;

	for_each_pstree_item(item)
		nr++;
	pids = calloc(nr, sizeof(*pids));
	if (!pids)
		return -1;
	nr = 0;
	for_each_pstree_item(item)
		pids[nr++] = item->pid->real;
	check_shared(pids, nr);
	free(pids);
	return 0;
}

int preflight_tree(void)
{
	struct task first_rank = { 0 };
	struct pstree_item *item;

	refused = false;
	for_each_pstree_item(item) {
		struct task t = { .pid = item->pid->real, .dir = -1, .pidfd = -1, .rank = -1 };

		if (task_alive(item))
			check_task(&t, &first_rank);
	}
	return check_shared_again() ? -1 : outcome();
}

/* SPDX-License-Identifier: MIT */
/*
 * changes DIR: a process that changes one thing about itself each time it gets SIGUSR1, and writes
 * to DIR/report what that is, as snapshot.py calls it, "unsupported" if the kernel
 * cannot, and "end" after the last.
 */
#include <grp.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <linux/securebits.h>
#include <pthread.h>
#include <sched.h>
#include <stddef.h>
#include <sys/eventfd.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>

#include "prog.h"

static const char *dir;
static char *area; /* of three pages */
static int file;
static timer_t timer;
static bool unsupported; /* the last change, by this kernel */

static void need(int ret, const char *what)
{
	if (ret < 0)
		die("%s", what);
}

static void write_proc(const char *name, const char *value)
{
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/proc/self/%s", name);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, value, strlen(value)) < 0)
		die("%s", path);
	close(fd);
}

static void act(int sig, void (*handler)(int), int flags, int masked)
{
	struct sigaction sa = { .sa_handler = handler, .sa_flags = flags };

	sigemptyset(&sa.sa_mask);
	if (masked)
		sigaddset(&sa.sa_mask, masked);
	need(sigaction(sig, &sa, NULL), "sigaction");
}

static void on_signal(int sig)
{
	(void)sig;
}

static void catch_signal(void)
{
	act(SIGUSR2, on_signal, 0, 0);
}

static void change_flags(void)
{
	act(SIGUSR2, on_signal, SA_NODEFER, 0);
}

static void change_mask(void)
{
	act(SIGUSR2, on_signal, SA_NODEFER, SIGHUP);
}

static void ignore_signal(void)
{
	act(SIGHUP, SIG_IGN, 0, 0);
}

static void block_signal(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	need(sigprocmask(SIG_BLOCK, &set, NULL), "sigprocmask");
}

static void pend_for_thread(void)
{
	need((int)syscall(SYS_tgkill, getpid(), getpid(), SIGTERM), "tgkill");
}

static void pend_for_process(void)
{
	need(kill(getpid(), SIGTERM), "kill");
}

static void set_altstack(void)
{
	const stack_t stack = { .ss_sp = area, .ss_size = 3 * PAGE };

	need(sigaltstack(&stack, NULL), "sigaltstack");
}

static void start_itimer(void)
{
	const struct itimerval t = { { 1000, 0 }, { 1000, 0 } };

	need(setitimer(ITIMER_REAL, &t, NULL), "setitimer");
}

static void make_timer(void)
{
	struct sigevent event = { .sigev_notify = SIGEV_NONE };

	need(timer_create(CLOCK_MONOTONIC, &event, &timer), "timer_create");
}

static void set_limit(void)
{
	const struct rlimit limit = { 100, 200 };

	need(setrlimit(RLIMIT_NOFILE, &limit), "setrlimit");
}

static void set_nice(void)
{
	need(setpriority(PRIO_PROCESS, 0, getpriority(PRIO_PROCESS, 0) + 1), "setpriority");
}

static void set_policy(void)
{
	const struct sched_param param = { 0 };

	need(sched_setscheduler(0, SCHED_BATCH, &param), "sched_setscheduler");
}

static void set_affinity(void)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(0, &set);
	need(sched_setaffinity(0, sizeof(set), &set), "sched_setaffinity");
}

static void set_io_priority(void)
{
	need((int)syscall(SYS_ioprio_set, 1, 0, 3 << 13), "ioprio_set");
}

static void set_comm(void)
{
	need(prctl(PR_SET_NAME, "changed"), "PR_SET_NAME");
}

static void set_slack(void)
{
	need(prctl(PR_SET_TIMERSLACK, 123456), "PR_SET_TIMERSLACK");
}

static void set_pdeathsig(void)
{
	need(prctl(PR_SET_PDEATHSIG, SIGCHLD), "PR_SET_PDEATHSIG");
}

static void set_subreaper(void)
{
	need(prctl(PR_SET_CHILD_SUBREAPER, 1), "PR_SET_CHILD_SUBREAPER");
}

static void disable_thp(void)
{
	need(prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0), "PR_SET_THP_DISABLE");
}

static void set_tid_address(void)
{
	need((int)syscall(SYS_set_tid_address, area), "set_tid_address");
}

static void set_robust_list(void)
{
	need((int)syscall(SYS_set_robust_list, area, 24), "set_robust_list");
}

static void set_membarrier(void)
{
	/* MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED */
	need((int)syscall(SYS_membarrier, 1 << 4, 0), "membarrier");
}

static void filter_memory(void)
{
	write_proc("coredump_filter", "0x7f");
}

static void score_oom(void)
{
	write_proc("oom_score_adj", "77");
}

static void set_umask(void)
{
	umask(0137);
}

static void set_personality(void)
{
	need(personality(ADDR_NO_RANDOMIZE), "personality");
}

static void open_more(void)
{
	need(eventfd(7, 0), "eventfd");
}

static void move_position(void)
{
	need((int)lseek(file, 3, SEEK_SET), "lseek");
}

static void close_on_exec(void)
{
	need(fcntl(file, F_SETFD, FD_CLOEXEC), "F_SETFD");
}

static void append_file(void)
{
	need(fcntl(file, F_SETFL, O_APPEND), "F_SETFL");
}

static void replace_file(void)
{
	int other = open("/dev/zero", O_RDWR | O_APPEND | O_CLOEXEC);

	need(other, "/dev/zero");
	need(dup3(other, file, O_CLOEXEC), "dup3");
	close(other);
}

static void change_dir(void)
{
	need(chdir("/"), "chdir");
}

static void protect(void)
{
	need(mprotect(area, PAGE, PROT_READ), "mprotect");
}

static void advise(void)
{
	need(madvise(area + PAGE, PAGE, MADV_DONTFORK), "madvise");
}

static void account(void)
{
	/* Not accountable, as long as it has never been writable. */
	char *copy = mmap(area, PAGE, PROT_READ, MAP_PRIVATE | MAP_FIXED, file, 0);

	if (copy == MAP_FAILED)
		die("mmap");
}

static void name_memory(void)
{
	/* A choice of the kernel's configuration. */
	if (prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME, area + PAGE, PAGE, "name"))
		unsupported = true;
}

static void unmap(void)
{
	need(munmap(area + 2 * PAGE, PAGE), "munmap");
}

static void grow_heap(void)
{
	if (sbrk(PAGE) == (void *)-1)
		die("sbrk");
}

static void leave_rseq(void)
{
	/* Where glibc registers it, with its flag RSEQ_FLAG_UNREGISTER and its signature. */
	extern const ptrdiff_t __rseq_offset;
	char *self = __builtin_thread_pointer();

	need((int)syscall(SYS_rseq, self + __rseq_offset, 32, 1, 0x53053053), "rseq");
}

static void *thread_main(void *arg)
{
	(void)arg;
	for (;;)
		pause();
	return NULL;
}

static void start_thread(void)
{
	pthread_t thread;

	if (pthread_create(&thread, NULL, thread_main, NULL))
		die("pthread_create");
}

static void be_undumpable(void)
{
	need(prctl(PR_SET_DUMPABLE, 0), "PR_SET_DUMPABLE");
}

static void keep_caps(void)
{
	need(prctl(PR_SET_KEEPCAPS, 1), "PR_SET_KEEPCAPS");
}

static void set_securebits(void)
{
	need(prctl(PR_SET_SECUREBITS, SECBIT_NOROOT), "PR_SET_SECUREBITS");
}

static void join_groups(void)
{
	const gid_t groups[] = { 7, 8 };

	need(setgroups(2, groups), "setgroups");
}

static void set_gid(void)
{
	need((int)syscall(SYS_setresgid, -1, -1, 9), "setresgid");
}

static void drop_bound(void)
{
	need(prctl(PR_CAPBSET_DROP, 5), "PR_CAPBSET_DROP");
}

static void need_no_privs(void)
{
	need(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "PR_SET_NO_NEW_PRIVS");
}

static void filter_calls(void)
{
	struct sock_filter allow = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	const struct sock_fprog prog = { 1, &allow };

	need(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog), "PR_SET_SECCOMP");
}

static void set_uid(void)
{
	need((int)syscall(SYS_setresuid, -1, -1, 9), "setresuid");
}

static const struct {
	const char *what;
	void (*change)(void);
} changes[] = {
	{ "SigCgt", catch_signal },
	{ "action of signal 12", change_flags },
	{ "action of signal 12", change_mask },
	{ "SigIgn", ignore_signal },
	{ "blocked", block_signal },
	{ "SigPnd", pend_for_thread },
	{ "ShdPnd", pend_for_process },
	{ "sigaltstack", set_altstack },
	{ "itimer real", start_itimer },
	{ "timers", make_timer },
	{ "Max open files", set_limit },
	{ "nice", set_nice },
	{ "policy", set_policy },
	{ "Cpus_allowed", set_affinity },
	{ "I/O priority", set_io_priority },
	{ "comm", set_comm },
	{ "timer slack", set_slack },
	{ "pdeathsig", set_pdeathsig },
	{ "child subreaper", set_subreaper },
	{ "THP_enabled", disable_thp },
	{ "tid address", set_tid_address },
	{ "robust list", set_robust_list },
	{ "membarrier", set_membarrier },
	{ "coredump_filter", filter_memory },
	{ "oom_score_adj", score_oom },
	{ "Umask", set_umask },
	{ "personality", set_personality },
	{ "descriptor", open_more },
	{ "descriptor", move_position },
	{ "descriptor", close_on_exec },
	{ "descriptor", append_file },
	{ "descriptor", replace_file },
	{ "cwd", change_dir },
	{ "permissions", protect },
	{ "flag dc", advise },
	{ "flag ac", account },
	{ "name", name_memory },
	{ "mapped", unmap },
	{ "brk", grow_heap },
	{ "rseq", leave_rseq },
	{ "threads", start_thread },
	{ "dumpable", be_undumpable },
	{ "keepcaps", keep_caps },
	{ "securebits", set_securebits },
	{ "Groups", join_groups },
	{ "Gid", set_gid },
	{ "CapBnd", drop_bound },
	{ "NoNewPrivs", need_no_privs },
	{ "Seccomp", filter_calls },
	{ "Uid", set_uid },
};

int main(int argc, char **argv)
{
	if (argc != 2) {
		fprintf(stderr, "usage: changes DIR\n");
		return 2;
	}
	dir = argv[1];
	area = mmap(NULL, 3 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	file = open("/proc/self/exe", O_RDONLY);
	if (area == MAP_FAILED || file < 0)
		die("setup");
	trigger_init();
	report(dir, "ready", "OK");
	for (size_t i = 0; i < sizeof(changes) / sizeof(changes[0]); i++) {
		trigger_wait();
		changes[i].change();
		report(dir, "report", "%s", unsupported ? "unsupported" : changes[i].what);
		unsupported = false;
	}
	trigger_wait();
	report(dir, "report", "end");
	for (;;)
		trigger_wait();
}

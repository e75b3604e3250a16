/* SPDX-License-Identifier: MIT */
/*
 * taskstate PID…: prints what only a task itself can ask the kernel about its state. Every thread
 * is stopped, made to call the kernel, and let go as it was. One line each: TID NAME VALUE.
 *
 * All signals are blocked while a thread calls, and its seccomp filters are suspended. Results that
 * go to memory go below the red zone of its stack, whose bytes are put back.
 */
#include <dirent.h>
#include <linux/filter.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>

#include "prog.h"

#define RED_ZONE 128
#define SCRATCH_BYTES 256
#define KERNEL_SIGSET_BYTES 8
#define NR_SIGNALS 64

struct victim {
	pid_t tid;
	int mem;
	uint64_t syscall_addr; /* of a syscall instruction */
	struct user_regs_struct regs;
	uint64_t scratch; /* its address */
	char saved[SCRATCH_BYTES];
	uint64_t blocked;
};

/* As the kernel has it. */
struct action {
	uint64_t handler;
	uint64_t flags;
	uint64_t restorer;
	uint64_t mask;
};

static void say(const struct victim *v, const char *name, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

static void say(const struct victim *v, const char *name, const char *fmt, ...)
{
	va_list ap;

	printf("%d %s ", (int)v->tid, name);
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	putchar('\n');
}

static void read_mem(const struct victim *v, uint64_t addr, void *p, size_t bytes)
{
	if (pread(v->mem, p, bytes, (off_t)addr) != (ssize_t)bytes)
		die("task %d: reading its memory", v->tid);
}

static void write_mem(const struct victim *v, uint64_t addr, const void *p, size_t bytes)
{
	if (pwrite(v->mem, p, bytes, (off_t)addr) != (ssize_t)bytes)
		die("task %d: writing its memory", v->tid);
}

static void wait_stop(const struct victim *v)
{
	int status;

	if (waitpid(v->tid, &status, __WALL) != v->tid || !WIFSTOPPED(status))
		die("task %d did not stop", v->tid);
}

/* The address of a syscall instruction: the vdso of every process has one. */
static uint64_t find_syscall(const struct victim *v)
{
	char path[64], line[512], insn[2];
	unsigned long start = 0, end = 0;
	FILE *maps;

	snprintf(path, sizeof(path), "/proc/%d/maps", (int)v->tid);
	maps = fopen(path, "r");
	if (!maps)
		die("%s", path);
	while (fgets(line, sizeof(line), maps)) {
		if (strstr(line, "[vdso]") && sscanf(line, "%lx-%lx", &start, &end) == 2)
			break;
		start = end = 0;
	}
	fclose(maps);
	for (; start + 1 < end; start++) {
		read_mem(v, start, insn, sizeof(insn));
		if (!memcmp(insn, "\x0f\x05", 2))
			return start;
	}
	die("task %d has no vdso with a syscall instruction", v->tid);
}

/* Lets it run to the next stop. */
static void resume(const struct victim *v, enum __ptrace_request how)
{
	if (ptrace(how, v->tid, NULL, NULL))
		die("task %d: ptrace", v->tid);
	wait_stop(v);
}

/* Not by PTRACE_SINGLESTEP: its SIGTRAP would reset an action that ignores SIGTRAP. */
static int64_t call(const struct victim *v, long nr, uint64_t a, uint64_t b, uint64_t c, uint64_t d)
{
	struct user_regs_struct regs = v->regs;

	regs.rip = v->syscall_addr;
	regs.rax = (uint64_t)nr;
	regs.orig_rax = (uint64_t)-1;
	regs.rdi = a;
	regs.rsi = b;
	regs.rdx = c;
	regs.r10 = d;
	regs.r8 = 0;
	regs.r9 = 0;
	if (ptrace(PTRACE_SETREGS, v->tid, NULL, &regs))
		die("task %d: ptrace", v->tid);
	resume(v, PTRACE_SYSCALL);
	resume(v, PTRACE_SYSCALL);
	if (ptrace(PTRACE_GETREGS, v->tid, NULL, &regs))
		die("task %d: its registers", v->tid);
	return (int64_t)regs.rax;
}

static void stop(struct victim *v)
{
	const uint64_t all = ~(uint64_t)0;

	if (ptrace(PTRACE_SEIZE, v->tid, NULL, PTRACE_O_SUSPEND_SECCOMP) &&
	    ptrace(PTRACE_SEIZE, v->tid, NULL, NULL))
		die("task %d: PTRACE_SEIZE", v->tid);
	if (ptrace(PTRACE_INTERRUPT, v->tid, NULL, NULL))
		die("task %d: PTRACE_INTERRUPT", v->tid);
	wait_stop(v);
	if (ptrace(PTRACE_GETREGS, v->tid, NULL, &v->regs) ||
	    ptrace(PTRACE_GETSIGMASK, v->tid, KERNEL_SIGSET_BYTES, &v->blocked) ||
	    ptrace(PTRACE_SETSIGMASK, v->tid, KERNEL_SIGSET_BYTES, &all))
		die("task %d: ptrace", v->tid);
	v->syscall_addr = find_syscall(v);
	v->scratch = (v->regs.rsp - RED_ZONE - SCRATCH_BYTES) & ~(uint64_t)15;
	read_mem(v, v->scratch, v->saved, sizeof(v->saved));
}

/* From a stop like the first, so that the kernel restarts the call that was interrupted. */
static void let_go(const struct victim *v)
{
	write_mem(v, v->scratch, v->saved, sizeof(v->saved));
	if (ptrace(PTRACE_INTERRUPT, v->tid, NULL, NULL))
		die("task %d: PTRACE_INTERRUPT", v->tid);
	resume(v, PTRACE_CONT);
	if (ptrace(PTRACE_SETREGS, v->tid, NULL, &v->regs) ||
	    ptrace(PTRACE_SETSIGMASK, v->tid, KERNEL_SIGSET_BYTES, &v->blocked) ||
	    ptrace(PTRACE_DETACH, v->tid, NULL, NULL))
		die("task %d: ptrace", v->tid);
}

static void say_actions(const struct victim *v)
{
	for (uint64_t sig = 1; sig <= NR_SIGNALS; sig++) {
		struct action act;
		char name[32];

		if (call(v, SYS_rt_sigaction, sig, 0, v->scratch, KERNEL_SIGSET_BYTES))
			continue;
		read_mem(v, v->scratch, &act, sizeof(act));
		snprintf(name, sizeof(name), "action-of-signal-%u", (unsigned int)sig);
		say(v, name, "handler=%lx,flags=%lx,restorer=%lx,mask=%016lx", act.handler,
		    act.flags, act.restorer, act.mask);
	}
}

/* Intervals, and whether they run: the time that is left goes on. */
static void say_itimers(const struct victim *v)
{
	static const char *const names[] = { "itimer-real", "itimer-virtual", "itimer-prof" };

	for (uint64_t which = 0; which < 3; which++) {
		uint64_t t[4];

		if (call(v, SYS_getitimer, which, v->scratch, 0, 0))
			continue;
		read_mem(v, v->scratch, t, sizeof(t));
		say(v, names[which], "interval=%lu.%06lu,%s", t[0], t[1],
		    t[2] || t[3] ? "armed" : "off");
	}
}

/* What prctl() returns, or, with by_memory, writes to the first argument. */
static void say_prctls(const struct victim *v)
{
	static const struct {
		const char *name;
		int option;
		int by_memory; /* bytes */
		uint64_t arg;
	} known[] = {
		{ "pdeathsig", PR_GET_PDEATHSIG, 4, 0 },
		{ "dumpable", PR_GET_DUMPABLE, 0, 0 },
		{ "keepcaps", PR_GET_KEEPCAPS, 0, 0 },
		{ "securebits", PR_GET_SECUREBITS, 0, 0 },
		{ "tsc", PR_GET_TSC, 4, 0 },
		{ "mce-kill", PR_MCE_KILL_GET, 0, 0 },
		{ "child-subreaper", PR_GET_CHILD_SUBREAPER, 4, 0 },
		{ "tid-address", PR_GET_TID_ADDRESS, 8, 0 },
		{ "thp-disable", PR_GET_THP_DISABLE, 0, 0 },
		{ "io-flusher", 58 /* PR_GET_IO_FLUSHER */, 0, 0 },
		{ "mdwe", 66 /* PR_GET_MDWE */, 0, 0 },
		{ "memory-merge", 68 /* PR_GET_MEMORY_MERGE */, 0, 0 },
		{ "store-bypass", PR_GET_SPECULATION_CTRL, 0, PR_SPEC_STORE_BYPASS },
		{ "indirect-branch", PR_GET_SPECULATION_CTRL, 0, PR_SPEC_INDIRECT_BRANCH },
	};

	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
		uint64_t arg = known[i].by_memory ? v->scratch : known[i].arg, value = 0;
		int64_t ret = call(v, SYS_prctl, (uint64_t)known[i].option, arg, 0, 0);

		if (!ret && known[i].by_memory)
			read_mem(v, v->scratch, &value, (size_t)known[i].by_memory);
		else
			value = (uint64_t)ret;
		say(v, known[i].name, "%#lx", value);
	}
}

static void say_filters(const struct victim *v)
{
	struct sock_filter insns[BPF_MAXINSNS];
	char name[32];

	for (unsigned long i = 0;; i++) {
		long nr = ptrace(PTRACE_SECCOMP_GET_FILTER, v->tid, i, insns);
		const uint8_t *p = (const uint8_t *)insns;
		uint64_t hash = 14695981039346656037u;

		if (nr < 0)
			return;
		for (size_t b = 0; b < (size_t)nr * sizeof(insns[0]); b++)
			hash = (hash ^ p[b]) * 1099511628211u;
		snprintf(name, sizeof(name), "seccomp-filter-%lu", i);
		say(v, name, "%ld,%016lx", nr, hash);
	}
}

static void say_rest(const struct victim *v)
{
	struct __ptrace_rseq_configuration rseq = { 0 };
	struct user_fpregs_struct fp;
	uint64_t out[3];
	int32_t mode = 0;
	size_t bytes;
	void *head;

	say(v, "blocked", "%016lx", v->blocked);
	say(v, "fs-base", "%llx", v->regs.fs_base);
	say(v, "gs-base", "%llx", v->regs.gs_base);
	say(v, "brk", "%lx", (unsigned long)call(v, SYS_brk, 0, 0, 0, 0));
	if (!call(v, SYS_sigaltstack, 0, v->scratch, 0, 0)) {
		read_mem(v, v->scratch, out, sizeof(out));
		say(v, "sigaltstack", "%lx,flags=%x,%lu", out[0], (unsigned int)out[1], out[2]);
	}
	if (!call(v, SYS_get_mempolicy, v->scratch, 0, 0, 0)) {
		read_mem(v, v->scratch, &mode, sizeof(mode));
		say(v, "mempolicy", "%x", (unsigned int)mode);
	}
	/* MEMBARRIER_CMD_GET_REGISTRATIONS, from Linux 6.3 on. */
	say(v, "membarrier", "%lx", (unsigned long)call(v, SYS_membarrier, 1 << 9, 0, 0, 0));
	if (!syscall(SYS_get_robust_list, v->tid, &head, &bytes))
		say(v, "robust-list", "%p,%zu", head, bytes);
	if (ptrace(PTRACE_GET_RSEQ_CONFIGURATION, v->tid, sizeof(rseq), &rseq) > 0)
		say(v, "rseq", "%llx,%u,%x", (unsigned long long)rseq.rseq_abi_pointer,
		    rseq.rseq_abi_size, rseq.signature);
	if (!ptrace(PTRACE_GETFPREGS, v->tid, NULL, &fp))
		say(v, "fpu-control", "cwd=%x,mxcsr=%x", fp.cwd, fp.mxcsr & ~0x3fu);
}

static void say_thread(pid_t pid, pid_t tid)
{
	struct victim v = { .tid = tid };
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/mem", (int)pid);
	v.mem = open(path, O_RDWR | O_CLOEXEC);
	if (v.mem < 0)
		die("%s", path);
	stop(&v);
	say_rest(&v);
	say_prctls(&v);
	say_filters(&v);
	if (pid == tid) {
		say_actions(&v);
		say_itimers(&v);
	}
	let_go(&v);
	close(v.mem);
}

int main(int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		char path[64];
		struct dirent *e;
		DIR *tasks;

		snprintf(path, sizeof(path), "/proc/%s/task", argv[i]);
		tasks = opendir(path);
		if (!tasks)
			die("%s", path);
		while ((e = readdir(tasks))) {
			if (e->d_name[0] != '.')
				say_thread(atoi(argv[i]), atoi(e->d_name));
		}
		closedir(tasks);
	}
	return fflush(stdout) ? 1 : 0;
}

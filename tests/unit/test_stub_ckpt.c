/* SPDX-License-Identifier: MIT */
/*
 * The checkpoint calls of the fake CUDA driver, on a process whose threads are stopped by ptrace as
 * CRIU stops them: only the restore thread runs, and then an agent's thread that makes CUDA calls
 * while the application's threads are still stopped.
 */
#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>

#include "stub_child.h"

#define MAX_THREADS 64
#define BYTES (4 * MIB)
#define NR_LATE 16

/* Between the test and the process that it stops. */
struct shared {
	uint32_t ready;
	uint32_t agent_tid;
	uint32_t child;	   /* that it has forked */
	uint32_t agent_go; /* counts up */
	uint32_t agent_done;
	uint32_t finish;
	uint32_t rounds; /* of the busy thread */
	uint32_t hold;	 /* it is to wait outside of the driver */
	uint32_t held;
	uint32_t queue; /* make the copies that nobody waits for */
	uint32_t queued;
	char late[NR_LATE]; /* where they go */
};

static struct shared *sh;

static uint32_t get(const uint32_t *word)
{
	return __atomic_load_n(word, __ATOMIC_SEQ_CST);
}

static void put(uint32_t *word, uint32_t value)
{
	__atomic_store_n(word, value, __ATOMIC_SEQ_CST);
}

/* False after 20 s. */
static bool wait_word(const uint32_t *word, uint32_t value)
{
	for (int i = 0; i < 20000 && get(word) != value; i++)
		usleep(1000);
	return get(word) == value;
}

struct app {
	CUcontext ctx;
	CUmemGenericAllocationHandle handle; /* the agent's */
	CUdeviceptr addr;
	CUdeviceptr plain;
	CUstream stream;
};

static struct app app;

/* What an agent does: its memory goes away and comes back, with copies and events beside it. */
static void agent_park(void)
{
	static char buf[4096];
	CUevent e;
	int fd;

	OK(cu.ctx_synchronize());
	OK(cu.event_create(&e, CU_EVENT_DISABLE_TIMING));
	OK(cu.memcpy_dtoh_async(buf, app.addr + BYTES - sizeof(buf), sizeof(buf), app.stream));
	OK(cu.event_record(e, app.stream));
	while (cu.event_query(e) == CUDA_ERROR_NOT_READY)
		usleep(1000);
	CHECK(buf[0] && !memcmp(buf, buf + 1, sizeof(buf) - 1));
	OK(cu.mem_export(&fd, app.handle, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0));
	close(fd);
	OK(cu.mem_unmap(app.addr, BYTES));
	OK(cu.mem_release(app.handle));
}

static void agent_unpark(void)
{
	const CUmemAccessDesc access = { .location = { CU_MEM_LOCATION_TYPE_DEVICE, 0 },
					 .flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE };

	OK(cu.mem_create(&app.handle, BYTES, stub_prop(0), 0));
	OK(cu.mem_map(app.addr, BYTES, 0, app.handle, 0));
	OK(cu.mem_set_access(app.addr, BYTES, &access, 1));
	OK(cu.memset_d8_async(app.addr, 0x44, BYTES, NULL));
	OK(cu.ctx_synchronize());
}

static void *agent_thread(void *arg)
{
	OK(cu.ctx_set_current(app.ctx));
	put(&sh->agent_tid, (uint32_t)syscall(SYS_gettid));
	for (uint32_t round = 1;; round++) {
		while (get(&sh->agent_go) != round)
			usleep(1000);
		if (round % 2)
			agent_park();
		else
			agent_unpark();
		put(&sh->agent_done, round);
	}
	return arg;
}

/* Is inside a call nearly all the time. */
static void *busy_thread(void *arg)
{
	CUdeviceptr a;
	char buf[4096];

	OK(cu.ctx_set_current(app.ctx));
	OK(cu.mem_alloc(&a, sizeof(buf)));
	while (!get(&sh->finish)) {
		uint32_t i = get(&sh->rounds) + 1;

		while (get(&sh->hold)) {
			put(&sh->held, 1);
			usleep(1000);
		}
		put(&sh->held, 0);
		OK(cu.memset_d8_async(a, (unsigned char)i, sizeof(buf), NULL));
		OK(cu.memcpy_dtoh_async(buf, a, sizeof(buf), NULL));
		OK(cu.stream_synchronize(NULL));
		CHECK(buf[0] == (char)i && !memcmp(buf, buf + 1, sizeof(buf) - 1));
		put(&sh->rounds, i);
	}
	return arg;
}

static pid_t start_idle(void)
{
	pid_t pid = fork();

	CHECK(pid >= 0);
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (;;)
			pause();
	}
	return pid;
}

static void app_main(void)
{
	pthread_t agent, busy;
	static char buf[BYTES];

	stub_load_init();
	OK(cu.ctx_get_current(&app.ctx));
	sh->child = (uint32_t)start_idle();
	OK(cu.stream_create(&app.stream, CU_STREAM_NON_BLOCKING));
	OK(cu.mem_alloc(&app.plain, BYTES));
	OK(cu.memset_d8_async(app.plain, 0x22, BYTES, NULL));
	OK(cu.mem_create(&app.handle, BYTES, stub_prop(0), 0));
	app.addr = stub_map(app.handle, BYTES, 0);
	OK(cu.memset_d8_async(app.addr, 0x33, BYTES, NULL));
	OK(cu.ctx_synchronize());
	CHECK(!pthread_create(&agent, NULL, agent_thread, NULL));
	CHECK(!pthread_create(&busy, NULL, busy_thread, NULL));
	while (!get(&sh->rounds) || !get(&sh->agent_tid))
		usleep(1000);
	put(&sh->ready, 1);
	while (!get(&sh->finish)) {
		if (get(&sh->queue) && !get(&sh->queued)) {
			for (int i = 0; i < NR_LATE; i++)
				OK(cu.memcpy_dtoh_async(&sh->late[i], app.plain + (size_t)i, 1,
							app.stream));
			put(&sh->queued, 1);
		}
		usleep(1000);
	}
	CHECK(!pthread_join(busy, NULL));
	CHECK(!kill((pid_t)sh->child, SIGKILL) && waitpid((pid_t)sh->child, NULL, 0) > 0);
	OK(cu.memcpy_dtoh_async(buf, app.plain, BYTES, NULL));
	OK(cu.ctx_synchronize());
	CHECK(buf[0] == 0x22 && !memcmp(buf, buf + 1, BYTES - 1));
	OK(cu.memcpy_dtoh_async(buf, app.addr, BYTES, NULL));
	OK(cu.ctx_synchronize());
	CHECK(buf[0] == (get(&sh->agent_done) ? 0x44 : 0x33)); /* unparked, or never parked */
	CHECK(!memcmp(buf, buf + 1, BYTES - 1));
}

static pid_t start_app(void)
{
	pid_t pid;

	sh = mmap(NULL, sizeof(*sh), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	CHECK(sh != MAP_FAILED);
	pid = fork();
	CHECK(pid >= 0);
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		app_main();
		_exit(0);
	}
	CHECK(wait_word(&sh->ready, 1));
	return pid;
}

static void finish_app(pid_t pid)
{
	int status;

	put(&sh->finish, 1);
	CHECK(waitpid(pid, &status, 0) == pid);
	CHECK(!status);
}

/* Is there memory or a descriptor of a GPU in the process? */
static bool has_gpu(pid_t pid)
{
	char line[512], path[64];
	bool found = false;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/maps", (int)pid);
	f = fopen(path, "r");
	CHECK(f);
	while (fgets(line, sizeof(line), f))
		found |= strstr(line, "ckfast-stub-gpu") != NULL;
	fclose(f);
	for (int fd = 3; fd < 64; fd++) {
		snprintf(path, sizeof(path), "/proc/%d/fd/%d", (int)pid, fd);
		memset(line, 0, sizeof(line));
		if (readlink(path, line, sizeof(line) - 1) > 0)
			found |= strstr(line, "ckfast-stub-gpu") || strstr(line, "userfaultfd");
	}
	return found;
}

static int state_of(pid_t pid)
{
	int state = -1;

	OK(cu.checkpoint_get_state(pid, &state));
	return state;
}

static void order(void)
{
	pid_t pid = start_app(), child;
	uint32_t rounds;
	int state, tid, status;

	stub_load();
	GIVES(CUDA_ERROR_NOT_INITIALIZED, cu.checkpoint_get_state((int)sh->child, &state));
	OK(cu.checkpoint_get_restore_tid(pid, &tid));
	CHECK(tid > 0 && tid != pid);
	/* By the id of a thread, as CRIU's plugin asks. */
	OK(cu.checkpoint_get_state(tid, &state));
	CHECK(state_of(pid) == CU_PROCESS_STATE_RUNNING);
	GIVES(CUDA_ERROR_ILLEGAL_STATE, cu.checkpoint_checkpoint(pid, NULL));
	GIVES(CUDA_ERROR_ILLEGAL_STATE, cu.checkpoint_unlock(pid, NULL));
	put(&sh->queue, 1);
	CHECK(wait_word(&sh->queued, 1));
	OK(cu.checkpoint_lock(pid, NULL));
	for (int i = 0; i < NR_LATE; i++)
		CHECK(sh->late[i] == 0x22);
	CHECK(state_of(pid) == CU_PROCESS_STATE_LOCKED);
	GIVES(CUDA_ERROR_ILLEGAL_STATE, cu.checkpoint_lock(pid, NULL));
	GIVES(CUDA_ERROR_ILLEGAL_STATE, cu.checkpoint_restore(pid, NULL));
	rounds = get(&sh->rounds);
	usleep(50000);
	CHECK(get(&sh->rounds) <= rounds + 1);
	rounds = get(&sh->rounds);
	CHECK(has_gpu(pid));
	OK(cu.checkpoint_checkpoint(pid, NULL));
	CHECK(!has_gpu(pid));
	CHECK(state_of(pid) == CU_PROCESS_STATE_CHECKPOINTED);
	GIVES(CUDA_ERROR_ILLEGAL_STATE, cu.checkpoint_unlock(pid, NULL));
	CHECK(get(&sh->rounds) == rounds);
	OK(cu.checkpoint_restore(pid, NULL));
	OK(cu.checkpoint_unlock(pid, NULL));
	while (get(&sh->rounds) < rounds + 5)
		usleep(1000);
	finish_app(pid);

	/* No CUDA, and no process. */
	child = start_idle();
	GIVES(CUDA_ERROR_NOT_INITIALIZED, cu.checkpoint_get_state(child, &state));
	GIVES(CUDA_ERROR_NOT_INITIALIZED, cu.checkpoint_get_restore_tid(child, &tid));
	GIVES(CUDA_ERROR_NOT_INITIALIZED, cu.checkpoint_lock(child, NULL));
	CHECK(!kill(child, SIGKILL) && waitpid(child, &status, 0) == child);
	GIVES(CUDA_ERROR_INVALID_VALUE, cu.checkpoint_get_state(child, &state));
}

static void test_order(void **state)
{
	(void)state;
	in_child("CKF_STUB_DELAY_US=20000", order);
}

/* A call that takes longer than the timeout: nothing has changed. */
static void lock_timeout(void)
{
	const CUcheckpointLockArgs soon = { .timeoutMs = 20 };
	pid_t pid = start_app();
	CUresult ret;

	stub_load();
	/* The call may be about to end. */
	while (!(ret = cu.checkpoint_lock(pid, &soon)))
		OK(cu.checkpoint_unlock(pid, NULL));
	CHECK(ret == CUDA_ERROR_NOT_READY);
	CHECK(state_of(pid) == CU_PROCESS_STATE_RUNNING);
	OK(cu.checkpoint_lock(pid, NULL));
	OK(cu.checkpoint_unlock(pid, NULL));
	finish_app(pid);
}

static void test_lock_timeout(void **state)
{
	(void)state;
	in_child("CKF_STUB_DELAY_US=100000", lock_timeout);
}

static int tids[MAX_THREADS];
static int nr_tids;

static void stop_thread(int tid)
{
	CHECK(!ptrace(PTRACE_INTERRUPT, tid, NULL, NULL));
	CHECK(waitpid(tid, NULL, __WALL) == tid);
}

static void stop_all(pid_t pid)
{
	char path[64];
	struct dirent *d;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
	dir = opendir(path);
	CHECK(dir);
	nr_tids = 0;
	while ((d = readdir(dir)) && nr_tids < MAX_THREADS) {
		if (d->d_name[0] == '.')
			continue;
		tids[nr_tids] = atoi(d->d_name);
		CHECK(!ptrace(PTRACE_SEIZE, tids[nr_tids], NULL, NULL));
		stop_thread(tids[nr_tids++]);
	}
	closedir(dir);
}

static void let_run(int tid)
{
	CHECK(!ptrace(PTRACE_CONT, tid, NULL, NULL));
}

static void let_all_run(void)
{
	for (int i = 0; i < nr_tids; i++)
		CHECK(!ptrace(PTRACE_DETACH, tids[i], NULL, NULL));
}

/* The agent's thread runs alone, with its process unlocked. */
static void agent_round(pid_t pid, int restore_tid, uint32_t round)
{
	const uint32_t rounds = get(&sh->rounds);
	const int agent = (int)get(&sh->agent_tid);

	let_run(restore_tid);
	OK(cu.checkpoint_unlock(pid, NULL));
	let_run(agent);
	put(&sh->agent_go, round);
	CHECK(wait_word(&sh->agent_done, round));
	stop_thread(agent);
	OK(cu.checkpoint_lock(pid, NULL));
	stop_thread(restore_tid);
	CHECK(get(&sh->rounds) == rounds);
}

static void stopped(void)
{
	pid_t pid = start_app();
	int tid;

	stub_load();
	OK(cu.checkpoint_get_restore_tid(pid, &tid));
	for (int i = 0; i < 2; i++) {
		put(&sh->hold, 1);
		CHECK(wait_word(&sh->held, 1));
		OK(cu.checkpoint_lock(pid, NULL));
		stop_all(pid);
		agent_round(pid, tid, 1 + 2 * (uint32_t)i);
		let_run(tid);
		OK(cu.checkpoint_checkpoint(pid, NULL));
		stop_thread(tid);
		CHECK(!has_gpu(pid));
		let_run(tid);
		OK(cu.checkpoint_restore(pid, NULL));
		stop_thread(tid);
		agent_round(pid, tid, 2 + 2 * (uint32_t)i);
		let_run(tid);
		OK(cu.checkpoint_unlock(pid, NULL));
		stop_thread(tid);
		let_all_run();
		put(&sh->hold, 0);
	}
	finish_app(pid);
}

/* Unlocked, a thread that waited is inside, even if it is stopped: no second lock before it has
 * run. */
static void waiting(void)
{
	const CUcheckpointLockArgs soon = { .timeoutMs = 200 };
	pid_t pid = start_app();
	int tid;

	stub_load();
	OK(cu.checkpoint_get_restore_tid(pid, &tid));
	OK(cu.checkpoint_lock(pid, NULL));
	usleep(200000);
	stop_all(pid);
	let_run(tid);
	OK(cu.checkpoint_unlock(pid, NULL));
	GIVES(CUDA_ERROR_NOT_READY, cu.checkpoint_lock(pid, &soon));
	stop_thread(tid);
	let_all_run();
	OK(cu.checkpoint_lock(pid, NULL));
	OK(cu.checkpoint_unlock(pid, NULL));
	finish_app(pid);
}

static void test_waiting(void **state)
{
	(void)state;
	in_child(NULL, waiting);
}

static void test_stopped(void **state)
{
	(void)state;
	in_child(NULL, stopped);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_order),
		cmocka_unit_test(test_lock_timeout),
		cmocka_unit_test(test_stopped),
		cmocka_unit_test(test_waiting),
	};

	stub_set_id();
	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: MIT */
/*
 * Suspending and resuming a process without the agent, where gpud says what is wrong, or the
 * process is not what it seems. tests/e2e has processes with the agent.
 */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "format/ckf_gpu_dump.h"
#include "gpu/cuda/ckf_cuda_abi.h"
#include "gpu/suspend/ckf_agent_call.h"
#include "gpu/suspend/ckf_process.h"
#include "gpud_ends.h"

#define LOCK_MS 1000

static pid_t child;

static int set_up(void **state)
{
	child = fork();
	if (!child) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (;;)
			pause();
	}
	return child < 0 ? -1 : ends_set_up(state);
}

static void end_child(void)
{
	if (child > 0) {
		kill(child, SIGKILL);
		waitpid(child, NULL, 0);
	}
	child = 0;
}

static int tear_down(void **state)
{
	end_child();
	return ends_tear_down(state);
}

static void say_done(struct ends *e, uint64_t arg)
{
	ends_answer(e, CKF_GPUD_DONE, arg, "", -1);
}

static void say_error(struct ends *e)
{
	ends_answer(e, CKF_GPUD_ERROR, EIO, "the driver does not want to", -1);
}

/* The next request was this action. */
static void asked(struct ends *e, enum ckf_gpud_action action)
{
	const struct ckf_gpud_msg m = ends_heard(e);

	assert_int_equal(m.op, CKF_GPUD_CHECKPOINT);
	assert_int_equal(m.arg, action);
}

static struct ckf_gpu_process *open_child(struct ends *e)
{
	struct ckf_gpu_process *p = NULL;

	say_done(e, ckf_inner_id(child, child));
	assert_int_equal(ckf_gpu_process_open(child, e->client, &p, &e->err), 0);
	asked(e, CKF_GPUD_RESTORE_TID);
	assert_int_equal(ckf_gpu_process_pid(p), child);
	return p;
}

/* Each request that comes next. */
static void none_asked(struct ends *e)
{
	ends_answer(e, CKF_GPUD_DONE, 0, "", -1);
	assert_int_equal(ckf_gpud_call(e->client, &(struct ckf_gpud_msg){ .op = CKF_GPUD_HELLO },
				       -1, &e->err),
			 0);
	assert_int_equal(ends_heard(e).op, CKF_GPUD_HELLO);
}

static void test_open(void **state)
{
	const unsigned int nr_fds = ends_count_fds();
	struct ckf_gpu_process *p = NULL;
	struct ends *e = *state;

	say_error(e);
	ends_expect(e, ckf_gpu_process_open(child, e->client, &p, &e->err), -EIO, "does not want");
	say_done(e, 0);
	ends_expect(e, ckf_gpu_process_open(child, e->client, &p, &e->err), -EPROTO,
		    "has no thread 0, which gpud names");
	say_done(e, UINT32_MAX);
	ends_expect(e, ckf_gpu_process_open(child, e->client, &p, &e->err), -EPROTO,
		    "has no thread 4294967295, which gpud names");
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
	ends_expect(e, ckf_gpu_process_open(child, e->client, &p, &e->err), -ESRCH,
		    "cannot open process");
	child = 0;
	assert_null(p);
	assert_int_equal(ends_count_fds(), nr_fds);
	ckf_gpu_process_close(NULL);
}

/* Only a process that runs is suspended. */
static void test_states(void **state)
{
	static const struct {
		uint64_t state;
		const char *says;
	} others[] = {
		{ CU_PROCESS_STATE_LOCKED, "is locked already: ckfast unpark" },
		{ CU_PROCESS_STATE_CHECKPOINTED, "is suspended already: ckfast unpark" },
		{ CU_PROCESS_STATE_FAILED, "is in a failed state already" },
	};
	struct ends *e = *state;
	struct ckf_gpu_process *p = open_child(e);

	for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
		say_done(e, others[i].state);
		ends_expect(e, ckf_gpu_process_lock(p, e->client, LOCK_MS, &e->err), -EBUSY,
			    others[i].says);
		asked(e, CKF_GPUD_STATE);
	}
	say_done(e, CU_PROCESS_STATE_RUNNING);
	ends_expect(e, ckf_gpu_process_adopt(p, e->client, &e->err), -EINVAL, "is not suspended");
	asked(e, CKF_GPUD_STATE);
	say_error(e);
	ends_expect(e, ckf_gpu_process_adopt(p, e->client, &e->err), -EIO, "does not want");
	asked(e, CKF_GPUD_STATE);
	ckf_gpu_process_close(p);
}

static struct ckf_gpu_process *lock_child(struct ends *e)
{
	struct ckf_gpu_process *p = open_child(e);

	say_done(e, CU_PROCESS_STATE_RUNNING);
	say_done(e, 0);
	assert_int_equal(ckf_gpu_process_lock(p, e->client, LOCK_MS, &e->err), 0);
	asked(e, CKF_GPUD_STATE);
	asked(e, CKF_GPUD_LOCK);
	return p;
}

static void test_order(void **state)
{
	struct ends *e = *state;
	struct ckf_gpu_process *p = lock_child(e);

	/* It has no memory that somebody would have to save. */
	say_done(e, 0);
	assert_int_equal(ckf_gpu_process_suspend(p, e->client, -1, &e->err), 0);
	asked(e, CKF_GPUD_SUSPEND);
	assert_false(ckf_gpu_process_needs_memory(p));
	assert_int_equal(ckf_gpu_process_bytes(p), 0);
	say_done(e, 0);
	say_done(e, 0);
	assert_int_equal(ckf_gpu_process_resume(p, e->client, &e->err), 0);
	asked(e, CKF_GPUD_RESUME);
	asked(e, CKF_GPUD_UNLOCK);
	none_asked(e);
	ckf_gpu_process_close(p);
}

/* Suspended by somebody else, and to go on with another GPU. */
static struct ckf_gpu_process *adopt_child(struct ends *e)
{
	const uint8_t old_uuid[16] = { 1 }, new_uuid[16] = { 2 };
	struct ckf_gpu_process *p = open_child(e);

	say_done(e, CU_PROCESS_STATE_CHECKPOINTED);
	assert_int_equal(ckf_gpu_process_adopt(p, e->client, &e->err), 0);
	asked(e, CKF_GPUD_STATE);
	assert_int_equal(ckf_gpu_process_pair(p, old_uuid, new_uuid, &e->err), 0);
	return p;
}

static void asked_to_resume(struct ends *e)
{
	const struct ckf_gpud_msg m = ends_heard(e);

	assert_int_equal(m.op, CKF_GPUD_PAIR);
	assert_int_equal(m.uuid2[0], 2);
	asked(e, CKF_GPUD_RESUME);
}

/* A call is begun on a connection of its own. What is refused meanwhile, since there are too many
 * requests, is asked for again, as a whole. */
static void test_begun(void **state)
{
	struct ends *e = *state, *own;
	struct ckf_gpu_process *first = adopt_child(e), *second = adopt_child(e);

	assert_int_equal(ends_set_up((void **)&own), 0);
	ends_answer(e, CKF_GPUD_DONE, 0, "", own->client);
	ckf_gpu_process_begin_wake(first, e->client);
	assert_int_equal(ends_heard(e).op, CKF_GPUD_JOIN);
	asked_to_resume(own);

	ends_answer(e, CKF_GPUD_ERROR, EDQUOT, "too many requests", -1);
	say_done(e, 0);
	say_done(e, 0);
	assert_int_equal(ckf_gpu_process_wake(second, e->client, &e->err), 0);
	asked_to_resume(e);
	asked_to_resume(e);
	asked(e, CKF_GPUD_UNLOCK);

	say_done(own, 0);
	say_done(e, 0);
	assert_int_equal(ckf_gpu_process_wake(first, e->client, &e->err), 0);
	asked(e, CKF_GPUD_UNLOCK);
	none_asked(e);
	ckf_gpu_process_close(first);
	ckf_gpu_process_close(second);
	ends_tear_down((void **)&own);
}

static void test_failures(void **state)
{
	struct ends *e = *state;
	struct ckf_gpu_process *p = open_child(e);

	say_done(e, CU_PROCESS_STATE_RUNNING);
	say_error(e);
	ends_expect(e, ckf_gpu_process_lock(p, e->client, LOCK_MS, &e->err), -EIO, "does not want");
	asked(e, CKF_GPUD_STATE);
	asked(e, CKF_GPUD_LOCK);
	none_asked(e);
	ckf_gpu_process_close(p);

	p = lock_child(e);
	say_error(e);
	ends_expect(e, ckf_gpu_process_suspend(p, e->client, -1, &e->err), -EIO, "does not want");
	asked(e, CKF_GPUD_SUSPEND);
	/* Nothing is to be restored, so only the lock is to be given up. */
	say_error(e);
	ends_expect(e, ckf_gpu_process_resume(p, e->client, &e->err), -EIO, "does not want");
	asked(e, CKF_GPUD_UNLOCK);
	say_done(e, 0);
	assert_int_equal(ckf_gpu_process_resume(p, e->client, &e->err), 0);
	asked(e, CKF_GPUD_UNLOCK);
	none_asked(e);
	ckf_gpu_process_close(p);
}

/* Its thread could not answer the driver. */
static void test_stopped(void **state)
{
	struct ends *e = *state;
	struct ckf_gpu_process *p = lock_child(e);
	siginfo_t info;

	kill(child, SIGSTOP);
	assert_int_equal(waitid(P_PID, (id_t)child, &info, WSTOPPED), 0);
	ends_expect(e, ckf_gpu_process_wake(p, e->client, &e->err), -EBUSY,
		    "is stopped, by a signal: let it go on first");
	none_asked(e);
	kill(child, SIGCONT);
	assert_int_equal(waitid(P_PID, (id_t)child, &info, WCONTINUED), 0);
	say_done(e, 0);
	assert_int_equal(ckf_gpu_process_wake(p, e->client, &e->err), 0);
	asked(e, CKF_GPUD_UNLOCK);
	ckf_gpu_process_close(p);
}

/* Tries go on only while the process is there. */
static void test_resume_late(void **state)
{
	struct ends *e = *state;
	struct ckf_gpu_process *p = lock_child(e);

	say_done(e, CU_PROCESS_STATE_RUNNING);
	assert_int_equal(ckf_gpu_process_resume_late(p, e->client, &e->err), 0);
	asked(e, CKF_GPUD_STATE);
	say_error(e);
	say_done(e, CU_PROCESS_STATE_LOCKED);
	say_done(e, 0);
	assert_int_equal(ckf_gpu_process_resume_late(p, e->client, &e->err), 0);
	asked(e, CKF_GPUD_STATE);
	asked(e, CKF_GPUD_STATE);
	asked(e, CKF_GPUD_UNLOCK);
	ckf_gpu_process_kill(p);
	end_child();
	say_error(e);
	ends_expect(e, ckf_gpu_process_resume_late(p, e->client, &e->err), -ESRCH, "has ended");
	ckf_gpu_process_close(p);
}

static void give(struct ckf_gpu_process *p)
{
	const struct ckf_gpu_memory m = { .bytes = 4096, .fd = dup(0) };

	assert_true(m.fd >= 0);
	assert_int_equal(ckf_gpu_process_give(p, &m, NULL), 0);
}

/* Images of memory that the process has not given away. */
static void test_too_much_memory(void **state)
{
	static const uint8_t uuid[16] = { 1 };
	const unsigned int nr_fds = ends_count_fds();
	struct ends *e = *state;
	struct ckf_gpu_process *p = lock_child(e);

	give(p);
	ends_expect(e, ckf_gpu_process_resume(p, e->client, &e->err), -EBADMSG, "do not fit");
	none_asked(e);
	for (unsigned int i = 0; i < CKF_GPU_MAX_DEVICES; i++)
		assert_int_equal(ckf_gpu_process_pair(p, uuid, uuid, &e->err), 0);
	ends_expect(e, ckf_gpu_process_pair(p, uuid, uuid, &e->err), -E2BIG, "more than");
	ckf_gpu_process_close(p);
	assert_int_equal(ends_count_fds(), nr_fds);
}

/* gpud has no connection for it, breaks off, or cannot write the images. */
static void test_save(void **state)
{
	const unsigned int nr_fds = ends_count_fds();
	struct ends *e = *state, *save;
	struct ckf_gpu_process *p = lock_child(e);

	give(p);
	say_error(e);
	ends_expect(e, ckf_gpu_process_suspend(p, e->client, 0, &e->err), -EIO, "does not want");
	assert_int_equal(ends_heard(e).op, CKF_GPUD_JOIN);

	assert_int_equal(ends_set_up((void **)&save), 0);
	ends_answer(e, CKF_GPUD_DONE, 0, "", save->client);
	ends_answer(save, CKF_GPUD_ERROR, ENOSPC, "ckfast-gpu-pages-7.img: disk full", -1);
	ends_expect(e, ckf_gpu_process_suspend(p, e->client, 0, &e->err), -ENOSPC, "disk full");
	assert_int_equal(ends_heard(e).op, CKF_GPUD_JOIN);
	assert_int_equal(ends_heard(save).op, CKF_GPUD_SAVE);
	assert_int_equal(ends_heard(save).op, CKF_GPUD_MEMORY);
	assert_int_equal(ends_heard(save).op, CKF_GPUD_COMMIT);

	ends_answer(e, CKF_GPUD_DONE, 0, "", save->client);
	assert_int_equal(ckf_gpu_process_save(p, e->client, 0, &e->err), 0);
	/* Asked for already. */
	assert_int_equal(ckf_gpu_process_save(p, e->client, 0, &e->err), 0);
	ends_hang_up(save);
	ends_expect(e, ckf_gpu_process_suspend(p, e->client, 0, &e->err), -ECONNRESET,
		    "closed by the other end");

	ends_answer(e, CKF_GPUD_DONE, 0, "", save->client);
	ends_expect(e, ckf_gpu_process_save(p, e->client, 0, &e->err), -EPIPE, "cannot send");
	ends_tear_down((void **)&save);
	ckf_gpu_process_close(p);
	assert_int_equal(ends_count_fds(), nr_fds);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_open),	TEST(test_states),   TEST(test_order),
		TEST(test_begun),	TEST(test_failures), TEST(test_stopped),
		TEST(test_resume_late), TEST(test_save),     TEST(test_too_much_memory),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: MIT */
/* What the thread sanitizer has to know of all tests: what it takes for a race and is none. */
#include <pthread.h>
#include <stddef.h>

/*
 * Workers open and close packs in file tables of their own, in which the same number is another
 * file. Rings are mapped by system calls that the sanitizer does not see: a new one where an old
 * one was is the same memory to it. The stub of the driver is built without it. The sanitizer finds
 * this by its name.
 */
__attribute__((visibility("default"))) const char *__tsan_default_suppressions(void);
const char *__tsan_default_suppressions(void)
{
	return "race:^ckf_packs_\n"
	       "race:^__wrap_close$\n"
	       "race:^io_uring_prep_rw$\n"
	       "race:^io_uring_sqe_set_data$\n"
	       "race:^__io_uring_peek_cqe$\n"
	       "called_from_lib:libcuda.so.1\n";
}

#ifdef __SANITIZE_THREAD__
static void *nothing(void *arg)
{
	return arg;
}

/* It starts a thread of its own with our first one. A fill that began with one thread would wait
 * for that to go away. */
__attribute__((constructor)) static void start_its_thread(void)
{
	pthread_t thread;

	if (!pthread_create(&thread, NULL, nothing, NULL))
		pthread_join(thread, NULL);
}
#endif

/* SPDX-License-Identifier: MIT */
/* Finds the state of the fake driver, and makes its files look like devices. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "world.h"

#define SHOWN __attribute__((visibility("default")))

int amd_raw_stat(int dir_fd, const char *path, struct stat *st, int flags)
{
	return (int)syscall(SYS_newfstatat, dir_fd, path, st, flags);
}

int amd_raw_open(const char *path, int flags, mode_t mode)
{
	return (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}

static struct amd_world *map_world(void)
{
	struct amd_world *w;
	struct stat st;
	int fd = amd_raw_open(AMD_KFD, O_RDWR | O_CLOEXEC, 0);

	if (fd < 0)
		return NULL;
	w = MAP_FAILED;
	if (!amd_raw_stat(fd, "", &st, AT_EMPTY_PATH) && S_ISREG(st.st_mode) &&
	    (size_t)st.st_size >= sizeof(*w))
		/* Not by mmap(), which is the fake's, and looks for the world first. */
		w = (void *)syscall(SYS_mmap, NULL, sizeof(*w), PROT_READ | PROT_WRITE, MAP_SHARED,
				    fd, 0);
	close(fd);
	if (w != MAP_FAILED && w->magic == AMD_MAGIC)
		return w;
	if (w != MAP_FAILED)
		munmap(w, sizeof(*w));
	return NULL;
}

/* Mapped once and never unmapped: the restored process finds it again at the same address. */
struct amd_world *amd_world(void)
{
	static _Atomic(struct amd_world *) world;
	struct amd_world *w = atomic_load(&world), *none = NULL;
	int saved = errno;

	if (w)
		return w;
	w = map_world();
	if (w && !atomic_compare_exchange_strong(&world, &none, w)) {
		munmap(w, sizeof(*w));
		w = none;
	}
	errno = saved;
	return w;
}

/* A thread that was killed may be there until somebody waits for it. */
static bool has_ended(pid_t tid)
{
	char path[64], text[512], *state;
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/stat", tid);
	fd = amd_raw_open(path, O_RDONLY | O_CLOEXEC, 0);
	if (fd < 0)
		return true;
	n = read(fd, text, sizeof(text) - 1);
	close(fd);
	text[n > 0 ? n : 0] = 0;
	state = strrchr(text, ')');
	return !state || strchr("ZX", state[1] ? state[2] : 0);
}

/* Not a mutex, not even a robust one: a process that CRIU has cloned has no list of those. */
void amd_lock(struct amd_world *w)
{
	const pid_t self = gettid();
	const int saved = errno;
	pid_t holder = 0;

	while (!atomic_compare_exchange_strong(&w->holder, &holder, self)) {
		if (!has_ended(holder)) {
			holder = 0;
			usleep(100);
		}
	}
	errno = saved;
}

void amd_unlock(struct amd_world *w)
{
	atomic_store(&w->holder, 0);
}

int amd_render_gpu(const struct amd_world *w, int fd)
{
	struct stat st;

	if (amd_raw_stat(fd, "", &st, AT_EMPTY_PATH) || st.st_dev != w->dev)
		return -1;
	for (uint32_t i = 0; i < w->nr_gpus; i++)
		if (w->gpus[i].ino == st.st_ino)
			return (int)i;
	return -1;
}

/* The files of the fake are character devices to whoever asks. */
static int show(int ret, struct stat *st)
{
	struct amd_world *w;

	if (ret || !S_ISREG(st->st_mode))
		return ret;
	w = amd_world();
	if (!w || st->st_dev != w->dev)
		return 0;
	for (uint32_t i = 0; i < w->nr_gpus; i++)
		if (w->gpus[i].ino == st->st_ino)
			st->st_rdev = makedev(AMD_DRM_MAJOR, w->gpus[i].minor);
	if (st->st_ino == w->ino)
		st->st_rdev = makedev(AMD_KFD_MAJOR, 0);
	if (st->st_rdev)
		st->st_mode = (st->st_mode & ~(mode_t)S_IFMT) | S_IFCHR;
	return 0;
}

/* Under both names each: programs are built with 64-bit offsets, CRIU's plugin is not. */
#define BOTH(name, args, call)                              \
	SHOWN int fake_##name args __asm__(#name);          \
	SHOWN int fake_##name args                          \
	{                                                   \
		return show(call, st);                      \
	}                                                   \
	SHOWN int fake_##name##64 args __asm__(#name "64"); \
	SHOWN int fake_##name##64 args                      \
	{                                                   \
		return show(call, st);                      \
	}

BOTH(stat, (const char *path, struct stat *st), amd_raw_stat(AT_FDCWD, path, st, 0))
BOTH(lstat, (const char *path, struct stat *st),
     amd_raw_stat(AT_FDCWD, path, st, AT_SYMLINK_NOFOLLOW))
BOTH(fstat, (int fd, struct stat *st), amd_raw_stat(fd, "", st, AT_EMPTY_PATH))
BOTH(fstatat, (int dir_fd, const char *path, struct stat *st, int flags),
     amd_raw_stat(dir_fd, path, st, flags))

int amd_find_gpu(const struct amd_world *w, const struct amd_proc *p, uint32_t user_gpu_id)
{
	for (uint32_t i = 0; i < w->nr_gpus; i++)
		if (p->user_gpu_id[i] == user_gpu_id)
			return (int)i;
	return -1;
}

bool amd_fails(const char *name)
{
	static atomic_int left = INT_MIN; /* not set yet; in the end ever further below 0 */
	const char *want = getenv("AMD_FAIL");
	size_t len = strlen(name);
	int first = INT_MIN;

	if (!want || strncmp(want, name, len) != 0 || (want[len] && want[len] != ':'))
		return false;
	atomic_compare_exchange_strong(&left, &first, want[len] ? atoi(want + len + 1) : 1);
	return atomic_fetch_sub(&left, 1) == 1;
}

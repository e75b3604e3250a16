/* SPDX-License-Identifier: MIT */
/*
 * The wrappers: each call of a function NAME outside of libc arrives at __wrap_NAME here, and
 * __real_NAME is the function itself (--wrap of the linker).
 *
 * Names end in 64 where <stdio.h> and friends, with 64-bit offsets, make it so.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/vfs.h>
#include <linux/userfaultfd.h>

#include "base/ckf_types.h"
#include "fault.h"

#ifndef UFFDIO_MOVE
struct uffdio_move {
	__u64 dst;
	__u64 src;
	__u64 len;
	__u64 mode;
	__s64 move;
};
#define UFFDIO_MOVE _IOWR(UFFDIO, 0x05, struct uffdio_move)
#endif
#ifndef SYS_cachestat
#define SYS_cachestat 451
#endif

#define NOP_INJECT_RESULT 1u /* IORING_NOP_INJECT_RESULT, which older headers lack */
#define DISK_MAGIC 0xef53    /* a file system that is no tmpfs */

/* A function that fails with errno and the given value, or does what it always does. */
#define WRAP(point, fails_with, type, name, params, args)                    \
	type __real_##name params;                                           \
	type __wrap_##name params;                                           \
	type __wrap_##name params                                            \
	{                                                                    \
		return fault_hit(point) ? (fails_with) : __real_##name args; \
	}

WRAP(FAULT_MADVISE, -1, int, madvise, (void *p, size_t bytes, int advice), (p, bytes, advice))
WRAP(FAULT_STAT, -1, int, fstat64, (int fd, struct stat64 *st), (fd, st))
WRAP(FAULT_STAT, -1, int, fstatat64, (int fd, const char *name, struct stat64 *st, int flags),
     (fd, name, st, flags))
WRAP(FAULT_RENAME, -1, int, renameat, (int from_fd, const char *from, int to_fd, const char *to),
     (from_fd, from, to_fd, to))
WRAP(FAULT_MKDIR, -1, int, mkdirat, (int fd, const char *name, mode_t mode), (fd, name, mode))
WRAP(FAULT_TRUNCATE, -1, int, ftruncate64, (int fd, off64_t bytes), (fd, bytes))
WRAP(FAULT_CHMOD, -1, int, fchmod, (int fd, mode_t mode), (fd, mode))
WRAP(FAULT_CHOWN, -1, int, fchown, (int fd, uid_t uid, gid_t gid), (fd, uid, gid))
WRAP(FAULT_CHOWN, -1, int, fchownat, (int fd, const char *name, uid_t uid, gid_t gid, int flags),
     (fd, name, uid, gid, flags))
WRAP(FAULT_UTIMES, -1, int, futimens, (int fd, const struct timespec t[2]), (fd, t))
WRAP(FAULT_UTIMES, -1, int, utimensat,
     (int fd, const char *name, const struct timespec t[2], int flags), (fd, name, t, flags))
WRAP(FAULT_SYMLINK, -1, int, symlinkat, (const char *target, int fd, const char *name),
     (target, fd, name))
WRAP(FAULT_READLINK, -1, ssize_t, readlinkat, (int fd, const char *name, char *buf, size_t bytes),
     (fd, name, buf, bytes))
WRAP(FAULT_OPENDIR, NULL, DIR *, fdopendir, (int fd), (fd))
WRAP(FAULT_READDIR, NULL, struct dirent64 *, readdir64, (DIR * dir), (dir))
WRAP(FAULT_RANDOM, -1, ssize_t, getrandom, (void *buf, size_t bytes, unsigned int flags),
     (buf, bytes, flags))
WRAP(FAULT_UNLINK, -1, int, unlinkat, (int fd, const char *name, int flags), (fd, name, flags))
WRAP(FAULT_THREAD, errno, int, pthread_create,
     (pthread_t * id, const pthread_attr_t *attr, void *(*fn)(void *), void *arg),
     (id, attr, fn, arg))
WRAP(FAULT_RING_INIT, -fault_code(), int, io_uring_queue_init,
     (unsigned int entries, struct io_uring *ring, unsigned int flags), (entries, ring, flags))

/* Memory: all of it is counted, and what is freed as well. */

static void *counted(void *p)
{
	if (p)
		fault_count_alloc(1);
	return p;
}

void *__real_malloc(size_t bytes);
void *__wrap_malloc(size_t bytes);
void *__wrap_malloc(size_t bytes)
{
	void *p;

	if (fault_hit(FAULT_ALLOC))
		return NULL;
	p = fault_big_alloc(bytes);
	return counted(p ? p : __real_malloc(bytes));
}

void *__real_calloc(size_t nr, size_t bytes);
void *__wrap_calloc(size_t nr, size_t bytes);
void *__wrap_calloc(size_t nr, size_t bytes)
{
	return fault_hit(FAULT_ALLOC) ? NULL : counted(__real_calloc(nr, bytes));
}

void *__real_realloc(void *old, size_t bytes);
void *__wrap_realloc(void *old, size_t bytes);
void *__wrap_realloc(void *old, size_t bytes)
{
	if (fault_hit(FAULT_ALLOC))
		return NULL;
	fault_big_forget(old);
	return old ? __real_realloc(old, bytes) : counted(__real_realloc(NULL, bytes));
}

void *__real_aligned_alloc(size_t align, size_t bytes);
void *__wrap_aligned_alloc(size_t align, size_t bytes);
void *__wrap_aligned_alloc(size_t align, size_t bytes)
{
	void *p;

	if (fault_hit(FAULT_ALLOC))
		return NULL;
	p = align <= CKF_PAGE_BYTES ? fault_big_alloc(bytes) : NULL;
	return counted(p ? p : __real_aligned_alloc(align, bytes));
}

int __real_posix_memalign(void **p, size_t align, size_t bytes);
int __wrap_posix_memalign(void **p, size_t align, size_t bytes);
int __wrap_posix_memalign(void **p, size_t align, size_t bytes)
{
	int ret = fault_hit(FAULT_ALLOC) ? ENOMEM : __real_posix_memalign(p, align, bytes);

	if (!ret)
		fault_count_alloc(1);
	return ret;
}

char *__real_strdup(const char *s);
char *__wrap_strdup(const char *s);
char *__wrap_strdup(const char *s)
{
	return fault_hit(FAULT_ALLOC) ? NULL : counted(__real_strdup(s));
}

char *__real_strndup(const char *s, size_t bytes);
char *__wrap_strndup(const char *s, size_t bytes);
char *__wrap_strndup(const char *s, size_t bytes)
{
	return fault_hit(FAULT_ALLOC) ? NULL : counted(__real_strndup(s, bytes));
}

char *__real_realpath(const char *path, char *resolved);
char *__wrap_realpath(const char *path, char *resolved);
char *__wrap_realpath(const char *path, char *resolved)
{
	if (fault_hit(FAULT_ALLOC))
		return NULL;
	return resolved ? __real_realpath(path, resolved) : counted(__real_realpath(path, NULL));
}

void __real_free(void *p);
void __wrap_free(void *p);
void __wrap_free(void *p)
{
	if (p)
		fault_count_alloc(-1);
	if (!fault_big_free(p))
		__real_free(p);
}

void *__real_mmap64(void *addr, size_t bytes, int prot, int flags, int fd, off64_t off);
void *__wrap_mmap64(void *addr, size_t bytes, int prot, int flags, int fd, off64_t off);
void *__wrap_mmap64(void *addr, size_t bytes, int prot, int flags, int fd, off64_t off)
{
	void *p = MAP_FAILED;

	if (!fault_hit(FAULT_MMAP))
		p = __real_mmap64(addr, bytes, prot, flags, fd, off);
	if (p != MAP_FAILED)
		fault_count_map(1);
	return p;
}

int __real_munmap(void *p, size_t bytes);
int __wrap_munmap(void *p, size_t bytes);
int __wrap_munmap(void *p, size_t bytes)
{
	fault_count_map(-1);
	return __real_munmap(p, bytes);
}

/* Files */

/* Opens of both functions: the mode is there only with O_CREAT. */
#define OPEN_FAILS(flags) \
	(fault_hit(FAULT_OPEN) || (((flags)&O_DIRECT) && fault_hit(FAULT_OPEN_DIRECT)))
#define OPEN_MODE(flags)                           \
	({                                         \
		va_list ap;                        \
		mode_t mode = 0;                   \
                                                   \
		va_start(ap, flags);               \
		if ((flags)&O_CREAT)               \
			mode = va_arg(ap, mode_t); \
		va_end(ap);                        \
		mode;                              \
	})

int __real_open64(const char *path, int flags, ...);
int __wrap_open64(const char *path, int flags, ...);
int __wrap_open64(const char *path, int flags, ...)
{
	return OPEN_FAILS(flags) ? -1 : __real_open64(path, flags, OPEN_MODE(flags));
}

int __real_openat64(int fd, const char *path, int flags, ...);
int __wrap_openat64(int fd, const char *path, int flags, ...);
int __wrap_openat64(int fd, const char *path, int flags, ...)
{
	return OPEN_FAILS(flags) ? -1 : __real_openat64(fd, path, flags, OPEN_MODE(flags));
}

/* openat() where _FORTIFY_SOURCE cannot tell that the flags want no mode. */
int __wrap___openat64_2(int fd, const char *path, int flags);
int __wrap___openat64_2(int fd, const char *path, int flags)
{
	return __wrap_openat64(fd, path, flags);
}

int __real_fcntl64(int fd, int cmd, ...);
int __wrap_fcntl64(int fd, int cmd, ...);
int __wrap_fcntl64(int fd, int cmd, ...)
{
	va_list ap;
	long arg;

	va_start(ap, cmd);
	arg = va_arg(ap, long);
	va_end(ap);
	if (cmd == F_DUPFD_CLOEXEC && fault_hit(FAULT_DUP))
		return -1;
	return __real_fcntl64(fd, cmd, arg);
}

/* The descriptor is gone, whatever close() says. */
int __real_close(int fd);
int __wrap_close(int fd);
int __wrap_close(int fd)
{
	int ret = __real_close(fd);

	return fault_hit(FAULT_CLOSE) ? -1 : ret;
}

/* Not done: the tests are about errors, and take long enough. */
int __wrap_fsync(int fd);
int __wrap_fsync(int fd)
{
	(void)fd;
	return fault_hit(FAULT_SYNC) ? -1 : 0;
}

int __real_renameat2(int from_fd, const char *from, int to_fd, const char *to, unsigned int flags);
int __wrap_renameat2(int from_fd, const char *from, int to_fd, const char *to, unsigned int flags);
int __wrap_renameat2(int from_fd, const char *from, int to_fd, const char *to, unsigned int flags)
{
	if (fault_hit(FAULT_RENAME) || fault_hit(FAULT_RENAME_FLAGS))
		return -1;
	return __real_renameat2(from_fd, from, to_fd, to, flags);
}

static size_t half_of(enum fault_point point, size_t bytes)
{
	return bytes > 1 && fault_hit_half(point) ? bytes / 2 : bytes;
}

/* What a read has brought, unless the file is to end here: at its true end it does anyway. */
static ssize_t unless_end(ssize_t got)
{
	return got > 0 && fault_hit(FAULT_READ_END) ? 0 : got;
}

ssize_t __real_read(int fd, void *buf, size_t bytes);
ssize_t __wrap_read(int fd, void *buf, size_t bytes);
ssize_t __wrap_read(int fd, void *buf, size_t bytes)
{
	if (fault_hit(FAULT_READ))
		return -1;
	return unless_end(__real_read(fd, buf, half_of(FAULT_READ, bytes)));
}

/* read() where _FORTIFY_SOURCE knows the size of the buffer, but not that of the read. */
ssize_t __real___read_chk(int fd, void *buf, size_t bytes, size_t buf_bytes);
ssize_t __wrap___read_chk(int fd, void *buf, size_t bytes, size_t buf_bytes);
ssize_t __wrap___read_chk(int fd, void *buf, size_t bytes, size_t buf_bytes)
{
	if (fault_hit(FAULT_READ))
		return -1;
	bytes = half_of(FAULT_READ, bytes);
	return unless_end(__real___read_chk(fd, buf, bytes, buf_bytes));
}

ssize_t __real_pread64(int fd, void *buf, size_t bytes, off64_t off);
ssize_t __wrap_pread64(int fd, void *buf, size_t bytes, off64_t off);
ssize_t __wrap_pread64(int fd, void *buf, size_t bytes, off64_t off)
{
	if (fault_hit(FAULT_READ))
		return -1;
	return unless_end(__real_pread64(fd, buf, half_of(FAULT_READ, bytes), off));
}

ssize_t __real_preadv64(int fd, const struct iovec *iov, int nr, off64_t off);
ssize_t __wrap_preadv64(int fd, const struct iovec *iov, int nr, off64_t off);
ssize_t __wrap_preadv64(int fd, const struct iovec *iov, int nr, off64_t off)
{
	if (fault_hit(FAULT_READ))
		return -1;
	if (fault_hit_half(FAULT_READ))
		return __real_pread64(fd, iov->iov_base, (iov->iov_len + 1) / 2, off);
	return unless_end(__real_preadv64(fd, iov, nr, off));
}

ssize_t __real_pwrite64(int fd, const void *buf, size_t bytes, off64_t off);
ssize_t __wrap_pwrite64(int fd, const void *buf, size_t bytes, off64_t off);
ssize_t __wrap_pwrite64(int fd, const void *buf, size_t bytes, off64_t off)
{
	if (fault_hit(FAULT_WRITE))
		return fault_code() ? -1 : 0;
	return __real_pwrite64(fd, buf, half_of(FAULT_WRITE, bytes), off);
}

ssize_t __real_pwritev64(int fd, const struct iovec *iov, int nr, off64_t off);
ssize_t __wrap_pwritev64(int fd, const struct iovec *iov, int nr, off64_t off);
ssize_t __wrap_pwritev64(int fd, const struct iovec *iov, int nr, off64_t off)
{
	if (fault_hit(FAULT_WRITE))
		return fault_code() ? -1 : 0;
	if (fault_hit_half(FAULT_WRITE))
		return __real_pwrite64(fd, iov->iov_base, (iov->iov_len + 1) / 2, off);
	return __real_pwritev64(fd, iov, nr, off);
}

/* Of an own file table. CLONE_THREAD is a question of the library, with a true answer only. */
int __real_unshare(int flags);
int __wrap_unshare(int flags);
int __wrap_unshare(int flags)
{
	return flags & CLONE_FILES && fault_hit(FAULT_UNSHARE) ? -1 : __real_unshare(flags);
}

ssize_t __real_process_vm_writev(pid_t pid, const struct iovec *src, unsigned long nr_src,
				 const struct iovec *dst, unsigned long nr_dst,
				 unsigned long flags);
ssize_t __wrap_process_vm_writev(pid_t pid, const struct iovec *src, unsigned long nr_src,
				 const struct iovec *dst, unsigned long nr_dst,
				 unsigned long flags);
ssize_t __wrap_process_vm_writev(pid_t pid, const struct iovec *src, unsigned long nr_src,
				 const struct iovec *dst, unsigned long nr_dst, unsigned long flags)
{
	struct iovec half;

	if (fault_hit(FAULT_COPY))
		return -1;
	if (fault_hit_half(FAULT_COPY)) {
		while (!dst->iov_len)
			dst++;
		half = (struct iovec){ dst->iov_base, (dst->iov_len + 1) / 2 };
		return __real_process_vm_writev(pid, src, nr_src, &half, 1, flags);
	}
	return __real_process_vm_writev(pid, src, nr_src, dst, nr_dst, flags);
}

/* What lies in memory is read neither directly nor by io_uring: nothing does, here. */
int __real_fstatfs64(int fd, struct statfs64 *fs);
int __wrap_fstatfs64(int fd, struct statfs64 *fs);
int __wrap_fstatfs64(int fd, struct statfs64 *fs)
{
	int ret = __real_fstatfs64(fd, fs);

	fs->f_type = DISK_MAGIC;
	return ret;
}

long __real_syscall(long nr, ...);
long __wrap_syscall(long nr, ...);
long __wrap_syscall(long nr, ...)
{
	long arg[6];
	va_list ap;

	va_start(ap, nr);
	for (int i = 0; i < 6; i++)
		arg[i] = va_arg(ap, long);
	va_end(ap);
	if (nr == SYS_cachestat) {
		errno = ENOSYS;
		return -1;
	}
	if (nr == SYS_userfaultfd && fault_hit(FAULT_UFFD))
		return -1;
	return __real_syscall(nr, arg[0], arg[1], arg[2], arg[3], arg[4], arg[5]);
}

/* Moves the first half, as when a page of the second is pinned. */
int __real_ioctl(int fd, unsigned long request, ...);
static int move_half(int fd, struct uffdio_move *mv)
{
	struct uffdio_move half = *mv;

	half.len = mv->len / 2 & ~4095ull;
	if (!half.len || __real_ioctl(fd, UFFDIO_MOVE, &half))
		return __real_ioctl(fd, UFFDIO_MOVE, mv);
	mv->move = half.move;
	errno = EAGAIN;
	return -1;
}

int __wrap_ioctl(int fd, unsigned long request, ...);
int __wrap_ioctl(int fd, unsigned long request, ...)
{
	va_list ap;
	void *arg;

	va_start(ap, request);
	arg = va_arg(ap, void *);
	va_end(ap);
	/* Undoing never fails: without it nothing could be cleaned up. */
	if (request != UFFDIO_UNREGISTER && fault_hit(FAULT_IOCTL))
		return -1;
	if (request == UFFDIO_MOVE && fault_hit(FAULT_MOVE))
		return -1;
	if (request == UFFDIO_MOVE && fault_hit_half(FAULT_MOVE))
		return move_half(fd, arg);
	return __real_ioctl(fd, request, arg);
}

/* As if the CPU had been busy since the call before. */
int __real_clock_gettime(clockid_t id, struct timespec *ts);
int __wrap_clock_gettime(clockid_t id, struct timespec *ts);
int __wrap_clock_gettime(clockid_t id, struct timespec *ts)
{
	static _Thread_local time_t more;
	int ret = __real_clock_gettime(id, ts);

	if (id == CLOCK_THREAD_CPUTIME_ID) {
		more += fault_hit(FAULT_CLOCK);
		ts->tv_sec += more;
	}
	return ret;
}

/* io_uring */

/*
 * What is submitted last is changed, so that it completes with nothing, with less than was asked
 * for, or with an error. (On kernels before 6.10, nothing in place of an error but EBADF.)
 */
static void spoil(struct io_uring *ring)
{
	struct io_uring_sqe *sqe = &ring->sq.sqes[(ring->sq.sqe_tail - 1) & *ring->sq.kring_mask];
	const struct iovec *iov = (const struct iovec *)(uintptr_t)sqe->addr;
	const bool write = sqe->opcode == IORING_OP_WRITEV;
	const uint64_t tag = sqe->user_data;
	unsigned int half;

	/* Not done at once, so that there is something to wait for. */
	if (fault_armed(FAULT_WAIT))
		sqe->flags |= IOSQE_ASYNC;
	if (fault_hit_half(FAULT_SQE)) {
		half = (unsigned int)ckf_align_up((iov->iov_len + 1) / 2, CKF_PAGE_BYTES);
		if (write)
			io_uring_prep_write(sqe, sqe->fd, iov->iov_base, half, sqe->off);
		else
			io_uring_prep_read(sqe, sqe->fd, iov->iov_base, half, sqe->off);
	} else if (fault_hit(FAULT_SQE)) {
		if (fault_code() == EBADF) {
			sqe->fd = -1;
		} else {
			io_uring_prep_nop(sqe);
			sqe->rw_flags = NOP_INJECT_RESULT;
			sqe->len = (unsigned int)-fault_code();
		}
	}
	sqe->user_data = tag;
}

int __real_io_uring_submit(struct io_uring *ring);
int __wrap_io_uring_submit(struct io_uring *ring);
int __wrap_io_uring_submit(struct io_uring *ring)
{
	if (fault_hit(FAULT_SUBMIT))
		return -fault_code();
	spoil(ring);
	return __real_io_uring_submit(ring);
}

/* Behind io_uring_wait_cqe(), which is inline, where nothing has completed yet. */
int __real___io_uring_get_cqe(struct io_uring *ring, struct io_uring_cqe **cqe, unsigned int submit,
			      unsigned int nr, sigset_t *set);
int __wrap___io_uring_get_cqe(struct io_uring *ring, struct io_uring_cqe **cqe, unsigned int submit,
			      unsigned int nr, sigset_t *set);
int __wrap___io_uring_get_cqe(struct io_uring *ring, struct io_uring_cqe **cqe, unsigned int submit,
			      unsigned int nr, sigset_t *set)
{
	if (fault_hit(FAULT_WAIT))
		return -fault_code();
	return __real___io_uring_get_cqe(ring, cqe, submit, nr, set);
}

/* SPDX-License-Identifier: MIT */
/* Owner, group and mode of what is written. */
#include <errno.h>
#include <stdio.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "access.h"

#define ACL_ACCESS "system.posix_acl_access"
#define ACL_DEFAULT "system.posix_acl_default"

#define MODE_BITS 07777u
#define GROUP_RWX 0070u
#define OTHER_RWX 0007u
#define SET_UID 04000u
#define SET_GID 02000u
#define GROUP_BITS (GROUP_RWX | SET_GID)
#define READ_WRITE 0666u
#define ENTER 0111u

bool ckf_access_has_acl(int fd)
{
	char path[32];
	ssize_t n = fgetxattr(fd, ACL_ACCESS, NULL, 0);

	if (n < 0 && errno == EBADF) { /* O_PATH */
		snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
		n = getxattr(path, ACL_ACCESS, NULL, 0);
	}
	return n > 0;
}

int ckf_access_get(int fd, struct ckf_access *a)
{
	struct stat st;

	if (fstat(fd, &st))
		return -errno;
	*a = (struct ckf_access){
		.uid = st.st_uid,
		.gid = st.st_gid,
		.mode = st.st_mode & MODE_BITS,
		.known = true,
	};
	if (ckf_access_has_acl(fd))
		a->mode &= ~GROUP_RWX;
	return 0;
}

/* The group becomes another one, which may do no more than all others. */
static uint32_t lose_group(uint32_t mode)
{
	return (mode & ~GROUP_BITS) | (mode & (mode & OTHER_RWX) << 3);
}

void ckf_access_narrow(struct ckf_access *a, const struct ckf_access *b)
{
	uint32_t mode = b->mode & READ_WRITE;

	if (!a->known) {
		*a = *b;
		a->mode = mode;
		return;
	}
	if (a->gid != b->gid) {
		a->gid = getegid();
		a->mode = lose_group(a->mode);
		mode = lose_group(mode);
	}
	if (a->uid != b->uid)
		a->uid = geteuid();
	a->mode &= mode;
}

void ckf_access_narrow_by_dir(struct ckf_access *a, const struct ckf_access *b)
{
	struct ckf_access file = *b;

	file.mode = (b->mode & ENTER) * 6;
	ckf_access_narrow(a, &file);
}

bool ckf_access_is_refusal(int code)
{
	return code == EPERM || code == EINVAL || code == ENOSYS || code == EOPNOTSUPP;
}

int ckf_access_set(int fd, const struct ckf_access *a, bool *own)
{
	uint32_t mode = a->mode;
	struct stat st;

	if (!fchown(fd, a->uid, a->gid))
		return fchmod(fd, mode) ? -errno : 0;
	if (!ckf_access_is_refusal(errno))
		return -errno;
	if (fchown(fd, (uid_t)-1, a->gid) && !ckf_access_is_refusal(errno))
		return -errno;
	if (fstat(fd, &st))
		return -errno;
	if (st.st_uid != a->uid) {
		*own = true;
		mode &= ~SET_UID;
	}
	if (st.st_gid != a->gid) {
		*own = true;
		mode = lose_group(mode);
	}
	return fchmod(fd, mode) ? -errno : 0;
}

void ckf_access_drop_acls(int dir_fd)
{
	/* A file system without them says so; there is nothing to take away then. */
	(void)fremovexattr(dir_fd, ACL_DEFAULT);
	(void)fremovexattr(dir_fd, ACL_ACCESS);
}

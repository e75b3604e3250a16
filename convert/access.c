/* SPDX-License-Identifier: MIT */
/* Owner, group and mode of what is written. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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

int ckf_access_get_part(const struct ckf_file_part *part, struct ckf_access *a)
{
	const struct ckf_member *m = part->member;

	if (!m)
		return ckf_access_get(part->fd, a);
	*a = (struct ckf_access){ .uid = m->uid, .gid = m->gid, .mode = m->mode, .known = true };
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

/* The value of an attribute, or with name NULL the names of all: the length, or -errno. Free *out.
 */
static ssize_t read_xattr(int fd, const char *name, char **out)
{
	ssize_t n = name ? fgetxattr(fd, name, NULL, 0) : flistxattr(fd, NULL, 0);

	*out = NULL;
	if (n < 0)
		return -errno;
	*out = malloc((size_t)n + 1);
	if (!*out)
		return -ENOMEM;
	/* With a size of 0, they would answer with the length again. */
	n++;
	n = name ? fgetxattr(fd, name, *out, (size_t)n) : flistxattr(fd, *out, (size_t)n);
	return n < 0 ? -errno : n;
}

/* Not every label may be set: one that is right already needs no right to do so. */
static int copy_xattr(int from_fd, int to_fd, const char *name, struct ckf_error *err)
{
	char *value, *old;
	ssize_t n = read_xattr(from_fd, name, &value), m = read_xattr(to_fd, name, &old);
	int ret = n < 0 ? (int)n : 0;

	if (!ret && (m != n || memcmp(old, value, (size_t)n) != 0) &&
	    fsetxattr(to_fd, name, value, (size_t)n, 0))
		ret = -errno;
	free(value);
	free(old);
	if (ret)
		return ckf_error_set(err, ret, "cannot keep the attribute %s of the directory: %s",
				     name, strerror(-ret));
	return 0;
}

static bool is_acl(const char *name)
{
	return !strcmp(name, ACL_ACCESS) || !strcmp(name, ACL_DEFAULT);
}

static int copy_xattrs(int from_fd, int to_fd, bool acls, struct ckf_error *err)
{
	char *names;
	ssize_t bytes = read_xattr(from_fd, NULL, &names);
	int ret = 0;

	/* A file system without attributes has none to copy. */
	if (bytes < 0 && bytes != -EOPNOTSUPP)
		ret = ckf_error_set(err, (int)bytes,
				    "cannot list the attributes of the directory: %s",
				    strerror((int)-bytes));
	for (ssize_t at = 0; at < bytes && !ret; at += (ssize_t)strlen(names + at) + 1) {
		if (is_acl(names + at) == acls)
			ret = copy_xattr(from_fd, to_fd, names + at, err);
	}
	free(names);
	return ret;
}

int ckf_access_copy_labels(int from_fd, int to_fd, struct ckf_error *err)
{
	return copy_xattrs(from_fd, to_fd, false, err);
}

int ckf_access_copy_acls(int from_fd, int to_fd, struct ckf_error *err)
{
	return copy_xattrs(from_fd, to_fd, true, err);
}

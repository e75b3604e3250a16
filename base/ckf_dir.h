/* SPDX-License-Identifier: MIT */
/*
 * The files that lie together in one place: in a directory, or in an archive that is not unpacked.
 * A file of an archive is a part of it; one of a directory is a part that begins at 0.
 */
#ifndef CKF_DIR_H
#define CKF_DIR_H

#include <stdint.h>

/* A file in an archive. */
struct ckf_member {
	char *name;
	uint64_t off; /* of its first byte, in the archive */
	uint64_t bytes;
	int64_t mtime_sec;
	uint32_t mtime_nsec;
	uint32_t mode; /* permission, set-id and sticky bits */
	uint32_t uid;
	uint32_t gid;
};

struct ckf_members {
	struct ckf_member *v; /* sorted by name, each name once */
	uint64_t nr;
};

struct ckf_dir {
	int fd;				   /* of the directory, or of the archive */
	const struct ckf_members *members; /* of the archive; NULL: a directory */
};

/* A directory, as a parameter. */
#define CKF_DIR(dir_fd) (&(const struct ckf_dir){ .fd = (dir_fd) })

/* An open file: bytes from off on. The fd may have been opened for other parts, too. */
struct ckf_file_part {
	int fd;
	uint64_t off;
	uint64_t bytes;
	const struct ckf_member *member; /* NULL: all of the file */
};

/* The member of that name, or NULL. */
const struct ckf_member *ckf_members_find(const struct ckf_members *m, const char *name);
/* Opens a file of an archive: 0 with an fd of its own, -ENOENT or -errno. */
int ckf_dir_open_member(const struct ckf_dir *d, const char *name, struct ckf_file_part *out);

/*
 * Goes through the names, "." and ".." left out, until visit returns non-zero. Returns that, or
 * -errno of reading a directory. Names may come and go meanwhile.
 */
int ckf_dir_each(const struct ckf_dir *d, int (*visit)(void *arg, const char *name), void *arg);

#endif

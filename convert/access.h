/* SPDX-License-Identifier: MIT */
/*
 * Who may read what is written: never more than who may read what it is made from.
 *
 * Only owner, group and the bits of the mode are carried over. An access control list is not: its
 * mask stands in the place of the group's bits, so what has one gives its group nothing.
 * Private to convert/.
 */
#ifndef CKF_CONVERT_ACCESS_H
#define CKF_CONVERT_ACCESS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

#include "base/ckf_dir.h"
#include "base/ckf_error.h"

struct ckf_access {
	uint32_t uid;
	uint32_t gid;
	uint32_t mode; /* permission, set-id and sticky bits */
	bool known;    /* false: of nothing so far */
};

/* That of an open file or directory. 0 or -errno. */
int ckf_access_get(int fd, struct ckf_access *a);

/* The same of a file that may lie in an archive. */
int ckf_access_get_part(const struct ckf_file_part *part, struct ckf_access *a);

/* True when the file has an access control list. */
bool ckf_access_has_acl(int fd);

/*
 * Narrows a to those who may read the file of b, too: both are copied into one file. Where owners
 * or groups differ, the file becomes the caller's, and a group gets what all others have.
 */
void ckf_access_narrow(struct ckf_access *a, const struct ckf_access *b);
/* The same for a file in the directory of b: who cannot enter it cannot read the file. */
void ckf_access_narrow_by_dir(struct ckf_access *a, const struct ckf_access *b);

/* True for an errno that says that this user, or this file system, cannot have other owners. */
bool ckf_access_is_refusal(int code);

/*
 * Sets owner, group and mode. Where the caller may not set the owner or the group, the file stays
 * the caller's with a narrower mode, and *own becomes true. 0 or -errno.
 */
int ckf_access_set(int fd, const struct ckf_access *a, bool *own);

/* Takes away the lists that a new directory has from the one above, for all that will be in it. */
void ckf_access_drop_acls(int dir_fd);

/*
 * Gives a directory the extended attributes that another one has, security labels among them, but
 * for access control lists: what is created in it afterwards must not get these.
 */
int ckf_access_copy_labels(int from_fd, int to_fd, struct ckf_error *err);
/* The lists, with the group's bits of the mode that they determine. */
int ckf_access_copy_acls(int from_fd, int to_fd, struct ckf_error *err);

#endif

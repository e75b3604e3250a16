/* SPDX-License-Identifier: MIT */
/* Messages of fixed size over a SOCK_SEQPACKET socket, with at most one descriptor beside each. */
#ifndef CKF_SCM_H
#define CKF_SCM_H

#include <stddef.h>

/* fd: -1 for none. 0, or -errno. Allocates nothing and may be called in any thread. */
int ckf_scm_send(int sock, const void *msg, size_t bytes, int fd);

/*
 * The bytes received, 0 at the end, or -errno: -EMSGSIZE for a message that is longer, -EBADMSG for
 * one with more descriptors than one, or than none where fd is NULL, -EMFILE where this process has
 * no room for one; all of them are closed then. *fd is -1 or a descriptor, close-on-exec, that is
 * the caller's.
 */
int ckf_scm_recv(int sock, void *msg, size_t bytes, int *fd);

#endif

/* SPDX-License-Identifier: MIT */
/* Messages of fixed size over a SOCK_SEQPACKET socket, with at most one descriptor beside each. */
#ifndef CKF_SCM_H
#define CKF_SCM_H

#include <stddef.h>
#include <stdint.h>

/* fd: -1 for none. 0, or -errno. Allocates nothing and may be called in any thread. */
int ckf_scm_send(int sock, const void *msg, size_t bytes, int fd);

/*
 * The same until deadline_ns (ckf_now_ns(); 0: for ever), then -ETIMEDOUT. Also on a socket that
 * its peer shares with us and has set options of.
 */
int ckf_scm_send_until(int sock, const void *msg, size_t bytes, int fd, uint64_t deadline_ns);

/*
 * The bytes received, 0 at the end, or -errno: -EMSGSIZE for a message that is longer, -EBADMSG for
 * one with more descriptors than one, or than none where fd is NULL or it is shorter, -EMFILE where
 * this process has no room for one; all of them are closed then. *fd is -1 or a descriptor,
 * close-on-exec, that is the caller's.
 */
int ckf_scm_recv(int sock, void *msg, size_t bytes, int *fd);
int ckf_scm_recv_until(int sock, void *msg, size_t bytes, int *fd, uint64_t deadline_ns);

#endif

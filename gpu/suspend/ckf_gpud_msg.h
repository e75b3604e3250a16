/* SPDX-License-Identifier: MIT */
/* Messages of gpud with a deadline, for both sides. */
#ifndef CKF_GPUD_MSG_H
#define CKF_GPUD_MSG_H

#include "ckf_gpud.h"

/* As ckf_gpud_send() and ckf_gpud_recv(). deadline_ns: of ckf_now_ns(); 0: for ever. */
int gpud_send_until(int sock, const struct ckf_gpud_msg *m, int fd, uint64_t deadline_ns,
		    struct ckf_error *err);
int gpud_recv_until(int sock, struct ckf_gpud_msg *m, int *fd, uint64_t deadline_ns,
		    struct ckf_error *err);

/* ckf_gpud_call() in two halves. *deadline_ns: of both. */
int gpud_call_send(int sock, const struct ckf_gpud_msg *m, int fd, uint64_t *deadline_ns,
		   struct ckf_error *err);
int gpud_call_recv(int sock, struct ckf_gpud_msg *m, uint64_t deadline_ns, struct ckf_error *err);

/* The error that an ERROR message says: below 0, whatever number is in it. */
int gpud_answered_error(const struct ckf_gpud_msg *m, struct ckf_error *err);
/* Receives an answer that is to be op: an ERROR becomes err and -errno, another one -EBADMSG. */
int gpud_answer(int sock, uint32_t op, struct ckf_gpud_msg *m, struct ckf_error *err);

#endif

/* SPDX-License-Identifier: MIT */
/*
 * Questions to the kernel whose answer may be the end of who asks, or take for ever. doctor_ask()
 * runs this program anew for each one.
 */
#include <errno.h>
#include <linux/io_uring.h>
#include <linux/netlink.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/sched.h>
#include <linux/userfaultfd.h>
#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "doctor.h"

#ifndef UFFD_USER_MODE_ONLY
#define UFFD_USER_MODE_ONLY 1
#endif
#ifndef UFFD_FEATURE_MOVE
#define UFFD_FEATURE_MOVE (1 << 16)
#endif
#define TOO_MANY_PID_NS 33 /* MAX_PID_NS_LEVEL of the kernel is 32 */

static json_t *say_errno(int error)
{
	return json_pack("{si}", "errno", error);
}

static json_t *ask_uring(void)
{
	struct io_uring_params p = { 0 };
	int fd = (int)syscall(SYS_io_uring_setup, 1, &p), error = errno;

	if (fd >= 0)
		close(fd);
	return say_errno(fd < 0 ? error : 0);
}

static json_t *ask_userfaultfd(void)
{
	struct uffdio_api api = { .api = UFFD_API, .features = UFFD_FEATURE_MOVE };
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);
	json_t *obj = say_errno(fd < 0 ? errno : 0);

	if (fd < 0)
		return obj;
	json_object_set_new(
		obj, "move",
		json_boolean(!ioctl(fd, UFFDIO_API, &api) && (api.features & UFFD_FEATURE_MOVE)));
	close(fd);
	return obj;
}

/* EINVAL where set_tid is read, since there are not so many namespaces. Makes no process. */
static json_t *ask_set_tid(void)
{
	pid_t ids[TOO_MANY_PID_NS] = { 0 };
	struct clone_args args = {
		.set_tid = (uintptr_t)ids,
		.set_tid_size = TOO_MANY_PID_NS,
	};
	long ret = syscall(SYS_clone3, &args, sizeof(args));

	return say_errno(ret < 0 ? errno : 0);
}

/* Asks nf_tables for the number of its last change. The answer has it, or an error. */
static json_t *ask_nftables(void)
{
	struct {
		struct nlmsghdr head;
		struct nfgenmsg gen;
	} ask = {
		.head = { .nlmsg_len = sizeof(ask),
			  .nlmsg_type = NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETGEN,
			  .nlmsg_flags = NLM_F_REQUEST },
	};
	struct {
		struct nlmsghdr head;
		struct nlmsgerr err;
		char rest[256];
	} got = { 0 };
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_NETFILTER), error = 0;

	if (fd < 0)
		return say_errno(errno);
	if (send(fd, &ask, sizeof(ask), 0) != sizeof(ask) ||
	    recv(fd, &got, sizeof(got), 0) < (ssize_t)sizeof(got.head))
		error = errno ? errno : EPROTO;
	else if (got.head.nlmsg_type == NLMSG_ERROR)
		error = -got.err.error;
	close(fd);
	return say_errno(error);
}

/* Not of the machine, but of where this program is installed. */
static json_t *ask_agent(void)
{
	struct ckf_error err = { 0 };
	char path[CLI_OWN_BYTES];
	int ret = cli_find_agent(path, &err);

	return json_pack("{si so}", "errno", -ret, ret ? "message" : "path",
			 cli_json_string(ret ? err.msg : path));
}

static const struct {
	const char *question;
	json_t *(*ask)(void);
} questions[] = {
	{ "io_uring", ask_uring },   { "userfaultfd", ask_userfaultfd },
	{ "set_tid", ask_set_tid },  { "nftables", ask_nftables },
	{ "cuda", doctor_ask_cuda }, { "gpud", doctor_ask_gpud },
	{ "agent", ask_agent },
};

int doctor_probe(const struct cli_verb *verb, const char *question)
{
	for (size_t i = 0; i < sizeof(questions) / sizeof(questions[0]); i++)
		if (!strcmp(question, questions[i].question))
			return cli_json_print(verb, questions[i].ask());
	return cli_usage(verb, "--probe %s: no such question", question);
}

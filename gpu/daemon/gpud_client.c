/* SPDX-License-Identifier: MIT */
/*
 * Which users gpud serves, with which rights, and how much at a time.
 *
 * Root and the user that gpud runs as are trusted. A member of the group is not: gpud has rights
 * that the member does not have, so all that it does with files for a member is done with the
 * member's own ids, and only processes of the member are checkpointed. Ids of a thread are taken
 * over by the threads that it starts, so setting them once for the thread of a connection is enough
 * for its jobs and for the connections that join it.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "gpud.h"

#define STATUS_BYTES 4096
#define NOBODY ((uid_t)-1) /* setfsuid() changes nothing, and says who it is */

bool gpud_client_trusted(const struct ucred *peer)
{
	return !peer->uid || peer->uid == geteuid();
}

/* The supplementary groups of the peer, for free(): how many, or -errno. */
static int peer_groups(int sock, gid_t **groups)
{
	socklen_t bytes = 0;

	*groups = NULL;
	if (!getsockopt(sock, SOL_SOCKET, SO_PEERGROUPS, NULL, &bytes))
		return 0;
	if (errno != ERANGE)
		return -errno;
	*groups = malloc(bytes);
	if (!*groups)
		return -ENOMEM;
	if (getsockopt(sock, SOL_SOCKET, SO_PEERGROUPS, *groups, &bytes)) {
		free(*groups);
		*groups = NULL;
		return -EIO;
	}
	return (int)(bytes / sizeof(**groups));
}

bool gpud_client_allowed(const struct ckf_gpud *g, int sock, const struct ucred *peer)
{
	const struct ckf_gpud_group *group = &g->opts.group;
	bool member = peer->gid == group->gid;
	gid_t *groups;
	int nr;

	if (gpud_client_trusted(peer))
		return true;
	if (!group->set)
		return false;
	nr = peer_groups(sock, &groups);
	for (int i = 0; i < nr; i++)
		member |= groups[i] == group->gid;
	free(groups);
	return member;
}

int gpud_client_become(const struct gpud_conn *c, struct ckf_error *err)
{
	const struct ucred *peer = &c->peer;
	gid_t *groups;
	long ret;
	int nr;

	/* In a thread of its member it has been done, and the socket is one of gpud's own. */
	if (gpud_client_trusted(peer) || (uid_t)setfsuid(NOBODY) == peer->uid)
		return 0;
	nr = peer_groups(c->sock, &groups);
	/* The system call is of this thread alone, unlike the function of libc. */
	ret = nr < 0 ? nr : syscall(SYS_setgroups, (size_t)nr, groups);
	free(groups);
	setfsgid(peer->gid);
	setfsuid(peer->uid);
	if (!ret && (gid_t)setfsgid(NOBODY) == peer->gid && (uid_t)setfsuid(NOBODY) == peer->uid)
		return 0;
	return ckf_error_set(err, -EPERM, "gpud cannot take the ids of user %u", peer->uid);
}

/* All ids of the line are id. */
static bool ids_are(const char *status, const char *line, unsigned int id)
{
	const char *at = strstr(status, line);
	unsigned int ids[4];

	if (!at ||
	    sscanf(at + strlen(line), "%u %u %u %u", &ids[0], &ids[1], &ids[2], &ids[3]) != 4)
		return false;
	return ids[0] == id && ids[1] == id && ids[2] == id && ids[3] == id;
}

/* As ptrace(2) asks: all ids are the member's, and it is not one that hides its memory. */
static bool owns(const struct ucred *peer, int pid)
{
	char path[64], status[STATUS_BYTES];
	struct stat st;
	size_t len;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d", pid);
	if (stat(path, &st) || st.st_uid != peer->uid)
		return false;
	snprintf(path, sizeof(path), "/proc/%d/status", pid);
	f = fopen(path, "re");
	if (!f)
		return false;
	len = fread(status, 1, sizeof(status) - 1, f);
	fclose(f);
	status[len] = '\0';
	return ids_are(status, "\nUid:", peer->uid) && ids_are(status, "\nGid:", peer->gid);
}

int gpud_client_check_process(const struct gpud_conn *c, int pid, struct ckf_error *err)
{
	if (gpud_client_trusted(&c->peer) || owns(&c->peer, pid))
		return 0;
	return ckf_error_set(err, -EPERM, "the process is not one of user %u", c->peer.uid);
}

/* What the user of c has under way in all connections but c. With the lock held. */
static void user_has(const struct gpud_conn *c, unsigned int *requests, uint64_t *bytes)
{
	*requests = 0;
	*bytes = 0;
	for (const struct gpud_conn *o = c->g->conns; o; o = o->next) {
		if (o == c || o->peer.uid != c->peer.uid)
			continue;
		*requests += atomic_load(&o->kind) != GPUD_IDLE;
		*bytes += o->held_bytes;
	}
}

int gpud_client_begin(struct gpud_conn *c, enum gpud_job_kind kind, struct ckf_error *err)
{
	const unsigned int limit = c->g->opts.client_requests;
	unsigned int requests;
	uint64_t bytes;
	int ret = 0;

	pthread_mutex_lock(&c->g->lock);
	user_has(c, &requests, &bytes);
	if (limit && requests >= limit) {
		c->g->refused[GPUD_REFUSED_REQUESTS]++;
		ret = ckf_error_set(err, -EDQUOT,
				    "user %u has %u requests under way, and may have no more "
				    "(--client-requests)",
				    c->peer.uid, requests);
	} else {
		atomic_store(&c->kind, kind);
	}
	pthread_mutex_unlock(&c->g->lock);
	return ret;
}

int gpud_client_hold(struct gpud_conn *c, uint64_t more, struct ckf_error *err)
{
	const uint64_t limit = c->g->opts.client_bytes;
	unsigned int requests;
	uint64_t bytes;
	int ret = 0;

	pthread_mutex_lock(&c->g->lock);
	user_has(c, &requests, &bytes);
	if (limit && (more > limit || bytes > limit - more)) {
		c->g->refused[GPUD_REFUSED_BYTES]++;
		ret = ckf_error_set(err, -EDQUOT,
				    "the image needs %llu MiB of GPU memory, user %u has %llu MiB "
				    "under way and may have %llu MiB at a time (--client-bytes)",
				    (unsigned long long)more >> 20, c->peer.uid,
				    (unsigned long long)bytes >> 20,
				    (unsigned long long)limit >> 20);
	} else {
		c->held_bytes = more;
	}
	pthread_mutex_unlock(&c->g->lock);
	return ret;
}

void gpud_client_end(struct gpud_conn *c)
{
	pthread_mutex_lock(&c->g->lock);
	atomic_store(&c->kind, GPUD_IDLE);
	c->held_bytes = 0;
	pthread_mutex_unlock(&c->g->lock);
}

#!/bin/bash
# SPDX-License-Identifier: MIT
# Ids that processes get after a restore are those that they get after one from the dump, and restores of neighbours at the
# same time do not take ids of each other.
. "$(dirname "$0")/lib.sh"

LAST=/proc/sys/kernel/ns_last_pid
FIRST=5000
AT_ONCE=6
ROUNDS=${CKF_LONG:+50}
ROUNDS=${ROUNDS:-2}

# make_process ID: which gets that id.
make_process() {
	local try
	for try in 1 2 3 4 5 6 7 8; do
		echo $(($1 - 2 + try % 2)) >$LAST
		start_ready "$PROGS/traces" . plain 64
		[ "$PID" != "$1" ] || return 0
		stop "$PID"
	done
	fail "no process gets the id $1"
}

# In a pid namespace where nothing else runs. CRIU itself makes processes before the tasks; how many depends on what it
# was built with and whether it still has to ask what the kernel can do, so one program, which has asked, restores both.
# It keeps that in a /run of its own: another criu at the same time would replace it.
last_pid_after() {
	local restore=$1
	unshare --pid --fork --mount-proc --kill-child "$PROGS/reaper" 60 "$BASH" -c \
		"mount --bind $D/run /run; echo 100 >$LAST; $restore >/dev/null 2>&1 || echo failed; cat $LAST"
}

same_last_pid() {
	local threads dump fast
	mkdir "$D/run"
	last_pid_after "$CRIU check" >/dev/null
	dump=$(last_pid_after "$CRIU restore -d -D $D/dump.$FIRST -o $D/stock.log")
	for threads in 1 4; do
		fast=$(last_pid_after "$CRIU restore -d -D $D/fast.$FIRST -o $D/restore.log --fast-threads $threads")
		[ "$fast" = "$dump" ] || fail "last pid $fast with $threads threads, $dump from the dump"
	done
}

at_once() {
	local id round bad jobs
	for ((round = 0; round < ROUNDS; round++)); do
		bad=
		jobs=()
		for ((id = FIRST; id < FIRST + AT_ONCE; id++)); do
			"$CRIU" restore -D "$D/fast.$id" -d -v4 -o "$D/restore.$id.log" --fast-threads 4 &
			jobs+=($!)
		done
		for id in "${jobs[@]}"; do
			wait "$id" || bad+=" $id"
		done
		[ -z "$bad" ] || fail "round $round: $(grep -ah Error "$D"/restore.*.log | head -n 3)"
		for ((id = FIRST; id < FIRST + AT_ONCE; id++)); do
			check "$id"
			stop "$id"
		done
	done
}

# Preloaded, it writes from the first reads of a worker whether the namespace can be locked.
cat >lock.c <<'END'
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/uio.h>
#include <unistd.h>

static void try_lock(void)
{
	const int ns = open("/proc/self/ns/pid", O_RDONLY | O_CLOEXEC);
	const int report = open(getenv("LOCK_REPORT"), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
	int tries = 10000;

	while (flock(ns, LOCK_EX | LOCK_NB) && --tries)
		usleep(1000);
	dprintf(report, "%s\n", tries ? "free" : "locked");
	flock(ns, LOCK_UN);
	close(ns);
	close(report);
}

ssize_t preadv64(int fd, const struct iovec *iov, int n, off64_t off)
{
	static int tried;
	ssize_t (*next)(int, const struct iovec *, int, off64_t) = dlsym(RTLD_NEXT, "preadv64");

	if (gettid() != getpid() && !__atomic_exchange_n(&tried, 1, __ATOMIC_RELAXED))
		try_lock();
	return next(fd, iov, n, off);
}
END

# Workers have copies of all descriptors of their task, and the lock of the namespace must not stay with them: fills of
# other tasks and of other restores would wait for the end of this one.
locked_briefly() {
	"${CC:-gcc}" -O2 -shared -fPIC -o lock.so lock.c || skip "no compiler"
	start_ready "$PROGS/traces" . plain 64
	dump "$PID" "$D/dump"
	convert "$D/dump" "$D/fast" --codec raw
	CKF_NO_URING=1 LOCK_REPORT=$D/report.lock LD_PRELOAD=$W/lock.so "$CRIU" restore -D "$D/fast" -d -v4 \
		-o "$D/restore.log" --fast-threads 2 || fail "restore: $(log_errors "$D/restore.log")"
	stop "$PID"
	[ "$(cat "$D/report.lock")" = free ] || fail "while a worker reads, the namespace is $(cat "$D/report.lock")"
}

neighbours() {
	local id
	[ -w $LAST ] || skip "the last pid cannot be set"
	for ((id = FIRST; id < FIRST + AT_ONCE; id++)); do
		make_process $id
		dump "$PID" "$D/dump.$id"
		convert "$D/dump.$id" "$D/fast.$id"
	done
	same_last_pid
	# Away from the ids, which criu processes must not take.
	echo 20000 >$LAST
	at_once
	locked_briefly
}

every_version
each_version neighbours

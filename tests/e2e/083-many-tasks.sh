#!/bin/bash
# SPDX-License-Identifier: MIT
# Many tiny tasks in a memory cgroup with a tenth more than the stock CRIU takes at most: tasks write
# to few pages that they share with their parent, and what the fills of all of them take beside is
# hardly there at the same time. The latter shows with a thousand tasks, which long runs have.
. "$(dirname "$0")/lib.sh"

TASKS=300
[ -z "${CKF_LONG:-}" ] || TASKS=1000
KIB=64

# restore_in COMMAND…: in a new G with the limit LIMIT, if there is one. Sets PEAK.
restore_in() {
	local ret=0
	in_cgroup memory memory.limit_in_bytes=${LIMIT:--1} memory.max=${LIMIT:-max} ||
		skip "no memory controller of cgroups"
	rm -f "$D"/report* "$D/restore.log"
	(
		echo "$BASHPID" >"$G/cgroup.procs"
		exec "$@" -d -o "$D/restore.log"
	) >"$D/out" 2>&1 || ret=$?
	PEAK=$(cat "$G/memory.max_usage_in_bytes" 2>/dev/null || cat "$G/memory.peak" 2>/dev/null) || PEAK=0
	if [ $ret = 0 ]; then
		check_tasks
		stop "$PID"
	else
		# A criu that is killed leaves its tasks behind.
		signal_all KILL $(cat "$G/cgroup.procs")
	fi
	leave_cgroup
	[ "$PEAK" -gt 0 ] || skip "cgroups do not tell the most that they took (Linux 5.19)"
	return $ret
}

check_tasks() {
	local pid rank
	for pid in $(tree_of "$PID"); do
		kill -USR1 "$pid"
	done
	for ((rank = 0; rank < TASKS; rank++)); do
		wait_for 60 test -e "$D/report.$rank" || fail "process $rank does not answer"
	done
	! grep -L ^OK "$D"/report.* | grep . || fail "memory is not what it was"
}

many_tasks() {
	local stock
	start "$PROGS/bench_mem" . tasks ${KIB}K heap $TASKS
	wait_ready ready.$((TASKS - 1))
	dump "$PID" "$D/dump"
	convert "$D/dump" "$D/fast"
	LIMIT=
	restore_in "$CRIU_STOCK" restore -D "$D/dump" || fail "stock: $(log_errors "$D/restore.log")"
	stock=$PEAK
	# CRIU is larger with the library and the index.
	LIMIT=$((PEAK + PEAK / 10 + (8 << 20)))
	restore_in "$CRIU" restore -D "$D/fast" --fast-image ||
		fail "in $LIMIT bytes, where stock took $stock: $(log_errors "$D/restore.log")"
	echo "$V: stock took $((stock >> 10)) KiB at most, fast $((PEAK >> 10))"
}

each_version many_tasks

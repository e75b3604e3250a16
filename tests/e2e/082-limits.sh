#!/bin/bash
# SPDX-License-Identifier: MIT
# In a cgroup that allows no further threads, or hardly more memory than the process has: the restore
# does with what there is.
. "$(dirname "$0")/lib.sh"

MIB=40

# in_cgroup CONTROLLER FILE1=VALUE FILE2=VALUE: makes G, a cgroup with a limit; the first is the name of
# the file in version 1, the second in version 2.
in_cgroup() {
	local top=/sys/fs/cgroup name=ckfast-test-$RANDOM-$V-$1 setting
	if [ -e "$top/$1/cgroup.procs" ]; then
		G=$top/$1/$name
		setting=$2
	elif grep -qw "$1" $top/cgroup.subtree_control 2>/dev/null; then
		G=$top/$name
		setting=$3
	else
		return 1
	fi
	mkdir "$G" 2>/dev/null || return 1
	if ! echo "${setting#*=}" >"$G/${setting%%=*}"; then
		rmdir "$G"
		return 1
	fi
}

leave_cgroup() {
	wait_for 20 rmdir "$G" 2>/dev/null || fail "cannot remove $G"
}

# restore_in: as restore_fast(), but in G.
restore_in() {
	rm -f "$D/stats"
	(
		echo "$BASHPID" >"$G/cgroup.procs"
		exec "$CRIU" restore -D "$D/fast" -d -v4 -o "$D/restore.log" --fast-image \
			--fast-threads 4 --fast-stats "$D/stats"
	) || fail "restore in $G: $(log_errors "$D/restore.log")"
}

stat_of() {
	"$PYTHON" -c 'import json, sys
print(json.load(open(sys.argv[1]))[sys.argv[2]])' "$D/stats" "$1"
}

# Room for criu and the task. A single worker then is the task itself.
no_threads() {
	in_cgroup pids pids.max=2 pids.max=2 || {
		SKIPPED+=" pids"
		return 0
	}
	restore_in
	check "$PID" report.0
	[ "$(stat_of workers)" = 1 ] || fail "$(stat_of workers) workers where none was allowed"
	stop "$PID"
	leave_cgroup
}

# The workers need some for themselves, 2 MiB each at most.
little_memory() {
	local bytes=$(((MIB + 6) << 20))
	in_cgroup memory memory.limit_in_bytes=$bytes memory.max=$bytes || {
		SKIPPED+=" memory"
		return 0
	}
	restore_in
	echo "$V: $(stat_of huge_pages) huge pages"
	check "$PID" report.0
	stop "$PID"
	leave_cgroup
}

limits() {
	start "$PROGS/bench_mem" . anon $MIB random
	wait_ready ready.0
	dump "$PID" "$D/dump"
	convert "$D/dump" "$D/fast"
	no_threads
	little_memory
}

SKIPPED=
each_version limits
[ -z "$SKIPPED" ] || skip "no cgroup controllers for limits here:$SKIPPED"

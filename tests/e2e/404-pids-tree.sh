#!/bin/bash
# SPDX-License-Identifier: MIT
# A cgroup with just as much room for processes as the stock CRIU needs for a tree with many threads.
. "$(dirname "$0")/lib.sh"

G=/sys/fs/cgroup/pids/ckfast-test-$RANDOM
[ -d /sys/fs/cgroup/pids ] || G=/sys/fs/cgroup/ckfast-test-$RANDOM
mkdir "$G" 2>/dev/null && [ -e "$G/pids.max" ] || skip "no pids cgroups"
trap 'rmdir "$G" 2>/dev/null; at_exit' EXIT

# restores_in MOST CRIU DIR OPTIONS…
restores_in() {
	local most=$1
	shift
	echo "$most" >"$G/pids.max"
	(
		echo "$BASHPID" >"$G/cgroup.procs"
		exec "$1" restore -D "$2" -d -v4 -o "$D/restore.log" "${@:3}"
	) >/dev/null 2>&1
}

tight() {
	local most try
	start_ready "$PROGS/traces" . tree 256 40
	sleep 0.5
	dump "$PID" "$D/dump"
	convert "$D/dump" "$D/fast"
	for ((most = 42; ; most++)); do
		[ $most -lt 60 ] || fail "the stock CRIU restores with no limit below $most"
		if restores_in $most "$CRIU_STOCK" "$D/dump"; then
			stop "$PID"
			break
		fi
		wait_for 20 is_empty || fail "the cgroup does not get empty"
	done
	for try in 1 2 3 4; do
		restores_in $((most + try - 1)) "$CRIU" "$D/fast" --fast-threads 4 ||
			fail "$((most + try - 1)) allowed, $most is enough for the stock CRIU: $(log_errors "$D/restore.log")"
		check "$PID"
		stop "$PID"
		wait_for 20 is_empty || fail "the cgroup does not get empty"
	done
	# And where there is room, there are workers.
	restores_in 1000 "$CRIU" "$D/fast" --fast-threads 4 --fast-stats "$D/stats" || fail "no tight limit"
	"$PYTHON" -c 'import json, sys
stats = json.load(open(sys.argv[1]))
sys.exit(stats["workers"] <= stats["fills"])' "$D/stats" || fail "no workers with much room: $(cat "$D/stats")"
	stop "$PID"
}

is_empty() {
	[ ! -s "$G/cgroup.procs" ] && [ "$(cat "$G/pids.current")" = 0 ]
}

each_version tight

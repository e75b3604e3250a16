#!/bin/bash
# SPDX-License-Identifier: MIT
# Children that are forked by their siblings: each has the parent, session, group and signals that it
# had, and shares its memory. At the end criu leaves nothing in any of them. If one's id is taken, or one
# is killed, the restore ends and nothing stays.
. "$(dirname "$0")/lib.sh"

CLONE_PARENT=0x8000
WAYS=(1 2 16)
[ -z "${CKF_LONG:-}" ] || WAYS=(1 2 3 5 16)

# family PID…: a line for each, zombies among them: id, name, state, parent, group, session and signal at its end.
family() {
	local p
	for p; do
		# The state of one that waits or runs differs from one moment to the next, and so does who restores the root.
		awk -v root="$PID" '{ sub(/^[RSD]$/, "S", $3); if ($1 == root) $4 = 0; print $1, $2, $3, $4, $5, $6, $38 }' \
			"/proc/$p/stat"
	done
}

# For each task its mappings' names and access, and the signals that each thread blocks.
rest() {
	local p
	for p in $ALL; do
		awk '{ print $2, $6 }' "/proc/$p/maps"
		awk -v pid=$p '$1 == "SigBlk:" { print pid, $2 }' /proc/$p/task/*/status
	done
}

# In KiB; each page counts once.
pss() {
	local p
	for p in $ALL; do
		cat "/proc/$p/smaps_rollup" 2>/dev/null || true
	done | awk '$1 == "Pss:" { sum += $2 } END { print sum }'
}

# How many tasks of the last restore were forked by their siblings.
siblings() {
	grep -ac "Forking task with .* (flags $CLONE_PARENT)" "$D/restore.log" || true
}

relations() {
	local ways cpus stock fast
	start_ready "$PYTHON" "$ROOT/tests/progs/family.py"
	ALL=$(tree_of "$PID")
	CHILDREN=$(family $ALL | awk -v root="$PID" '$4 == root && $3 == "S" { print $1 }')
	[ "$(wc -w <<<"$ALL")" -ge 26 ] || fail "a small family: $ALL"
	dump "$PID" "$D/dump"
	convert "$D/dump" "$D/fast"
	restore_stock "$D/dump"
	family $ALL >"$D/stock.family"
	rest >"$D/stock.rest"
	stock=$(pss)
	stop_all
	for ways in "${WAYS[@]}"; do
		restore_fast "$D/fast" --fast-threads $ways
		[ $(($(siblings) > 0)) = $((ways > 1)) ] || fail "$ways: $(siblings) are forked by siblings"
		family $ALL >"$D/fast.family"
		diff "$D/stock.family" "$D/fast.family" || fail "$ways: other relations than with the stock CRIU"
		rest >"$D/fast.rest"
		diff "$D/stock.rest" "$D/fast.rest" || fail "$ways: a task is not as the stock CRIU leaves it"
		fast=$(pss)
		[ "$fast" -le $((stock + stock / 10)) ] || fail "$ways: Pss $fast KiB, stock $stock KiB"
		stop_all
	done
	for cpus in 2 4; do
		LD_PRELOAD=$PROGS/cpus.so CKF_TEST_CPUS=$cpus restore_fast "$D/fast"
		[ $(($(siblings) > 0)) = $((cpus > 2)) ] || fail "$cpus CPUs: $(siblings) are forked by siblings"
		stop_all
	done
	id_taken
	one_killed
}

# The one whose session's leader is gone is not the root's any more after a restore, by any CRIU.
stop_all() {
	signal_all KILL $ALL
	all_gone $ALL
}

# is_refused WAYS ID
is_refused() {
	! restore_once "$CRIU" "$D/fast" --fast-image --fast-threads $1 2>/dev/null ||
		fail "$1: restored, although id $2 was taken"
	grep -aq "Can't fork for $2: File exists" "$D/restore.log"
}

# Each third of the children in turn: some fork others, and some are forked by others.
id_taken() {
	local nr=0 taken other ways
	for taken in $CHILDREN; do
		[ $((nr++ % 3)) = 0 ] || [ -n "${CKF_LONG:-}" ] || continue
		ways=${WAYS[nr % ${#WAYS[@]}]}
		echo $((taken - 1)) >/proc/sys/kernel/ns_last_pid
		sleep 1000 &
		other=$!
		[ $other = $taken ] || fail "process $other, not $taken"
		# The id of one that has ended is taken a moment longer.
		wait_for 5 is_refused $ways $taken ||
			fail "$ways: id $taken was taken, and the log says: $(log_errors "$D/restore.log")"
		kill $other
		wait $other 2>/dev/null || true
		all_gone $ALL
	done
}

# Starts a restore whose process LARGE is there. Sets RESTORE.
start_restore() {
	local try
	for try in 1 2 3 4 5; do
		"$CRIU" restore -D "$D/fast" -d -v4 -o "$D/restore.log" --fast-image --fast-threads 2 9<&- 2>/dev/null &
		RESTORE=$!
		wait_for 20 test -d "/proc/$LARGE" -o ! -d "/proc/$RESTORE" || fail "process $LARGE is not forked"
		[ -d "/proc/$RESTORE" ] && return
		# The id of one that has ended is taken a moment longer.
		grep -aq "Can't fork for .*: File exists" "$D/restore.log" || fail "$(log_errors "$D/restore.log")"
	done
	fail "an id stays taken: $(log_errors "$D/restore.log")"
}

# Whoever has much memory waits for the lock of the pid namespace, and those who fork for its own lock.
one_killed() {
	local delay
	LARGE=$(cat "$D/large")
	for delay in 0.05 0.1 0.2 0.4; do
		(
			flock 9
			start_restore
			sleep $delay
			kill -KILL "$LARGE" || fail "process $LARGE has ended before"
			! wait $RESTORE || fail "restored without process $LARGE"
		) 9</proc/self/ns/pid
		all_gone $ALL
	done
}

each_version relations

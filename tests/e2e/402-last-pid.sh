#!/bin/bash
# SPDX-License-Identifier: MIT
# Ids that processes get after a restore are those that they get after one from the dump, and restores of neighbours at the
# same time do not take ids of each other.
. "$(dirname "$0")/lib.sh"

LAST=/proc/sys/kernel/ns_last_pid
FIRST=5000
AT_ONCE=6
ROUNDS=${CKF_LONG:+50}
ROUNDS=${ROUNDS:-4}

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
# was built with, so one program restores both.
last_pid_after() {
	local restore=$1
	unshare --pid --fork --mount-proc --kill-child "$PROGS/reaper" 60 "$BASH" -c \
		"echo 100 >$LAST; $restore -d >/dev/null 2>&1 || echo failed; cat $LAST"
}

same_last_pid() {
	local threads dump fast
	dump=$(last_pid_after "$CRIU restore -D $D/dump.$FIRST -o $D/stock.log")
	for threads in 1 4; do
		fast=$(last_pid_after "$CRIU restore -D $D/fast.$FIRST -o $D/restore.log --fast-threads $threads")
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
}

each_version neighbours

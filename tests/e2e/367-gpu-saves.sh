#!/bin/bash
# SPDX-License-Identifier: MIT
# The memory of all processes of a dump is saved at once, on a slow GPU so that it is seen; if the dump
# ends meanwhile, nothing goes on being written, no half of it is left, and the processes go on. The
# driver suspends all of them at the same time, and so it wakes them, at a restore and after a dump.
. "$(dirname "$0")/gpu.sh"
. "$ROOT/tests/e2e/share.sh"

# saving N: so many processes' memory is being saved.
saving() {
	local nr
	nr=$("$CKFAST" gpud --socket "$CKFAST_GPUD_SOCKET" --status --json | grep -c '"kind": "save"')
	[ "$nr" -ge "$1" ]
}

# In a subshell, which it becomes.
dump_leaving() {
	mkdir -p "$D/dump"
	exec "$CRIU" dump -t "$PID" -D "$D/dump" -v4 -o "$D/dump.log" --libdir "$(plugin_of "$CRIU")" --leave-running
}

start_dump() {
	dump_leaving &
	DUMP=$!
}

saves() {
	local pages
	export CKF_STUB_DELAY_US=300000
	gpud_start --threads 1
	unset CKF_STUB_DELAY_US
	share_start agent how=ipc procs=3
	start_dump
	wait_for 20 saving 3 || fail "the memory of three processes is not saved at once"
	wait "$DUMP" || fail "dump: $(log_errors "$D/dump.log")"
	share_round
	rm -rf "$D/dump"
	start_dump
	wait_for 20 saving 3 || fail "the memory of three processes is not saved at once again"
	kill -TERM "$DUMP"
	! wait "$DUMP" || fail "a dump that was ended has succeeded"
	for pages in "$D"/dump/ckfast-gpu-pages-*.img; do
		[ ! -e "$pages" ] || [ -e "${pages/pages-/}" ] || fail "pages without a table: $(ls "$D/dump")"
	done
	! saving 1 || fail "memory is still being saved"
	share_round
	stop "$PID"
	gpud_stop
	gpu_idle
	rm -rf "$D/dump"
}

# With a driver whose calls for one process do not end before those for the others begin.
meeting_start() {
	export CKF_STUB_MEET=cuCheckpointProcessCheckpoint:3,cuCheckpointProcessRestore:3
	gpud_start
	unset CKF_STUB_MEET
}

# meets COMMAND…: works with such a driver.
meets() {
	local job
	("$@") &
	job=$!
	if ! wait_for 60 is_gone "$job"; then
		kill -9 "$GPUD_PID"
		fail "$1: the driver is not called for all processes at the same time"
	fi
	wait "$job" || fail "$1 fails"
}

together() {
	meeting_start
	share_start agent how=ipc procs=3
	meets dump_leaving
	share_round
	gpud_stop
	meeting_start
	meets "$CKFAST" park "${RANKS[@]}"
	meets "$CKFAST" unpark "${RANKS[@]}"
	share_round
	gpud_stop
	meeting_start
	meets gpu_dump "$D/dump"
	meets gpu_restore "$D/dump"
	share_round
	stop "$PID"
	gpud_stop
	gpu_idle
	rm -rf "$D/dump"
}

all_saved() {
	local tables=("$W"/parked/ckfast-gpu-[0-9]*.img)
	[ ${#tables[@]} = 3 ] && [ -e "${tables[2]}" ]
}

# gpud is killed while the driver suspends all of three processes, whose memory is in images alone.
park_killed() {
	local park
	export CKF_STUB_MEET=cuCheckpointProcessCheckpoint:5
	gpud_start
	unset CKF_STUB_MEET
	"$CKFAST" park "${RANKS[@]}" --dir "$W/parked" 2>park.err &
	park=$!
	wait_for 20 all_saved || fail "the memory is not saved: $(cat park.err)"
	kill -9 "$GPUD_PID"
	! wait "$park" || fail "a park without gpud has succeeded"
	GPUD_PID=
	export CKFAST_GPUD_SOCKET=$W/none
}

# What was saved is given back by another gpud, or stays until there is one.
killed() {
	share_start agent how=ipc procs=3
	park_killed
	[ ! -e "$W/parked" ] || fail "the processes have their memory, and images are left"
	share_round
	CKFAST_GPUD_HELPER=$W/nothing park_killed
	grep -q "ckfast unpark --dir $W/parked" park.err || fail "park does not say what to do: $(cat park.err)"
	"$CKFAST" unpark "${RANKS[@]}" --dir "$W/parked" >unpark.out || fail "unpark after a park that failed"
	[ ! -e "$W/parked" ] || fail "unpark has left $W/parked"
	share_round
	stop "$PID"
	gpu_idle
}

# Of processes that share memory, one fails to map it, once.
half_mapped() {
	gpud_start
	export CKF_STUB_HIT=$W/hit CKF_STUB_FAIL_ONCE=1
	share_start agent how=ipc procs=3
	unset CKF_STUB_HIT CKF_STUB_FAIL_ONCE
	"$CKFAST" park "${RANKS[@]}" --dir "$W/parked" >park.out || fail "park"
	echo cuMemImportFromShareableHandle:1 >"$D/fail1"
	rm -f "$W/hit"
	"$CKFAST" unpark "${RANKS[@]}" --dir "$W/parked" >unpark.out || fail "one failure, and no second try"
	[ -s "$W/hit" ] || fail "no call has failed"
	rm -f "$D/fail1"
	share_round
	stop "$PID"
	gpud_stop
	gpu_idle
}

each_version saves
each_version together
D=$W
killed
half_mapped

#!/bin/bash
# SPDX-License-Identifier: MIT
# Memory that processes share, by descriptors and by CUDA IPC, is one memory after a dump and a
# restore, too, and can be shared anew; park and unpark take all processes of a group. Half a group,
# a descriptor that is still open, and what the driver itself shares are refused by name, and the
# processes go on.
. "$(dirname "$0")/gpu.sh"
. "$ROOT/tests/e2e/share.sh"

# share_refused WORDS OPTIONS…: a dump of PID is refused before anything is taken.
share_refused() {
	local words=$1
	shift
	mkdir -p "$D/failed"
	! "$CRIU" dump -t "$PID" -D "$D/failed" -v4 -o "$D/dump.log" --libdir "$(plugin_of "$CRIU")" "$@" ||
		fail "this dump must fail: $words"
	grep -a Error "$D/dump.log" | grep -aq "$words" ||
		fail "the log does not say $words: $(log_errors "$D/dump.log")"
	! grep -aq 'CUDA of process .* is locked' "$D/dump.log" || fail "$words: a process was locked before"
	rm -rf "$D/failed"
}

# As many bytes of the pages files as there is memory: each memory is saved once.
saved_once() {
	local bytes
	bytes=$(stat -c %s "$D"/dump/ckfast-gpu-pages-*.img | awk '{ n += $1 } END { print n }')
	[ "$bytes" = $((8 * 1048576 + $1 * 4 * 1048576)) ] || fail "saved $bytes bytes of $1 processes"
}

# round_trip PROCS ARGS…: twice, the second time from what was restored; from the dump and from an image.
round_trip() {
	local procs=$1
	shift
	share_start agent procs="$procs" "$@"
	share_round
	mkdir -p "$D/left"
	"$CRIU" dump -t "$PID" -D "$D/left" -v4 -o "$D/dump.log" --libdir "$(plugin_of "$CRIU")" --leave-running ||
		fail "--leave-running: $(log_errors "$D/dump.log")"
	rm -rf "$D/left"
	share_round
	gpu_dump "$D/dump"
	saved_once "$procs"
	convert "$D/dump" "$D/fast"
	gpu_restore "$D/fast"
	share_round
	gpu_dump "$D/dump"
	saved_once "$procs"
	gpu_restore "$D/dump"
	share_round
	share_round
	stop "$PID"
	gpu_idle
	rm -rf "$D/dump" "$D/fast"
}

halves() {
	local root
	for how in fd ipc; do
		share_start agent how=$how procs=3 from=1
		root=$PID
		PID=${RANKS[1]}
		share_refused "process ${RANKS[1]} shares device memory with process" --shell-job
		PID=${RANKS[2]}
		share_refused "process ${RANKS[2]} shares device memory with process" --shell-job
		PID=$root
		share_round
		! "$CKFAST" park "${RANKS[1]}" "${RANKS[2]}" --dir "$W/parked" 2>err || fail "half a group was parked"
		grep -q "shares device memory with process ${RANKS[0]}," err ||
			fail "the message names no process: $(cat err)"
		[ ! -e "$W/parked" ] || fail "a park that was refused has left $W/parked"
		share_round
		# Its parent does not wait for it.
		kill -9 "${RANKS[1]}"
		wait_for 20 grep -q '^State:.Z' "/proc/${RANKS[1]}/status" || fail "the exporter does not end"
		RANKS=("$root" "${RANKS[2]}")
		share_refused "has memory of another one, which"
		stop "$root"
		gpu_idle
	done
}

refusals() {
	share_start agent how=fd hold
	share_refused "process ${RANKS[0]} holds descriptor .* of device memory"
	share_round
	stop "$PID"
	share_start agent how=ipc event
	share_refused "process ${RANKS[0]} shares events, or memory below 2 MiB"
	share_round
	stop "$PID"
	share_start agent how=ipc small
	share_refused "process ${RANKS[0]} shares events, or memory below 2 MiB"
	share_round
	stop "$PID"
	gpu_idle
}

parked() {
	local how=$1
	share_start agent how="$how" procs=3
	share_round
	"$CKFAST" park "${RANKS[@]}" --dir "$W/parked" --json >park.json || fail "park of a group"
	gpu_idle
	! "$CKFAST" unpark "${RANKS[1]}" --dir "$W/parked" 2>err || fail "one process of a group was unparked"
	grep -q "both have to get it together" err || fail "the message does not say why: $(cat err)"
	"$CKFAST" unpark "${RANKS[@]}" --dir "$W/parked" >unpark.out || fail "unpark of a group"
	[ ! -e "$W/parked" ] || fail "unpark has left $W/parked"
	share_round
	share_round
	stop "$PID"
	gpu_idle
}

shared() {
	round_trip 2 how=fd again
	round_trip 3 how=ipc again
	round_trip 2 how=fd again spread
	gpud_start
	round_trip 3 how=fd from=1
	round_trip 2 how=ipc again from=1
	round_trip 2 how=ipc again from=1 spread
	parked fd
	gpud_stop
	parked ipc
	halves
	refusals
}

each_version shared

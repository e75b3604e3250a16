#!/bin/bash
# SPDX-License-Identifier: MIT
# A CRIU that is killed by SIGKILL gives nothing back, nor does a ckfast park. Afterwards the process waits
# at its next call of CUDA, and ckfast unpark gives it its memory: from the images of the dump that was not
# finished, or where there are none yet, from what the agent has kept.
. "$(dirname "$0")/gpu.sh"

# dump_killed WORD: CRIU is killed when it has written that to its log.
dump_killed() {
	local status=0
	rm -rf "$D/failed"
	mkdir -p "$D/failed"
	# A shell of its own says "Killed", where nobody hears it.
	(
		LD_PRELOAD="$PROGS/killer.so" CKF_TEST_KILL_SAYS=$1 "$CRIU" dump -t "$PID" \
			-D "$D/failed" -v4 -o "$D/dump.log" --libdir "$(plugin_of "$CRIU")"
		exit $?
	) >"$D/killed.out" 2>&1 || status=$?
	[ $status = 137 ] || fail "the dump ends before it says '$1': $(log_errors "$D/dump.log")"
}

# given_back WORD: after such a dump.
given_back() {
	dump_killed "$1"
	"$CKFAST" unpark --dir "$D/failed" "$PID" >"$D/unpark.out" 2>&1 ||
		fail "$1: unpark: $(cat "$D/unpark.out")"
	check "$PID"
	[ -z "$(find "$D/failed" -name 'ckfast-gpu-*' 2>/dev/null)" ] || fail "$1: images are left"
}

park_writes() {
	[ -n "$(find "$D/parked" -name 'ckfast-gpu-*' 2>/dev/null)" ]
}

# Killed while its memory is saved, which takes long here.
park_killed() {
	local park
	CKF_STUB_DELAY_US=100000 "$CKFAST" park --dir "$D/parked" "$PID" &
	park=$!
	wait_for 60 park_writes || fail "park writes nothing"
	kill -9 "$park" || fail "park has ended before it was killed"
	wait "$park" || true
	[ "$(gpu_bytes)" -gt 0 ] || fail "memory that was not saved is gone"
	"$CKFAST" unpark --dir "$D/parked" "$PID" || fail "unpark after a killed park"
	check "$PID"
	rm -rf "$D/parked"
}

# What was saved is freed, and nothing else is kept.
park_frees() {
	local fds
	fds=$(ls "/proc/$PID/fd" | wc -l)
	"$CKFAST" park --dir "$D/parked" "$PID"
	[ "$("$STUB/stub-smi" "$PID" | awk '{ n += $2 } END { print n + 0 }')" = 0 ] || fail "park has freed nothing"
	gpu_idle
	[ "$(ls "/proc/$PID/fd" | wc -l)" -le "$fds" ] || fail "descriptors are left in the process"
	"$CKFAST" unpark --dir "$D/parked" "$PID"
	check "$PID"
}

killed() {
	local kind word
	for kind in agent ''; do
		app_start $kind devices=2 allocs=9 vmm
		for word in 'is locked' 'in images of their own' 'Dumping opened files'; do
			given_back "$word"
		done
		if [ -n "$kind" ]; then
			park_killed
			park_frees
		fi
		gpu_dump "$D/dump"
		gpu_restore "$D/dump"
		check "$PID"
		stop "$PID"
		gpu_idle
		rm -rf "$D/dump" "$D/failed"
	done
}

each_version killed

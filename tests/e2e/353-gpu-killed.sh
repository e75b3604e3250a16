#!/bin/bash
# SPDX-License-Identifier: MIT
# A CRIU that is killed by SIGKILL gives nothing back, nor does a ckfast park. Afterwards the process waits
# at its next call of CUDA, and ckfast unpark gives it its memory: from the images of the dump that was not
# finished, or where there are none yet, from what the agent has kept.
. "$(dirname "$0")/gpu.sh"

# killed_at WORD: CRIU is killed when its log says WORD. Fails where that came too late.
killed_at() {
	local criu
	rm -rf "$D/failed"
	mkdir -p "$D/failed"
	: >"$D/dump.log"
	"$CRIU" dump -t "$PID" -D "$D/failed" -v4 -o "$D/dump.log" --libdir "$(plugin_of "$CRIU")" &
	criu=$!
	wait_for 60 grep -aq "$1" "$D/dump.log" || fail "the log never says '$1'"
	kill -9 "$criu" 2>/dev/null || true
	! wait "$criu"
}

alive() { ! grep -qs '^State:.*[ZX]' "/proc/$PID/status" && [ -d "/proc/$PID" ]; }

# given_back KIND WORD. A CRIU that was just about to run a call in the process takes it along, whatever the
# process has of ckfast, and not at once: then once more, with another process.
given_back() {
	local tries=5
	until killed_at "$2" && "$CKFAST" unpark --dir "$D/failed" "$PID" >"$D/unpark.out" 2>&1; do
		alive && [ -s "$D/unpark.out" ] && fail "$2: unpark: $(cat "$D/unpark.out")"
		[ $((--tries)) -gt 0 ] || fail "$2: no process is left each time"
		alive || app_start $1 devices=2
		rm -f "$D/unpark.out"
	done
	check "$PID"
	[ -z "$(find "$D/failed" -name 'ckfast-gpu-*')" ] || fail "$2: images are left"
}

# Killed while its memory is saved, which takes long here.
park_killed() {
	local park tries=100
	CKF_STUB_DELAY_US=100000 "$CKFAST" park --dir "$D/parked" "$PID" &
	park=$!
	until [ -n "$(find "$D/parked" -name 'ckfast-gpu-*' 2>/dev/null)" ]; do
		[ $((--tries)) -gt 0 ] || fail "park writes nothing"
		sleep 0.05
	done
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
		app_start $kind devices=2 vmm
		for word in 'is locked' 'in images of their own' 'Dumping opened files'; do
			given_back "$kind" "$word"
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

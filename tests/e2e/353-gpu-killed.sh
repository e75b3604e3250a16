#!/bin/bash
# SPDX-License-Identifier: MIT
# A CRIU that is killed by SIGKILL gives nothing back. Afterwards the process waits at its next call of
# CUDA, and ckfast unpark gives it its memory, from the images of the dump that was not finished.
. "$(dirname "$0")/gpu.sh"

# killed_at WORD: CRIU is killed when its log says WORD.
killed_at() {
	local criu
	rm -rf "$D/failed"
	mkdir -p "$D/failed"
	: >"$D/dump.log"
	"$CRIU" dump -t "$PID" -D "$D/failed" -v4 -o "$D/dump.log" --libdir "$(plugin_of "$CRIU")" &
	criu=$!
	wait_for 60 grep -aq "$1" "$D/dump.log" || fail "the log never says '$1'"
	kill -9 "$criu" 2>/dev/null || fail "CRIU had ended before '$1'"
	! wait "$criu" || fail "'$1' came too late"
	[ -d "/proc/$PID" ] || fail "$1: the process is gone"
}

killed() {
	local kind word
	for kind in agent ''; do
		app_start $kind devices=2
		for word in 'is locked' 'in images of their own' 'Dumping opened files'; do
			# With the agent, calls go on between the lock and the images.
			[ "$kind$word" != 'agentis locked' ] || continue
			killed_at "$word"
			"$CKFAST" unpark --dir "$D/failed" "$PID" >"$D/unpark.out" 2>&1 ||
				fail "$word: unpark: $(cat "$D/unpark.out")"
			check "$PID"
			[ -z "$(find "$D/failed" -name 'ckfast-gpu-*')" ] || fail "$word: images are left"
		done
		gpu_dump "$D/dump"
		gpu_restore "$D/dump"
		check "$PID"
		stop "$PID"
		gpu_idle
		rm -rf "$D/dump" "$D/failed"
	done
}

each_version killed

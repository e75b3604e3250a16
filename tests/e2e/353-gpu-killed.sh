#!/bin/bash
# SPDX-License-Identifier: MIT
# A CRIU that is killed by SIGKILL gives nothing back. Afterwards the process waits at its next call of
# CUDA, and ckfast unpark gives it its memory, from the images of the dump that was not finished.
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

killed() {
	local kind word
	for kind in agent ''; do
		app_start $kind devices=2
		for word in 'is locked' 'in images of their own' 'Dumping opened files'; do
			# With the agent, calls go on between the lock and the images.
			[ "$kind$word" != 'agentis locked' ] || continue
			given_back "$kind" "$word"
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

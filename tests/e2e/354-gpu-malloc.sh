#!/bin/bash
# SPDX-License-Identifier: MIT
# A thread is stopped while it has the lock of the only arena of malloc(), which the driver calls: nothing
# waits for it for long, and nothing is lost. The process gets its memory when it runs.
. "$(dirname "$0")/gpu.sh"

# All threads use one arena: one of them nearly always has its lock.
export MALLOC_ARENA_MAX=1
export CKF_STUB_MALLOC=$W/malloc # the driver calls malloc() while that file is there

# was_stuck LOG: whether a lock was waited for.
was_stuck() {
	grep -aq 'a thread was stopped with a lock' "$1"
}

try_dump() {
	rm -rf "$D/dump"
	mkdir -p "$D/dump"
	timeout 60 "$CRIU" dump -t "$PID" -D "$D/dump" -v4 -o "$D/dump.log" --libdir "$(plugin_of "$CRIU")" "$@"
}

# until_stuck WHAT COMMAND…: the lock may happen to be free.
until_stuck() {
	local what=$1 tries=5
	shift
	until "$@"; do
		[ $((--tries)) -gt 0 ] || fail "$what: nothing was stuck: this test has shown nothing"
	done
}

# The driver's checkpoint cannot come back: the dump fails, and the process goes on.
dump_fails() {
	touch "$CKF_STUB_MALLOC"
	if try_dump --leave-running; then
		check "$PID"
		return 1
	fi
	was_stuck "$D/dump.log" || fail "dump: $(log_errors "$D/dump.log")"
	check "$PID"
}

# It comes back, but not what gives the memory back.
left_running() {
	local script=$D/script
	rm -f "$CKF_STUB_MALLOC"
	printf '#!/bin/sh\n[ "$CRTOOLS_SCRIPT_ACTION" != post-dump ] || touch %s\n' "$CKF_STUB_MALLOC" >"$script"
	chmod +x "$script"
	try_dump --leave-running --action-script "$script" || fail "--leave-running: $(log_errors "$D/dump.log")"
	check "$PID"
	was_stuck "$D/dump.log"
}

dump_and_restore() {
	rm -f "$CKF_STUB_MALLOC"
	gpu_dump "$D/dump"
	touch "$CKF_STUB_MALLOC"
	gpu_restore "$D/dump"
	check "$PID"
	was_stuck "$D/restore.log"
}

shared_arena() {
	local kind
	for kind in agent ''; do
		[ -n "$kind" ] || [[ $V != 4.1* ]] || continue
		app_start $kind allocs=9 malloc=4
		until_stuck "a dump" dump_fails
		until_stuck "--leave-running" left_running
		until_stuck "a restore" dump_and_restore
		stop "$PID"
		gpu_idle
		rm -rf "$D/dump"
	done
}

each_version shared_arena

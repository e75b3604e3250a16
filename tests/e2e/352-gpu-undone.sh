#!/bin/bash
# SPDX-License-Identifier: MIT
# A dump of two processes that fails at one step after the other: all is given back, whatever was
# taken by then, both go on with their memory, and can be dumped afterwards.
. "$(dirname "$0")/gpu.sh"

FAIL=$W/fail
HITS=$W/hits

# Each call of the driver that a dump makes, for the first process and for the second. gpud and the
# programs count for themselves: what the driver does to a process, gpud calls.
calls_fail() {
	local call
	for call in cuCheckpointProcessLock:{1,2} cuCheckpointProcessCheckpoint:{1,2} cuCheckpointProcessGetState:{1,2}; do
		rm -f "$HITS"
		echo "$call" >"$FAIL"
		! pair_dump || fail "$call failed, but the dump succeeded"
		rm -f "$FAIL"
		[ -s "$HITS" ] || fail "$call was not reached"
		pair_check "$call"
	done
}

# Where CRIU itself fails when all processes are suspended: at the first image, at files, at pages,
# at the last image, and after it.
criu_fails() {
	local name script=$D/script
	for name in core-"${APPS[1]}".img files.img pages-1.img inventory.img; do
		rm -rf "$D/failed"
		mkdir -p "$D/failed/$name"
		! pair_dump || fail "$name cannot be written, but the dump succeeded"
		rm -rf "$D/failed"
		pair_check "$name"
	done
	printf '#!/bin/sh\n[ "$CRTOOLS_SCRIPT_ACTION" != post-dump ]\n' >"$script"
	chmod +x "$script"
	! pair_dump --action-script "$script" || fail "post-dump failed, but the dump succeeded"
	pair_check "post-dump"
}

full() {
	local small=$W/small
	mkdir -p "$small"
	mount -t tmpfs -o "size=$1" none "$small" || skip "no tmpfs can be mounted"
	! "$CRIU" dump -t "$PID" -D "$small" -v4 -o "$D/dump.log" --libdir "$(plugin_of "$CRIU")" ||
		fail "$1 were enough"
	umount "$small"
	pair_check "$1"
}

# A task that is left is left with its GPU.
left() {
	pair_dump --leave-running || fail "--leave-running: $(log_errors "$D/dump.log")"
	pair_check --leave-running
	pair_dump --leave-stopped || fail "--leave-stopped: $(log_errors "$D/dump.log")"
	kill -CONT "${APPS[@]}" "$PID"
	pair_check --leave-stopped
}

# CRIU is told to end at some moment: it gives all back, or it has done its work.
ended() {
	local word criu
	for word in 'is locked' 'in images of their own' 'Dumping opened files' 'Dumping pages'; do
		mkdir -p "$D/failed"
		: >"$D/dump.log"
		{ pair_dump --leave-running || true; } &
		criu=$!
		wait_for 60 grep -aq "$word" "$D/dump.log" || fail "the log never says '$word'"
		kill -TERM "$(pgrep -P "$criu" || echo "$criu")" || true
		wait "$criu" || true
		pair_check "SIGTERM after '$word'"
	done
}

# gpud ends in the middle of a dump: another one gives everything back. While it locks the second process, it does so
# at one moment and another.
gpud_dies() {
	local word dumper ms=0
	for word in 'is locked'{,,,,,,,,,} 'in images of their own' 'Dumping opened files'; do
		gpud_start
		mkdir -p "$D/failed"
		: >"$D/dump.log"
		{ pair_dump --leave-running || true; } &
		dumper=$!
		wait_for 60 grep -aq "$word" "$D/dump.log" || fail "the log never says '$word'"
		sleep "0.00$((ms++ % 10))"
		kill -9 "$GPUD_PID"
		wait "$dumper" || true
		gpud_stop
		pair_check "gpud died after '$word'"
	done
}

undone() {
	export CKF_STUB_FAIL_FILE=$FAIL CKF_STUB_HIT=$HITS
	local kind
	rm -f "$FAIL"
	for kind in agent ''; do
		pair_start "$kind" devices=2 allocs=9
		calls_fail
		left
		# What depends neither on the version nor on who takes the memory is tried once.
		if [ -n "$kind" ] && [[ $V != 4.1* ]]; then
			criu_fails
			full 16M
			ended
			gpud_dies
		fi
		pair_dump --leave-running || fail "the last dump: $(log_errors "$D/dump.log")"
		pair_check "the last dump"
		stop "$PID"
		gpu_idle
		rm -rf "$D/failed"
	done
}

each_version undone

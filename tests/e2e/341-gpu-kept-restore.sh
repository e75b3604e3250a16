#!/bin/bash
# SPDX-License-Identifier: MIT
# Restores by CRIU of an image that gpud keeps: a program on two GPUs, processes that share memory, and
# an image that stores its chunks in a base.
. "$(dirname "$0")/gpu.sh"
. "$ROOT/tests/e2e/share.sh"

# kept_counts KEY: of the restores so far.
kept_counts() {
	"$CKFAST" gpud --status --json | "$PYTHON" -c 'import json, sys; print(json.load(sys.stdin)["kept"][sys.argv[1]])' "$1"
}

# kept_restore DIR: from memory, however often CRIU has to try.
kept_restore() {
	local hits misses
	hits=$(kept_counts hits)
	misses=$(kept_counts misses)
	gpu_restore "$1"
	[ "$(kept_counts hits)" -gt "$hits" ] && [ "$(kept_counts misses)" = "$misses" ] ||
		fail "the restore of $1 was not from memory: $("$CKFAST" gpud --status; cat "$W/gpud.out")"
}

# keep DIR: when it was written a second ago.
keep() {
	sleep 1
	"$CKFAST" keep "$1" >keep.out 2>&1 || fail "keep: $(cat keep.out)"
}

one_program() {
	app_start agent devices=2 busy
	check "$PID"
	gpu_dump "$D/dump"
	convert "$D/dump" "$D/fast"
	keep "$D/fast"
	for _ in 1 2; do
		kept_restore "$D/fast"
		check "$PID"
		stop "$PID"
		gpu_idle
	done
	kept_restore "$D/fast"
	gpu_dump "$D/again"
	"$CKFAST" convert --base "$D/fast" "$D/again" "$D/second" >convert.out 2>&1 || fail "$(cat convert.out)"
	keep "$D/second"
	kept_restore "$D/second"
	check "$PID"
	stop "$PID"
	gpu_idle
}

group() {
	share_start agent procs=3 how=ipc spread
	share_round
	gpu_dump "$D/dump"
	convert "$D/dump" "$D/group"
	keep "$D/group"
	kept_restore "$D/group"
	share_round
	stop "$PID"
	gpu_idle
}

kept() {
	gpud_start
	one_program
	group
	"$CKFAST" drop --all >/dev/null
	gpud_stop
}

each_version kept

#!/bin/bash
# SPDX-License-Identifier: MIT
# park frees the GPU of a live process and unpark brings it back, bit by bit; twice, with the daemon
# and without; what cannot be parked is refused and goes on, what cannot be unparked stays parked.
. "$(dirname "$0")/gpu.sh"

D=$W
need_ckfast

# Files that are damaged leave the process parked, and it can be tried again.
unpark_fails() {
	local pages
	pages=$(echo "$W"/parked/ckfast-gpu-pages-*.img)
	cp --sparse=always "$pages" "$W/pages.good"
	truncate -s -4096 "$pages"
	! "$CKFAST" unpark "$PID" --dir "$W/parked" 2>err || fail "unparked from a file that is too short"
	grep -q R-gpu err || fail "the message does not say why: $(cat err)"
	[ "$("$STUB/stub-smi" "$PID" | awk '{ n += $2 } END { print n + 0 }')" = 0 ] ||
		fail "an unpark that failed has left GPU memory"
	gpu_idle
	cp --sparse=always "$W/pages.good" "$pages"
}

turn() {
	"$CKFAST" park --json "$PID" --dir "$W/parked" >park.json || fail "park"
	[ "$("$STUB/stub-smi" "$PID" | awk '{ n += $2 } END { print n + 0 }')" = 0 ] ||
		fail "parked, it still has GPU memory"
	gpu_idle
	! is_gone "$PID" || fail "the process has ended"
	! "$CKFAST" park "$PID" --dir "$W/other" 2>err || fail "parked twice"
	[ ! -e "$W/other" ] || fail "a park that was refused has left $W/other"
	unpark_fails
	"$CKFAST" unpark "$PID" --dir "$W/parked" >unpark.out || fail "unpark"
	[ ! -e "$W/parked" ] || fail "unpark has left $W/parked"
	check "$PID"
}

for daemon in yes no; do
	[ $daemon = no ] || gpud_start
	app_start agent devices=2 vmm busy churn
	turn
	turn
	stop "$PID"
	gpud_stop
	gpu_idle
done

! "$CKFAST" park $$ --dir "$W/parked" 2>err || fail "a process without CUDA was parked"
grep -q CUDA err || fail "the message does not say why: $(cat err)"
! "$CKFAST" unpark $$ --dir "$W/parked" 2>err || fail "unparked what was not parked"
grep -q "$W/parked" err || fail "the message names no directory: $(cat err)"

#!/bin/bash
# SPDX-License-Identifier: MIT
# Each call of the driver that a dump of two processes makes fails once: in either process, and in gpud. The
# dump may fail or not; both processes go on with their memory, and so they do in the end. With CKF_LONG
# all calls, some 700; otherwise the first of each function, in one process or the other and in gpud.
. "$(dirname "$0")/gpu.sh"

HITS=$W/hits
FAIL=$W/fail # of gpud
export CKF_STUB_FAIL_FILE=$FAIL CKF_STUB_HIT=$HITS CKF_STUB_FAIL_ONCE=1
CALLS=0
LONG=$([ -z "${CKF_LONG:-}" ] && echo 0 || echo 1)

# What the agent calls when memory is taken and given back.
AGENT_CALLS=(cuDeviceGetUuid cuMemExportToShareableHandle cuDeviceGetCount cuMemGetAccess cuMemUnmap cuMemRelease
	cuCtxSetCurrent cuMemImportFromShareableHandle cuMemMap cuMemSetAccess)

# each_fails FILE FUNCTION…: until a dump has no Nth call of the function any more, or once.
each_fails() {
	local file=$1 fn n
	shift
	for fn in "$@"; do
		for ((n = 1; ; n++)); do
			rm -f "$HITS"
			echo "$fn:$n" >"$file"
			pair_dump --leave-running || true
			rm -f "$file"
			pair_check "${file#"$W"} $fn:$n"
			[ -s "$HITS" ] || break
			CALLS=$((CALLS + 1))
			[ $LONG = 1 ] || break
		done
	done
}

# gpud's own list of what it has called.
gpud_calls() {
	CKF_STUB_COUNT=$W/count pair_dump --leave-running || fail "a dump: $(log_errors "$D/dump.log")"
	wait_for 20 test -s "$W/count" || fail "gpud has counted no calls"
	awk '!seen[$1]++ { print $1 }' "$W/count"
}

each_call() {
	local names=(one two) i fns
	# These cost more time than they show in another version.
	[[ $V != 4.1* ]] || return 0
	pair_start agent allocs=9 vmm
	for i in "${!AGENT_CALLS[@]}"; do
		[ $LONG = 0 ] || each_fails "$D/${names[(i + 1) % 2]}/fail" "${AGENT_CALLS[i]}"
		each_fails "$D/${names[i % 2]}/fail" "${AGENT_CALLS[i]}"
	done
	mapfile -t fns < <(gpud_calls)
	[ ${#fns[@]} -gt 10 ] || fail "gpud calls only ${fns[*]}"
	each_fails "$FAIL" "${fns[@]}"
	echo "$CALLS calls have failed"
	[ "$CALLS" -gt 35 ] || fail "only $CALLS calls have failed"
	pair_dump --leave-running || fail "the last dump: $(log_errors "$D/dump.log")"
	pair_check "the last dump"
	stop "$PID"
	gpu_idle
}

each_version each_call

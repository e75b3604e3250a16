#!/bin/bash
# SPDX-License-Identifier: MIT
# Each call of the driver that sharing device memory makes fails once: when it is imported anew, and at a
# dump, in the exporter, in the importer and in gpud. A call that failed can be made again; a dump may fail
# or not; the memory stays right, and one memory. With CKF_LONG all calls; otherwise the first of each
# function, in the exporter of descriptors and the importer by IPC.
. "$(dirname "$0")/gpu.sh"
. "$ROOT/tests/e2e/share.sh"

HITS=$W/hits
export CKF_STUB_FAIL_FILE=$W/fail # of gpud
export CKF_STUB_HIT=$HITS CKF_STUB_FAIL_ONCE=1
CALLS=0
LONG=$([ -z "${CKF_LONG:-}" ] && echo 0 || echo 1)

AGENT_CALLS=(cuMemExportToShareableHandle cuDeviceGetUuid cuDeviceGetCount cuMemGetAccess cuMemUnmap cuMemRelease
	cuCtxSetCurrent cuMemImportFromShareableHandle cuMemMap cuMemSetAccess)
ROUND_CALLS=(cuMemExportToShareableHandle cuMemImportFromShareableHandle cuMemGetAllocationPropertiesFromHandle
	cuCtxGetCurrent cuCtxGetDevice cuMemAddressReserve cuMemMap cuMemSetAccess cuCtxSynchronize cuMemUnmap
	cuMemRelease cuMemAddressFree)

share_dump() {
	mkdir -p "$D/failed"
	"$CRIU" dump -t "$PID" -D "$D/failed" -v4 -o "$D/dump.log" --libdir "$(plugin_of "$CRIU")" --leave-running
}

# each_fails WHAT FILE FUNCTION…: WHAT, until it has no Nth call of the function any more.
each_fails() {
	local what=$1 file=$2 fn n
	shift 2
	for fn in "$@"; do
		for ((n = 1; ; n++)); do
			rm -f "$HITS"
			echo "$fn:$n" >"$file"
			echo "$what ${file##*/} $fn:$n"
			"$what" || true
			rm -f "$file"
			share_round
			[ -s "$HITS" ] || break
			CALLS=$((CALLS + 1))
			[ $LONG = 1 ] || break
		done
	done
}

# gpud's own list of what it has called.
gpud_calls() {
	rm -f "$W/count"
	CKF_STUB_COUNT=$W/count share_dump || fail "a dump: $(log_errors "$D/dump.log")"
	wait_for 20 test -s "$W/count" || fail "gpud has counted no calls"
	awk '!seen[$1]++ { print $1 }' "$W/count"
}

each_call() {
	local how rank fns
	# These cost more time than they show in another version.
	[[ $V != 4.1* ]] || return 0
	for how in fd ipc; do
		share_start agent how=$how procs=2 again
		for rank in 0 1; do
			[ $LONG = 1 ] || [ $how$rank = fd0 ] || [ $how$rank = ipc1 ] || continue
			each_fails share_round "$D/fail$rank" "${ROUND_CALLS[@]}"
			each_fails share_dump "$D/fail$rank" "${AGENT_CALLS[@]}"
		done
		mapfile -t fns < <(gpud_calls)
		[ ${#fns[@]} -gt 10 ] || fail "gpud calls only ${fns[*]}"
		[ $how = ipc ] || each_fails share_dump "$CKF_STUB_FAIL_FILE" "${fns[@]}"
		share_dump || fail "the last dump: $(log_errors "$D/dump.log")"
		share_round
		stop "$PID"
		gpu_idle
	done
	echo "$CALLS calls have failed"
	[ "$CALLS" -gt 40 ] || fail "only $CALLS calls have failed"
}

each_version each_call

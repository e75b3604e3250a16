#!/bin/bash
# SPDX-License-Identifier: MIT
# Without io_uring, without O_DIRECT, without huge pages or what moves them: the same result, by other means.
. "$(dirname "$0")/lib.sh"

# with SWITCH…: restores with these set and the pack not in the page cache, and checks.
with() {
	rm -f "$D/stats"
	sync "$D/fast/ckfast.pack"
	dd if="$D/fast/ckfast.pack" iflag=nocache count=0 status=none
	export "${@/%/=1}"
	restore_fast "$D/fast" --fast-stats "$D/stats"
	unset "$@"
	check "$PID"
	same_snapshot "$*"
	stop "$PID"
}

stat_is() {
	"$PYTHON" -c 'import json, sys
path, key, want = sys.argv[1:]
sys.exit(json.load(open(path))[key] != json.loads(want))' "$D/stats" "$@"
}

fallbacks() {
	local codec
	start_ready "$PROGS/mixed" .
	snapshot "$PID" "$D/before"
	dump "$PID" "$D/dump"
	stock_snapshot "$D/dump"
	for codec in raw lz4; do
		rm -rf "$D/fast"
		convert "$D/dump" "$D/fast" --codec "$codec"
		with CKF_NOTHING
		stat_is io_uring true || echo "$V: no io_uring here to do without"
		stat_is direct true || echo "$V: no O_DIRECT here to do without"
		with CKF_NO_URING
		stat_is io_uring false || fail "io_uring was used against the switch"
		with CKF_NO_DIRECT
		stat_is direct false || fail "O_DIRECT was used against the switch"
		with CKF_NO_HUGE
		stat_is huge_pages 0 || fail "huge pages were used against the switch"
		with CKF_NO_MOVE
		with CKF_NO_URING CKF_NO_DIRECT CKF_NO_HUGE
	done
}

each_version fallbacks

#!/bin/bash
# SPDX-License-Identifier: MIT
# A dump on top of a pre-dump: pages that only the parent dump holds; the fast image needs no parent.
. "$(dirname "$0")/lib.sh"

incremental() {
	"$CRIU_STOCK" check --feature mem_dirty_track >/dev/null 2>&1 ||
		skip "the kernel does not track dirty memory (criu check --feature mem_dirty_track)"
	start_ready "$PROGS/mixed" .
	mkdir -p "$D/pre" "$D/dump"
	"$CRIU_STOCK" pre-dump -t "$PID" -D "$D/pre" -v4 -o dump.log --track-mem ||
		fail "pre-dump: $(log_errors "$D/pre/dump.log")"
	snapshot "$PID" "$D/before"
	dump "$PID" "$D/dump" --track-mem --prev-images-dir ../pre
	stock_snapshot "$D/dump"
	convert "$D/dump" "$D/fast"
	extract_same "$D/fast" "$D/dump"
	mv "$D/pre" "$D/pre.away"
	restore_fast "$D/fast"
	same_snapshot "fast restore"
	check "$PID"
	stop "$PID"
}

each_version incremental

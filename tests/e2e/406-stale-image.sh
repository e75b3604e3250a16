#!/bin/bash
# SPDX-License-Identifier: MIT
# A dump into the directory of a fast image: ours removes what is left of it; after one by the stock CRIU the restore says
# what is wrong.
. "$(dirname "$0")/lib.sh"

again() {
	local dumper
	for dumper in "$CRIU_STOCK" "$CRIU"; do
		rm -rf "$D"/*
		start_ready "$PROGS/traces" . plain 16
		dump "$PID" "$D/dump"
		convert "$D/dump" "$D/fast"
		restore_fast "$D/fast"
		DUMPER=$dumper dump "$PID" "$D/fast"
		if [ "$dumper" = "$CRIU" ]; then
			[ -z "$(compgen -G "$D/fast/ckfast.*")" ] || fail "left over: $(ls "$D/fast")"
			restore "$CRIU" "$D/fast" || fail "restore: $(log_errors "$D/restore.log")"
			check "$PID"
			stop "$PID"
		else
			! restore "$CRIU" "$D/fast" || fail "a new dump was taken for the fast image beside it"
			grep -aq 'Error.*another dump.*remove ckfast.idx' "$D/restore.log" ||
				fail "no clear error: $(log_errors "$D/restore.log")"
		fi
	done
	# A dump that fails before it writes anything leaves the image alone.
	rm -rf "$D"/*
	start_ready "$PROGS/traces" . plain 16
	dump "$PID" "$D/dump"
	convert "$D/dump" "$D/fast"
	! "$CRIU" dump -t 999999 -D "$D/fast" -o "$D/none.log" 2>/dev/null || fail "dumped what is not there"
	restore_fast "$D/fast"
	check "$PID"
	stop "$PID"
}

every_version
each_version again

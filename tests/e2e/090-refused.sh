#!/bin/bash
# SPDX-License-Identifier: MIT
# Options that make no sense with a fast image are refused, with one clear line and no process left.
. "$(dirname "$0")/lib.sh"

refused() {
	local option=$1
	if restore "$CRIU" "$D/fast" --fast-image "$option"; then
		stop "$PID"
		fail "$option was taken"
	fi
	grep -aq "Error.*fast-image: .*$option" "$D/restore.log" ||
		fail "$option: no clear error: $(log_errors "$D/restore.log")"
	all_gone "$PID"
}

options() {
	start_ready "$PROGS/bigproc" . 4 random
	dump "$PID" "$D/dump"
	convert "$D/dump" "$D/fast"
	refused --lazy-pages
	refused --stream
	refused --auto-dedup
	restore_fast "$D/fast"
	check "$PID"
	stop "$PID"
}

each_version options

#!/bin/bash
# SPDX-License-Identifier: MIT
# Options that make no sense with a fast image are refused, with one clear line and no process left.
. "$(dirname "$0")/lib.sh"

refused() {
	local option=$1
	# Before the log is opened: on the standard error output.
	if restore "$CRIU" "$D/fast" --fast-image "$option" 2>"$D/refused"; then
		stop "$PID"
		fail "$option was taken"
	fi
	grep -q "Error.*fast-image: $option does not work" "$D/refused" ||
		fail "$option: no clear error: $(cat "$D/refused")"
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

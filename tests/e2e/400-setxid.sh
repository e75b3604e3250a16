#!/bin/bash
# SPDX-License-Identifier: MIT
# Signals of libc's own: a program with threads changes its group after the restore, and one without has no
# handler that it did not have.
. "$(dirname "$0")/lib.sh"

signals() {
	local kind
	for kind in plain threads; do
		rm -rf "$D"/*
		start_ready "$PROGS/traces" . $kind 64
		dump "$PID" "$D/dump"
		convert "$D/dump" "$D/fast"
		restore_fast "$D/fast" --fast-threads 4
		check "$PID"
		check "$PID"
		stop "$PID"
	done
}

each_version signals

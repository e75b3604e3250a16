#!/bin/bash
# SPDX-License-Identifier: MIT
# One process with 64 MiB of memory, dumped by the stock CRIU and by the patched one, restored from
# the dump and from the fast image; raw, lz4 and zstd; one thread and several; --fast-stats.
. "$(dirname "$0")/lib.sh"

with_codecs() {
	local codec threads
	for codec in raw lz4 zstd; do
		for threads in 1 4; do
			rm -rf "$D/fast"
			convert "$D/dump" "$D/fast" --codec "$codec" --threads "$threads"
			rm -f "$D/stats"
			restore_fast "$D/fast" --fast-threads "$threads" --fast-stats "$D/stats"
			check "$PID"
			stop "$PID"
			"$PYTHON" -c 'import json, sys
s = json.load(open(sys.argv[1]))
assert s["version"] == 1 and s["filled_bytes"] > 32 << 20, s' "$D/stats" || fail "--fast-stats"
		done
	done
}

simple() {
	local top=$D
	roundtrip "$PROGS/bigproc" . 64 mixed
	with_codecs
	D=$top/patched-dump
	mkdir -p "$D"
	DUMPER=$CRIU roundtrip "$PROGS/bigproc" . 16 random
}

every_version
each_version simple

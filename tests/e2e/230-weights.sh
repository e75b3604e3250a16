#!/bin/bash
# SPDX-License-Identifier: MIT
# Equal weights are stored once, wherever they are: in several processes, in shared memory, in a
# memfd, at other addresses and page offsets; and in a later dump of another process not at all.
. "$(dirname "$0")/lib.sh"

MIB=48
PROCS=3

# start_weights TUNE PROCS [all]
start_weights() {
	local rank
	rm -f "$D"/ready* "$D"/report*
	start "$PROGS/weights" . $MIB "$@"
	for ((rank = 0; rank < $2; rank++)); do
		wait_ready "ready.$rank"
	done
}

check_weights() {
	local p rank=0
	rm -f "$D"/report*
	for p in $(tree_of "$1"); do
		kill -USR1 "$p"
		rank=$((rank + 1))
	done
	while [ $((rank--)) -gt 0 ]; do
		wait_for 60 test -e "$D/report.$rank" || fail "rank $rank does not answer"
		grep -q ^OK "$D/report.$rank" || fail "rank $rank says: $(cat "$D/report.$rank")"
	done
}

# stored DUMP FAST OPTIONS…: converts and verifies; sets STORED_MIB.
stored() {
	"$CKFAST" convert --json --codec raw "$@" >"$D/convert.json" 2>"$D/convert.out" ||
		fail "convert: $(cat "$D/convert.out")"
	"$CKFAST" verify "$2" >"$D/verify.out" 2>&1 || fail "verify: $(cat "$D/verify.out")"
	STORED_MIB=$("$PYTHON" -c 'import json, sys
print(json.load(open(sys.argv[1]))["stored_bytes"] >> 20)' "$D/convert.json")
}

# Five times the weights; the heaps, and the pages in front of the weights, belong to one alone.
weights() {
	local own=$((PROCS * 4 + (PROCS + 2) * 2))
	start_weights 0 $PROCS all
	dump "$PID" "$D/dump"
	stored "$D/dump" "$D/base"
	echo "$V: $(((PROCS + 2) * MIB)) MiB of weights are stored in $STORED_MIB MiB"
	[ "$STORED_MIB" -ge $MIB ] || fail "$STORED_MIB MiB: less than the weights themselves"
	[ "$STORED_MIB" -le $((MIB + own + 8)) ] || fail "stored more than once: $STORED_MIB MiB"
	extract_same "$D/base" "$D/dump"
	restore_fast "$D/base"
	check_weights "$PID"
	stop "$PID"
	rm -rf "$D/dump"

	start_weights 0 1
	dump "$PID" "$D/dump"
	stored "$D/dump" "$D/fast" --base "$D/base"
	echo "$V: another process with the same weights adds $STORED_MIB MiB"
	[ "$STORED_MIB" -le 12 ] || fail "stored again: $STORED_MIB MiB"
	extract_same "$D/fast" "$D/dump"
	restore_fast "$D/fast"
	check_weights "$PID"
	stop "$PID"
	rm -rf "$D"
}

each_version weights

#!/bin/bash
# SPDX-License-Identifier: MIT
# A process that holds zeros, weights and text, through each profile: codecs differ, memory and the
# dump given back do not, nor does the image by the number of threads.
. "$(dirname "$0")/lib.sh"

# has_chunks CODEC: the image has some.
has_chunks() {
	"$CKFAST" inspect --json "$D/fast" | "$PYTHON" -c 'import json, sys
image = json.load(sys.stdin)["image"]
sys.exit(not image["codecs"][sys.argv[1]]["chunks"])' "$1"
}

through() {
	rm -rf "$D/fast" "$D/again"
	convert "$D/dump" "$D/fast" --profile "$1" --jobs 1 --nice 1
	"$CKFAST" convert -q "$D/dump" "$D/again" --profile "$1" --jobs 4
	cmp "$D/fast/ckfast.pack" "$D/again/ckfast.pack" || fail "$1: not the same pack"
	cmp "$D/fast/ckfast.idx" "$D/again/ckfast.idx" || fail "$1: not the same index"
	"$CKFAST" inspect "$D/fast" | grep -q "Estimated .* from $1" || fail "$1: no estimate"
	extract_same "$D/fast" "$D/dump"
	compare_memory
	restore_fast "$D/fast"
	same_snapshot "$1"
	stop "$PID"
}

weights() {
	rm -f "$D"/ready*
	start "$PROGS/bench_mem" . anon 32 server
	wait_ready ready.0
	snapshot "$PID" "$D/before"
	"$ROOT/tests/e2e/memcmp" --save "$D/memory" "$PID"
	dump "$PID" "$D/dump"
	stock_snapshot "$D/dump"
	through ram
	! has_chunks lz4 || fail 'ram: there is lz4'
	through nvme
	has_chunks bf16 || fail 'nvme: there is no bf16'
	has_chunks lz4 || fail 'nvme: there is no lz4'
	through network
	has_chunks bf16 || fail 'network: there is no bf16'
	has_chunks zstd || fail 'network: there is no zstd'
}

each_version weights

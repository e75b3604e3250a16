#!/bin/bash
# SPDX-License-Identifier: MIT
# A process that holds zeros, weights and text, through each profile: codecs differ, memory and the
# dump given back do not, nor does the image by the number of threads. Where nothing is asked for,
# such data stays raw, since it is copied faster than it is decoded; and --smallest is the smallest.
. "$(dirname "$0")/lib.sh"

# has_chunks CODEC: the image has some.
has_chunks() {
	"$CKFAST" inspect --json "$D/fast" | "$PYTHON" -c 'import json, sys
image = json.load(sys.stdin)["image"]
sys.exit(not image["codecs"][sys.argv[1]]["chunks"])' "$1"
}

# pack_bytes: of the image.
pack_bytes() {
	stat -c %s "$D/fast/ckfast.pack"
}

through_profile() {
	through "$1" --profile "$1"
	"$CKFAST" inspect "$D/fast" | grep -q "Estimated .* from $1" || fail "$1: no estimate"
}

# through WHAT OPTIONS…
through() {
	rm -rf "$D/fast" "$D/again"
	convert "$D/dump" "$D/fast" "${@:2}" --jobs 1 --nice 1
	"$CKFAST" convert -q "$D/dump" "$D/again" "${@:2}" --jobs 4
	cmp "$D/fast/ckfast.pack" "$D/again/ckfast.pack" || fail "$1: not the same pack"
	cmp "$D/fast/ckfast.idx" "$D/again/ckfast.idx" || fail "$1: not the same index"
	extract_same "$D/fast" "$D/dump"
	compare_memory
	restore_fast "$D/fast"
	same_snapshot "$1"
	stop "$PID"
}

weights() {
	local least codec
	rm -f "$D"/ready*
	start "$PROGS/bench_mem" . anon 16 server
	wait_ready ready.0
	snapshot "$PID" "$D/before"
	"$ROOT/tests/e2e/memcmp" --save "$D/memory" "$PID"
	dump "$PID" "$D/dump"
	stock_snapshot "$D/dump"
	through_profile ram
	! has_chunks lz4 || fail 'ram: there is lz4'
	through_profile nvme
	has_chunks bf16 || fail 'nvme: there is no bf16'
	has_chunks lz4 || fail 'nvme: there is no lz4'
	through_profile network
	has_chunks bf16 || fail 'network: there is no bf16'
	has_chunks zstd || fail 'network: there is no zstd'
	least=$(pack_bytes)
	through smallest --smallest
	[ "$(pack_bytes)" -lt "$least" ] || fail 'smallest: a pack of network is no larger'
	through default
	for codec in bf16 lz4 zstd; do
		! has_chunks $codec || fail "default: there is $codec"
	done
}

each_version weights

#!/bin/bash
# SPDX-License-Identifier: MIT
# Dumps on top of a fast image: what it holds is not stored again, a restore takes it from there, and
# fails with a clear line when the base is missing, is another image, or is damaged.
. "$(dirname "$0")/lib.sh"

# number KEY: of the summary that convert --json has left in $D/convert.json.
number() {
	"$PYTHON" -c 'import json, sys; print(json.load(open(sys.argv[1]))[sys.argv[2]])' \
		"$D/convert.json" "$1"
}

# based DUMP FAST OPTIONS…: converts and verifies.
based() {
	"$CKFAST" convert --json "$@" >"$D/convert.json" 2>"$D/convert.out" ||
		fail "convert: $(cat "$D/convert.out")"
	"$CKFAST" verify "$2" >"$D/verify.out" 2>&1 || fail "verify: $(cat "$D/verify.out")"
}

# refused WHAT PATTERN: restoring $D/fast fails, saying PATTERN.
refused() {
	restore_refused "$D/fast" "$@"
}

# The place in the pack of the base of a chunk that $D/fast has there.
base_offset() {
	"$CKFAST" inspect --json --chunks "$D/fast" | "$PYTHON" -c 'import json, sys
print([c for c in json.load(sys.stdin)["image"]["chunk_list"] if c["base"]][3]["pack_offset"] + 100)'
}

# A process that was dumped before and has gone on: half of it and more is in the first image.
twice() {
	start_ready "$PROGS/mixed" .
	dump "$PID" "$D/first"
	convert "$D/first" "$D/base"
	restore_stock "$D/first"
	check "$PID"
	TREE=$(tree_of "$PID")
	snapshot "$PID" "$D/before"
	"$ROOT/tests/e2e/memcmp" --save "$D/memory" "$PID"
	dump "$PID" "$D/dump"
	stock_snapshot "$D/dump"
	based "$D/dump" "$D/fast" --base "$D/base"
	[ "$(number base_bytes)" -gt "$(number stored_bytes)" ] ||
		fail "stored again: $(cat "$D/convert.json")"
	extract_same "$D/fast" "$D/dump"
	compare_memory
	restore_fast "$D/fast"
	same_snapshot "fast restore"
	check "$PID"
	stop "$PID"
}

broken_bases() {
	mv "$D/base" "$D/moved"
	refused "base missing" "base 1, image [0-9a-f]{32}, at ../base: No such file"
	"$CKFAST" verify --base "$D/moved" "$D/fast" >/dev/null || fail "verify --base"
	ln -s moved "$D/base"
	refused "a link for a base" "base 1, image .*Not a directory"
	rm "$D/base"
	convert "$D/dump" "$D/base"
	refused "another image" "base 1, image .* there is another image"
	rm -rf "$D/base"
	cp -a "$D/moved" "$D/base"
	flip "$D/base/ckfast.pack" "$(base_offset)"
	refused "a flipped byte in a base" "of base 1 \(../base\)"
	rm -rf "$D/base"
	mv "$D/moved" "$D/base"
	restore_fast "$D/fast"
	check "$PID"
	stop "$PID"
}

flat() {
	"$CKFAST" flatten "$D/fast" "$D/flat" >"$D/flatten.out" 2>&1 ||
		fail "flatten: $(cat "$D/flatten.out")"
	rm -rf "$D/base" "$D/fast"
	"$CKFAST" verify "$D/flat" >"$D/verify.out" 2>&1 || fail "verify: $(cat "$D/verify.out")"
	extract_same "$D/flat" "$D/dump"
	mv "$D/flat" "$D/fast"
	compare_memory
	restore_fast "$D/fast"
	check "$PID"
	stop "$PID"
}

bases() {
	twice
	broken_bases
	flat
	rm -rf "$D"
}

each_version bases

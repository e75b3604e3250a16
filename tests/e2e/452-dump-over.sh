#!/bin/bash
# SPDX-License-Identifier: MIT
# A newer dump in the directory of a fast image, as engines with a fixed path make it: convert takes it
# for the dump that it is, and all others say what is the matter and what to do.
. "$(dirname "$0")/lib.sh"

says() {
	grep -aqF -- "$2" "$1" || fail "$3: does not say \"$2\": $(tail -n 5 "$1")"
}

# A program that does not clean up what it dumps into: the stock CRIU.
dump_over() {
	start_ready "$PROGS/bigproc" . 4 mixed
	dump "$PID" "$D/first"
	convert "$D/first" "$D/image"
	grep -q 'criu restore --fast-image' "$D/image/README.ckfast" || fail "no README.ckfast"
	if restore "$CRIU_STOCK" "$D/image"; then
		fail "the stock CRIU restored a fast image"
	fi
	cp -a "$D/image" "$D/over"
	start_ready "$PROGS/bigproc" . 8 random
	DUMPER=$CRIU_STOCK dump "$PID" "$D/over"

	if "$CKFAST" verify "$D/over" >"$D/out" 2>&1; then
		fail "verify took it for whole"
	fi
	says "$D/out" "a newer dump was written into this directory" verify
	if "$CKFAST" extract "$D/over" "$D/back" >"$D/out" 2>&1; then
		fail "extract took it for whole"
	fi
	says "$D/out" "a newer dump was written into this directory" extract
	"$CKFAST" inspect "$D/over" >"$D/out" || fail inspect
	says "$D/out" "A newer dump was written into this directory" inspect
	if restore "$CRIU" "$D/over" --fast-image; then
		fail "the older image was restored"
	fi
	says "$D/restore.log" "a newer dump was written into this directory" "criu restore"

	convert "$D/over" "$D/again"
	says "$D/convert.out" "a dump was written over an older fast image" convert
	restore_fast "$D/again"
	check "$PID"
	stop "$PID"
	rm "$D/over"/ckfast.* "$D/over/README.ckfast"
	restore_stock "$D/over"
	check "$PID"
	stop "$PID"
}

# README.ckfast is no file of the dump, but for a dump that has one itself.
readme() {
	"$CKFAST" extract -q "$D/image" "$D/back" || fail extract
	[ ! -e "$D/back/README.ckfast" ] || fail "extract made a README.ckfast"
	echo mine >"$D/back/README.ckfast"
	convert "$D/back" "$D/own"
	[ "$(cat "$D/own/README.ckfast")" = mine ] || fail "the dump's own README.ckfast is another now"
	extract_same "$D/own" "$D/back"
	rm -rf "$D/image/README.ckfast"
	"$CKFAST" verify -q "$D/image" || fail "verify wants README.ckfast"
	"$CKFAST" flatten -q "$D/image" "$D/flat" || fail flatten
	[ -s "$D/flat/README.ckfast" ] || fail "flatten made no README.ckfast"
}

# Shared memory of another process: the pagemaps of the first stay, their pages files do not.
shared_over() {
	local of_first
	start_ready "$PROGS/mixed" .
	dump "$PID" "$D/shared"
	of_first=$(cd "$D/shared" && echo pagemap-shmem-*.img)
	start_ready "$PROGS/mixed" .
	dump "$PID" "$D/shared"
	(cd "$D/shared" && ls $of_first) >"$D/out" || fail "the second dump removed pagemaps"
	convert "$D/shared" "$D/of-second"
	says "$D/convert.out" "is left of an older dump" convert
	restore_fast "$D/of-second"
	check "$PID"
	stop "$PID"
}

# An engine that makes each dump an image at its place: what is stale there is no reason to refuse.
over_in_place() {
	start_ready "$PROGS/mixed" .
	dump "$PID" "$D/of-second"
	"$CKFAST" convert --in-place "$D/of-second" >"$D/out" 2>&1 ||
		fail "convert --in-place: $(cat "$D/out")"
	says "$D/out" "a dump was written over an older fast image" "convert --in-place"
	"$CKFAST" verify -q "$D/of-second" || fail "verify of what was made in place"
	restore_fast "$D/of-second"
	check "$PID"
	stop "$PID"

	start_ready "$PROGS/mixed" .
	dump "$PID" "$D/shared"
	"$CKFAST" convert -q --in-place "$D/shared" || fail "a stale pagemap was in the way"
	restore_fast "$D/shared"
	check "$PID"
	stop "$PID"
}

stale() {
	dump_over
	readme
	shared_over
	over_in_place
}

each_version stale

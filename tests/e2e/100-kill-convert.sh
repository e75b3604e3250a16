#!/bin/bash
# SPDX-License-Identifier: MIT
# convert, flatten and extract, killed at any moment: the source is as it was, the destination is
# there as a whole or not at all, whatever else looks like an image is one, and the next run works.
. "$(dirname "$0")/lib.sh"

MIB=48
[ -z "${CKF_LONG:-}" ] || MIB=128

# Verifies everything that looks like an image, whatever it is called, but the destination of old.
all_whole() {
	local d
	for d in "$D"/*/ "$D"/.[!.]*/; do
		[ ! -e "${d}ckfast.idx" ] || "$CKFAST" verify "$d" >/dev/null || fail "$1: $d is broken"
	done
}

leftovers() {
	rm -rf "$D"/.[!.]*/
}

# killed_at_each_call SOURCE DESTINATION LAST COMMAND…: killed before each call that changes a
# directory. LAST is the file without which the destination is nothing.
killed_at_each_call() {
	local from=$1 to=$2 last=$3 call rc=1 had
	shift 3
	facts "$from" >"$D/source.facts"
	[ -e "$to" ] && had=1 || had=0
	for ((call = 1; rc != 0; call++)); do
		[ $call -lt 200 ] || fail "$*: never ends"
		rc=0
		killed_at $call "$@" || rc=$?
		[ $rc = 0 ] || [ $rc = 137 ] || fail "$*: killed at call $call, ended with $rc"
		diff "$D/source.facts" <(facts "$from") || fail "$*: call $call: $from has changed"
		[ ! -e "$to" ] || [ -e "$to/$last" ] || fail "$*: call $call: $to has no $last"
		[ $had = 0 ] || [ -e "$to/$last" ] || fail "$*: call $call: nothing is at $to"
		all_whole "$*: call $call"
		if [ $rc != 0 ] && [ $had = 0 ]; then
			rm -rf "$to"
		fi
		leftovers
	done
	[ $call -gt 5 ] || fail "$*: only $call calls were counted"
}

# in_place_at_each_call VERB NEW: "ckfast VERB --in-place" of a copy of $D/old, killed before each call
# that changes a directory. What is there afterwards is the old directory or the new one, each whole,
# and all that is left beside it is hidden.
in_place_at_each_call() {
	local call rc=1 seen=" "
	facts "$D/old" >"$D/old.facts"
	for ((call = 1; rc != 0; call++)); do
		[ $call -lt 200 ] || fail "$1 --in-place: never ends"
		rm -rf "$D/place"
		mkdir "$D/place"
		cp -a "$D/old" "$D/place/it"
		rc=0
		killed_at $call "$1" --in-place "$D/place/it" || rc=$?
		[ $rc = 0 ] || [ $rc = 137 ] || fail "$1 --in-place: call $call: $(cat "$D/killed.out")"
		[ "$(ls "$D/place")" = it ] || fail "$1 --in-place: call $call: $(ls "$D/place")"
		if diff "$D/old.facts" <(facts "$D/place/it") >/dev/null; then
			seen+="old "
		else
			$2 "$D/place/it"
			seen+="new "
		fi
	done
	[ -z "$(find "$D/place" -name '.it.*')" ] || fail "$1 --in-place: something is left"
	[[ $seen = *" old new "* ]] || fail "$1 --in-place: not both were seen: $seen"
}

is_image() {
	"$CKFAST" verify -q "$1" || fail "$1 is neither the dump nor an image"
}

is_dump() {
	diff "$D/dump.facts" <(facts "$1") || fail "$1 is neither the image nor the dump"
}

kill_convert() {
	local ms pid took late=0
	start_ready "$PROGS/bigproc" . $MIB mixed
	dump "$PID" "$D/dump"
	facts "$D/dump" >"$D/dump.facts"
	took=$(date +%s%N)
	convert "$D/dump" "$D/fast"
	took=$((($(date +%s%N) - took) / 1000000))
	rm -rf "$D/fast"
	for ms in 0 5 10 20 40 $((took / 8)) $((took / 4)) $((took / 2)) $((took * 3 / 4)); do
		"$CKFAST" convert "$D/dump" "$D/fast" >/dev/null 2>&1 &
		pid=$!
		disown "$pid"
		sleep "$(printf '%d.%03d' $((ms / 1000)) $((ms % 1000)))"
		kill -9 "$pid" 2>/dev/null || true
		all_gone "$pid"
		diff "$D/dump.facts" <(facts "$D/dump") || fail "killed after $ms ms: the dump has changed"
		all_whole "after $ms ms"
		if [ -d "$D/fast" ]; then
			# It was quicker than the signal: then it must be whole.
			"$CKFAST" verify "$D/fast" >/dev/null || fail "after $ms ms: a broken image"
			late=$((late + 1))
			rm -rf "$D/fast"
		fi
		leftovers
	done
	[ $late -lt 9 ] || fail "no convert was killed in time"
	convert "$D/dump" "$D/fast"
	restore_fast "$D/fast"
	check "$PID"
	stop "$PID"
}

kill_at_calls() {
	rm -rf "$D/dump" "$D/fast"
	start_ready "$PROGS/bigproc" . 2 mixed
	dump "$PID" "$D/dump"
	killed_at_each_call "$D/dump" "$D/fast" ckfast.idx convert "$D/dump" "$D/fast"
	killed_at_each_call "$D/dump" "$D/fast" ckfast.idx convert --force "$D/dump" "$D/fast"
	facts "$D/dump" >"$D/dump.facts"
	cp -a "$D/dump" "$D/old"
	in_place_at_each_call convert is_image
	rm -rf "$D/old"
	cp -a "$D/fast" "$D/old"
	in_place_at_each_call extract is_dump
	rm -rf "$D/old" "$D/place"
	killed_at_each_call "$D/fast" "$D/flat" ckfast.idx flatten "$D/fast" "$D/flat"
	killed_at_each_call "$D/flat" "$D/back" inventory.img extract "$D/flat" "$D/back"
	killed_at_each_call "$D/flat" "$D/back" inventory.img extract --force "$D/flat" "$D/back"
	restore_fast "$D/flat"
	check "$PID"
	stop "$PID"
}

each_version kill_convert
each_version kill_at_calls

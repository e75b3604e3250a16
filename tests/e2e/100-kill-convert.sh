#!/bin/bash
# SPDX-License-Identifier: MIT
# convert, flatten and extract, killed at any moment: the source is as it was, the destination is
# there as a whole or not at all, whatever else looks like an image is one, and the next run works.
. "$(dirname "$0")/lib.sh"

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
		# A shell of its own says "Killed", where nobody hears it.
		(
			LD_PRELOAD="$PROGS/killer.so" CKF_TEST_KILL_AT=$call "$CKFAST" "$@"
			exit $?
		) >/dev/null 2>&1 || rc=$?
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

kill_convert() {
	local ms pid took late=0
	start_ready "$PROGS/bigproc" . 128 mixed
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
	killed_at_each_call "$D/fast" "$D/flat" ckfast.idx flatten "$D/fast" "$D/flat"
	killed_at_each_call "$D/flat" "$D/back" inventory.img extract "$D/flat" "$D/back"
	killed_at_each_call "$D/flat" "$D/back" inventory.img extract --force "$D/flat" "$D/back"
	restore_fast "$D/flat"
	check "$PID"
	stop "$PID"
}

each_version kill_convert
each_version kill_at_calls

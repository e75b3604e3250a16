#!/bin/bash
# SPDX-License-Identifier: MIT
# convert, killed at any moment: the dump is as it was, nothing that looks like a fast image is left,
# and the next convert works.
. "$(dirname "$0")/lib.sh"

looks_like_image() {
	local d
	for d in "$D"/*/ "$D"/.[!.]*/; do
		[ ! -e "${d}ckfast.idx" ] || echo "$d"
	done
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
		if [ -d "$D/fast" ]; then
			# It was quicker than the signal: then it must be whole.
			"$CKFAST" verify "$D/fast" >/dev/null || fail "after $ms ms: a broken image"
			late=$((late + 1))
			rm -rf "$D/fast"
		fi
		[ -z "$(looks_like_image)" ] || fail "after $ms ms: $(looks_like_image) is left"
	done
	[ $late -lt 9 ] || fail "no convert was killed in time"
	convert "$D/dump" "$D/fast"
	restore_fast "$D/fast"
	check "$PID"
	stop "$PID"
}

each_version kill_convert

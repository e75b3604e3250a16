#!/bin/bash
# SPDX-License-Identifier: MIT
# A dump that was restored once holds CRIU's statistics and log of that, and a restore from its fast
# image writes over them there: the image stays whole, and what is not an image comes back as it is
# now.
. "$(dirname "$0")/lib.sh"

# in_place CRIU DIR: a restore that writes its log where the images are.
in_place() {
	"$1" restore -d -v4 -D "$2" -o restore.log ||
		fail "restore from $2: $(log_errors "$2/restore.log")"
	check "$PID"
	stop "$PID"
}

# warns VERB ARGS…: succeeds, and tells of both files and of no other.
warns() {
	"$CKFAST" "$@" >"$D/out" 2>"$D/err" || fail "$1: $(cat "$D/err")"
	grep -q 'stats-restore' "$D/err" && grep -q 'restore\.log' "$D/err" &&
		[ "$(wc -l <"$D/err")" = 2 ] || fail "$1 says: $(cat "$D/err")"
}

# all_but_those DIR
all_but_those() {
	facts "$1" | grep -v -e 'stats-restore' -e 'restore\.log'
}

restored_before() {
	start_ready "$PROGS/traces" . plain 16
	dump "$PID" "$D/dump"
	in_place "$CRIU_STOCK" "$D/dump"
	[ -e "$D/dump/stats-restore" ] || fail "CRIU leaves no statistics"
	convert "$D/dump" "$D/fast"
	extract_same "$D/fast" "$D/dump"
	in_place "$CRIU" "$D/fast"
	in_place "$CRIU" "$D/fast"
	warns verify "$D/fast"
	"$CKFAST" verify --json "$D/fast" 2>/dev/null | grep -q '"changed_files": 2' ||
		fail "verify --json counts wrong"
	warns extract "$D/fast" "$D/back"
	warns flatten "$D/fast" "$D/flat"
	diff <(all_but_those "$D/dump") <(all_but_those "$D/back") || fail "extract: not the same"
	cmp "$D/fast/restore.log" "$D/back/restore.log" || fail "extract: not the log that is there"
	in_place "$CRIU" "$D/flat"
	in_place "$CRIU_STOCK" "$D/back"
}

each_version restored_before

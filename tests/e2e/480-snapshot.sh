#!/bin/bash
# SPDX-License-Identifier: MIT
# The snapshots that tests compare before and after restores notice whatever a process changes about
# itself, and are equal when it changes nothing. Nothing is restored here.
. "$(dirname "$0")/lib.sh"

# different FAST: what the snapshot FAST has that neither $D/before nor $D/stock has.
different() {
	"$PYTHON" "$ROOT/tests/e2e/snapshot.py" diff "$D/before" "$D/stock" "$1" >"$D/diff"
}

step() {
	local what
	rm -f "$D/report"
	kill -USR1 "$PID"
	wait_ready report
	what=$(cat "$D/report")
	[ "$what" != unsupported ] || return 0
	snapshot "$PID" "$D/after"
	if [ "$what" = end ]; then
		different "$D/after" || fail "nothing was changed: $(cat "$D/diff")"
		return 1
	fi
	! different "$D/after" || fail "not noticed: $what"
	grep -qE "^(process|thread) [0-9]+, ([0-9a-f-]+: )?$what" "$D/diff" ||
		fail "$what: only this was noticed: $(cat "$D/diff")"
	cp "$D/after" "$D/before"
	cp "$D/after" "$D/stock"
	NR=$((NR + 1))
}

D=$W
NR=0
start_ready "$PROGS/changes" "$D"
snapshot "$PID" "$D/before"
cp "$D/before" "$D/stock"
cp "$D/before" "$D/first"
while step; do
	:
done
[ "$NR" -ge 40 ] || fail "only $NR changes"
# What stock CRIU does, too, is no difference, and what it does but a fast restore does not neither.
cp "$D/first" "$D/before"
different "$D/after" || fail "as with stock CRIU: $(cat "$D/diff")"
different "$D/first" || fail "as before: $(cat "$D/diff")"
stop "$PID"

#!/bin/bash
# SPDX-License-Identifier: MIT
# A reservation that is much larger than memory, with a part of it in use: it is mapped as the stock CRIU maps it.
. "$(dirname "$0")/lib.sh"

GIB=64

# Every flag counts: memory that is accountable although it was not is charged for good.
as_stock() {
	local which
	start_ready "$PROGS/traces" . reserve 32 $GIB
	snapshot "$PID" "$D/before"
	dump "$PID" "$D/dump"
	convert "$D/dump" "$D/fast"
	for which in stock fast; do
		restore_$which "$D/$([ $which = fast ] && echo fast || echo dump)"
		check "$PID"
		snapshot "$PID" "$D/$which.state"
		stop "$PID"
	done
	"$PYTHON" "$ROOT/tests/e2e/snapshot.py" diff "$D/before" "$D/stock.state" "$D/fast.state" >"$D/state.diff" ||
		fail "not as the stock CRIU restores it: $(head -n 20 "$D/state.diff")"
}

each_version as_stock

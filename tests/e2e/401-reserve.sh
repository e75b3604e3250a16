#!/bin/bash
# SPDX-License-Identifier: MIT
# A reservation that is much larger than memory, with a part of it in use: it is mapped as the stock
# CRIU maps it.
# Alone: it measures what the machine has committed.
. "$(dirname "$0")/lib.sh"

GIB=64
SLACK_KIB=4096
TRIES=5

# Every flag counts: memory that is accountable although it was not is charged for good.
as_stock() {
	local which
	start_ready "$PROGS/traces" . reserve 32 $GIB
	snapshot "$PID" "$D/before"
	dump "$PID" "$D/dump"
	convert "$D/dump" "$D/fast"
	for which in stock fast; do
		restore_which $which
		check "$PID"
		snapshot "$PID" "$D/$which.state"
		stop "$PID"
	done
	"$PYTHON" "$ROOT/tests/e2e/snapshot.py" diff "$D/before" "$D/stock.state" "$D/fast.state" \
		>"$D/state.diff" ||
		fail "not as the stock CRIU restores it: $(head -n 20 "$D/state.diff")"
	same_committed
}

restore_which() {
	restore_$1 "$D/$([ $1 = fast ] && echo fast || echo dump)"
}

# What the machine has committed is as much after either restore. The sizes of the mappings say that
# already, if their flags say what the kernel has charged. Others on the machine start and end at
# the same time, which does not make five tries differ.
same_committed() {
	local try stock differ=()
	for ((try = 0; try < TRIES; try++)); do
		restore_which stock
		committed_by "$PID"
		stock=$COMMITTED
		restore_which fast
		committed_by "$PID"
		[ $stock -ge $((32 << 10)) ] || {
			differ+=("stock $stock")
			continue
		}
		differ+=("stock $stock, fast $COMMITTED")
		stock=$((COMMITTED - stock))
		[ ${stock#-} -gt $SLACK_KIB ] || return 0
	done
	fail "Committed_AS in KiB: $(printf '%s; ' "${differ[@]}")"
}

each_version as_stock

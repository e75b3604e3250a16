#!/bin/bash
# SPDX-License-Identifier: MIT
# Five processes that share memory copied on write: contents are right, and what was shared before
# the dump is shared after the restore, as much as the stock CRIU shares it.
. "$(dirname "$0")/lib.sh"

start_tree() {
	local rank
	rm -f "$D"/ready* "$D"/report*
	start "$PROGS/tree" .
	for rank in 0 1 2 3 4; do
		wait_ready "ready.$rank"
	done
}

# Each process answers in its own report; which pid has which rank is in no file that is still
# there, so all are asked and all reports awaited.
check_tree() {
	local p rank
	rm -f "$D"/report*
	for p in $(tree_of "$1"); do
		kill -USR1 "$p"
	done
	for rank in 0 1 2 3 4; do
		wait_for 60 test -e "$D/report.$rank" || fail "rank $rank does not answer"
		grep -q ^OK "$D/report.$rank" || fail "rank $rank says: $(cat "$D/report.$rank")"
	done
}

# sum FIELD PID: of the whole tree, in KiB. Pss counts each page once, Rss once for each process.
sum() {
	local p
	for p in $(tree_of "$2"); do
		cat "/proc/$p/smaps_rollup"
	done | awk -v field="$1:" '$1 == field { sum += $2 } END { print sum }'
}

shares() {
	local before stock fast rss
	start_tree
	before=$(sum Pss "$PID")
	rss=$(sum Rss "$PID")
	roundtrip_from check_tree

	restore_stock "$D/dump"
	stock=$(sum Pss "$PID")
	stop "$PID"
	restore_fast "$D/fast"
	fast=$(sum Pss "$PID")
	stop "$PID"
	echo "$V: Pss of the tree: before $before, stock $stock, fast $fast KiB; Rss $rss KiB"
	[ $((before * 2)) -lt "$rss" ] || fail "the program shares nothing: Pss $before, Rss $rss KiB"
	# A tenth, for zero pages that one or the other writes.
	[ "$fast" -le $((stock + stock / 10)) ] ||
		fail "memory that was shared is no more: Pss $fast KiB, stock $stock KiB"
}

every_version
each_version shares

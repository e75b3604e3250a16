#!/bin/bash
# SPDX-License-Identifier: MIT
# Memory in pages of 2 MiB from the kernel's pool, which CRIU's restorer fills by itself.
# Alone: the pool is the machine's.
. "$(dirname "$0")/lib.sh"

pool=/proc/sys/vm/nr_hugepages
[ -w $pool ] || skip "no $pool"
was=$(cat $pool)
put_back() {
	echo "$was" >$pool
}
trap 'status=$?; put_back; at_exit $status' EXIT
echo $((was + 16)) >$pool 2>/dev/null || skip "the pool of huge pages cannot be changed"
[ "$(cat $pool)" -ge $((was + 16)) ] || skip "not enough huge pages to be had"

huge() {
	start_ready "$PROGS/hugetlb" .
	snapshot "$PID" "$D/before"
	if ! (dump "$PID" "$D/dump") 2>"$D/dump.err"; then
		echo "CRIU $V cannot dump this: $(cat "$D/dump.err")"
		stop "$PID"
		return
	fi
	stock_snapshot "$D/dump"
	convert "$D/dump" "$D/fast"
	extract_same "$D/fast" "$D/dump"
	restore_fast "$D/fast"
	same_snapshot "fast restore"
	check "$PID"
	stop "$PID"
	echo "CRIU $V: done"
	tried=1
}

tried=
each_version huge
[ -n "$tried" ] || skip "no CRIU here can dump hugetlb memory"

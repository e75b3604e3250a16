#!/bin/bash
# SPDX-License-Identifier: MIT
# Where the address space is limited, a restore needs hardly more of it than the stock CRIU: the scratch
# memory of huge pages is small, or there is none.
. "$(dirname "$0")/lib.sh"

MIB=192

# restores_in LIMIT MIB COMMAND…: whether it restores with that limit, the process with all of its memory.
restores_in() {
	local limit=$1 mib=$2
	shift 2
	rm -f "$D/ready.0" "$D/restore.log"
	prlimit "--$limit=$((mib << 20))" "$@" -d -v4 -o "$D/restore.log" >"$D/out" 2>&1 || {
		stop "$PID"
		return 1
	}
	check "$PID" report.0
	stop "$PID"
}

address_space() {
	local limit least most
	start "$PROGS/bench_mem" . anon $MIB random
	wait_ready ready.0
	dump "$PID" "$D/dump"
	convert "$D/dump" "$D/fast"
	for limit in as data; do
		least=$(least_for_stock $((MIB / 2)) $((MIB + 256)) 2 $limit)
		most=$((least + least / 20 + 2))
		restores_in $limit $most "$CRIU" restore -D "$D/fast" --fast-image --fast-threads 2 ||
			fail "$limit: not restored in $most MiB, by the stock CRIU in $least: $(log_errors "$D/restore.log")"
		echo "$V: $limit: stock in $least MiB, fast in $most"
	done
}

each_version address_space

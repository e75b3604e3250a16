#!/bin/bash
# SPDX-License-Identifier: MIT
# Processes with so many mappings that there is no room for others.
. "$(dirname "$0")/lib.sh"

MOST=$(cat /proc/sys/vm/max_map_count)
[ "$MOST" -le 70000 ] || skip "up to $MOST mappings are allowed here"

many() {
	local maps
	for maps in "40000 2048" "$((MOST - 100)) 4"; do
		rm -rf "$D"/*
		start_ready "$PROGS/traces" . maps 16 $maps
		dump "$PID" "$D/dump"
		restore_stock "$D/dump"
		check "$PID"
		stop "$PID"
		convert "$D/dump" "$D/fast"
		restore_fast "$D/fast"
		check "$PID"
		compare_running
		stop "$PID"
	done
}

# Each page of the mappings, by reading it.
compare_running() {
	"$PYTHON" - "$PID" <<-'END'
		import struct, sys
		pid = sys.argv[1]
		n = 0
		with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb") as mem:
		    rows = [l.split() for l in maps]
		    starts = [int(r[0].split("-")[0], 16) for r in rows if len(r) == 5 and r[1] == "rw-p"]
		    for i, start in enumerate(starts):
		        mem.seek(start)
		        value = struct.unpack("Q", mem.read(8))[0]
		        n += value % 2 == 0 and value // 2 < len(starts)
		sys.exit(0 if n > 15000 else f"only {n} pages are right")
	END
}

each_version many

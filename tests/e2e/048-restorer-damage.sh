#!/bin/bash
# SPDX-License-Identifier: MIT
# Damaged bytes under pages that CRIU's restorer puts in place itself, by copying what was filled
# for it or by reading the pack: no such restore succeeds, and nothing is left of it.
# Alone: the pool of huge pages is the machine's.
. "$(dirname "$0")/lib.sh"

POOL=/proc/sys/vm/nr_hugepages
MOST_MAPS=$(cat /proc/sys/vm/max_map_count)
# Of private memory, in MiB: less and more than what is filled for the restorer to copy.
STAGED=8
READ_AGAIN=72
WAS=$(cat $POOL 2>/dev/null) || skip "no $POOL"

trap 'status=$?; echo "$WAS" >$POOL; at_exit $status' EXIT
WANT=$((WAS + READ_AGAIN / 2 + 8))
echo $WANT >$POOL 2>/dev/null || skip "the pool of huge pages cannot be changed"
[ "$(cat $POOL)" -ge $WANT ] || skip "not enough huge pages to be had"

# The places in the pack of the first byte, one in the middle and the last one of what the restorer
# puts in place (WHAT direct), or of all memory (any), of tasks.
places() {
	PYTHONPATH=$ROOT/tests/py "$PYTHON" -B - "$D/fast" "$1" <<-'END'
		import sys, ckread
		image = ckread.opened(sys.argv[1])
		at = []
		for t, target in enumerate(image.targets):
		    for place, chunk, first, pages in image.target_ops(t) if target[6] == 1 else []:
		        c = image.chunks[chunk]
		        if c[3] == ckread.RAW and (sys.argv[2] == "any" or place & 2):
		            start = c[0] + first * 4096
		            at += [start + k * 4096 for k in range(pages)]
		print(at[0], at[len(at) // 2] + 2000, at[-1] + 4095)
	END
}

free_pages() {
	awk '/^HugePages_Free:/ { print $2 }' /proc/meminfo
}

# No process of CRIU is left, and no huge page is in use.
refused() {
	local free
	free=$(free_pages)
	restore_refused "$D/bad" "$1" "chunks.*(checksum|R-data)"
	wait_for 5 no_criu || fail "$1: a process of CRIU is left"
	wait_for 5 all_free "$free" || fail "$1: $(free_pages) huge pages are free, $free before"
}

no_criu() {
	local exe
	for exe in /proc/[0-9]*/exe; do
		[ ! "$exe" -ef "$CRIU" ] || return 1
	done
}

all_free() {
	[ "$(free_pages)" = "$1" ]
}

# damaged WHAT PLACES: each of them, read in each way.
damaged() {
	local at way
	cp -a "$D/fast" "$D/bad"
	for at in $(places "$2"); do
		flip "$D/bad/ckfast.pack" "$at"
		for way in CKF_NONE CKF_NO_URING CKF_NO_DIRECT; do
			export $way=1
			refused "$1, byte $at, $way"
			unset $way
		done
		flip "$D/bad/ckfast.pack" "$at"
	done
	restore_fast "$D/bad"
	check "$PID"
	stop "$PID"
}

of_pool() {
	local mib
	for mib in $STAGED $READ_AGAIN; do
		rm -rf "$D"/*
		start_ready "$PROGS/hugetlb" . $mib
		TREE=$PID
		if ! (dump "$PID" "$D/dump") 2>"$D/dump.err"; then
			echo "CRIU $V cannot dump this: $(cat "$D/dump.err")"
			stop "$PID"
			return
		fi
		convert "$D/dump" "$D/fast" --codec raw
		damaged "$mib MiB from the pool" direct
		TRIED=1
	done
}

# So many mappings that none is premapped: the restorer copies all.
of_many_maps() {
	[ "$MOST_MAPS" -le 70000 ] || return 0
	rm -rf "$D"/*
	start_ready "$PROGS/traces" . maps 16 $((MOST_MAPS - 100)) 4
	TREE=$PID
	dump "$PID" "$D/dump"
	convert "$D/dump" "$D/fast" --codec raw
	damaged "$MOST_MAPS mappings" any
	TRIED=1
}

TRIED=
each_version of_pool
each_version of_many_maps
[ -n "$TRIED" ] || skip "no CRIU here can dump hugetlb memory, and there may be too many mappings"

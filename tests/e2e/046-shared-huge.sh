#!/bin/bash
# SPDX-License-Identifier: MIT
# Shared memory of two processes, in huge pages where the kernel makes them of shared memory.
. "$(dirname "$0")/lib.sh"

check_both() {
	local pids
	pids=$(tree_of "$1")
	check "${pids%%$'\n'*}" report.0
	kill -0 "${pids##*$'\n'}"
	check "${pids##*$'\n'}" report.1
}

huge_pages() {
	"$PYTHON" -c 'import json, sys
print(json.load(open(sys.argv[1]))["huge_pages"])' "$D/stats"
}

# makes_huge: MADV_COLLAPSE came with Linux 6.1.
makes_huge() {
	local thp=/sys/kernel/mm/transparent_hugepage
	[ "$(printf '%s\n' 6.1 "$(uname -r)" | sort -V | head -n 1)" = 6.1 ] &&
		! grep -q '\[never\]' $thp/enabled && ! grep -q '\[deny\]' $thp/shmem_enabled
}

shared() {
	start "$PROGS/bench_mem" . shm 16 random 2
	wait_ready ready.0
	wait_ready ready.1
	roundtrip_from check_both
	restore_fast "$D/fast" --fast-stats "$D/stats"
	check_both "$PID"
	stop "$PID"
	if makes_huge; then
		# How many is a matter of what they cost at the moment.
		[ "$(huge_pages)" -ge 1 ] || fail "no huge pages in 16 MiB"
	else
		echo "$V: no huge pages of shared memory here"
	fi
}

each_version shared

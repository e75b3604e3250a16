#!/bin/bash
# SPDX-License-Identifier: MIT
# Where the kernel commits no more memory than there is (vm.overcommit_memory=2), a fast restore
# needs hardly more than the stock CRIU.
# Alone: the setting is the machine's. It is in force while one restore runs, and no longer.
. "$(dirname "$0")/lib.sh"

MIB=256
TRIES=4
VM=/proc/sys/vm

WAS_MODE=$(cat $VM/overcommit_memory)
WAS_RATIO=$(cat $VM/overcommit_ratio)
WAS_KBYTES=$(cat $VM/overcommit_kbytes)

# Of ratio and kbytes, writing one clears the other.
put_back() {
	echo "$WAS_MODE" >$VM/overcommit_memory
	if [ "$WAS_KBYTES" != 0 ]; then
		echo "$WAS_KBYTES" >$VM/overcommit_kbytes
	else
		echo "$WAS_RATIO" >$VM/overcommit_ratio
	fi
} 2>/dev/null

[ -w $VM/overcommit_memory ] || skip "vm.overcommit_memory cannot be written"
trap 'status=$?; put_back; at_exit $status' EXIT
trap 'exit 143' TERM INT HUP
echo 2 >$VM/overcommit_memory 2>/dev/null || skip "vm.overcommit_memory cannot be set to 2"
put_back

# restores_in MIB COMMAND…: whether it restores, the process with all of its memory, where the
# machine may commit that much more than it has committed.
restores_in() {
	local mib=$1 status=0
	shift
	rm -f "$D/ready.0" "$D/restore.log"
	echo $(($(committed_as) + (mib << 10))) >$VM/overcommit_kbytes
	echo 2 >$VM/overcommit_memory
	"$@" -d -v4 -o "$D/restore.log" >"$D/out" 2>&1 || status=1
	put_back
	if [ $status != 0 ]; then
		stop "$PID"
		return 1
	fi
	check "$PID" report.0
	stop "$PID"
}

# Others on the machine commit and give back memory, too: one good try is enough.
overcommit() {
	local least most try tried=
	start "$PROGS/bench_mem" . anon $MIB random
	wait_ready ready.0
	dump "$PID" "$D/dump"
	convert "$D/dump" "$D/fast"
	for ((try = 0; try < TRIES; try++)); do
		restores_in $((2 * MIB)) "$CRIU_STOCK" restore -D "$D/dump" || continue
		least=$(least_for_stock $((MIB / 2)) $((2 * MIB)) 4)
		most=$((least + least / 20 + 2))
		TRIED=1 tried=1
		if restores_in $most "$CRIU" restore --fast-image --fast-threads 2 -D "$D/fast"; then
			echo "$V: stock with $least MiB to commit, fast with $most"
			return
		fi
		grep -a Error "$D/restore.log" || true
	done
	[ -n "$tried" ] || return 0
	fail "not with $most MiB to commit, stock with $least: $(log_errors "$D/restore.log")"
}

TRIED=
each_version overcommit
[ -n "$TRIED" ] || skip "the stock CRIU does not restore with $((2 * MIB)) MiB to commit"

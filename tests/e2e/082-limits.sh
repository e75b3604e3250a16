#!/bin/bash
# SPDX-License-Identifier: MIT
# In a cgroup that allows no further threads, or hardly more memory than the stock CRIU needs: the
# restore does with what there is.
. "$(dirname "$0")/lib.sh"

MIB=64

# restore_in: as restore_fast(), but in G.
restore_in() {
	rm -f "$D/stats"
	(
		echo "$BASHPID" >"$G/cgroup.procs"
		exec "$CRIU" restore -D "$D/fast" -d -v4 -o "$D/restore.log" --fast-image \
			--fast-threads 4 --fast-stats "$D/stats"
	) || fail "restore in $G: $(log_errors "$D/restore.log")"
}

stat_of() {
	"$PYTHON" -c 'import json, sys
print(json.load(open(sys.argv[1]))[sys.argv[2]])' "$D/stats" "$1"
}

# Room for criu and the task. A single worker then is the task itself.
no_threads() {
	in_cgroup pids pids.max=2 pids.max=2 || {
		SKIPPED+=" pids"
		return 0
	}
	restore_in
	check "$PID" report.0
	[ "$(stat_of workers)" = 1 ] || fail "$(stat_of workers) workers where none was allowed"
	stop "$PID"
	leave_cgroup
}

# CRIU moves the task to the cgroup that it was dumped in, whose limits count then, not those of CRIU's own.
moved() {
	in_cgroup pids pids.max=max pids.max=max || return 0
	start "$PROGS/bench_mem" . anon $MIB random
	wait_ready ready.0
	echo "$PID" >"$G/cgroup.procs"
	dump "$PID" "$D/moved" --manage-cgroups=soft
	convert "$D/moved" "$D/moved-fast"
	echo 2 >"$G/pids.max"
	rm -f "$D/stats"
	"$CRIU" restore -D "$D/moved-fast" -d -v4 -o "$D/restore.log" --fast-image --fast-threads 4 \
		--fast-stats "$D/stats" --manage-cgroups=soft || fail "restore into $G: $(log_errors "$D/restore.log")"
	grep -qw "$PID" "$G/cgroup.procs" || fail "the task is not in $G"
	check "$PID" report.0
	[ "$(stat_of workers)" = 1 ] || fail "$(stat_of workers) workers where the cgroup of the task allows none"
	stop "$PID"
	leave_cgroup
}

# restores_in KIB COMMAND…: whether it restores in G with that limit.
restores_in() {
	local kib=$1
	shift
	echo -1 >"$G/$LIMIT" 2>/dev/null || echo max >"$G/$LIMIT"
	echo $((kib << 10)) >"$G/$LIMIT" || return 1
	rm -f "$D/ready.0" "$D/restore.log"
	(
		echo "$BASHPID" >"$G/cgroup.procs"
		exec "$@" -d -v4 -o "$D/restore.log"
	) >"$D/out" 2>&1 || {
		stop "$PID"
		return 1
	}
	check "$PID" report.0
	stop "$PID"
}

# What is enough for the stock CRIU is enough, but for what the index of the image and the buffer of one
# read take. Not in each of several tries: the kernel charges in advance, for each CPU.
little_memory() {
	local least good=0 try
	in_cgroup memory memory.limit_in_bytes=-1 memory.max=max || {
		SKIPPED+=" memory"
		return 0
	}
	LIMIT=$(cd "$G" && echo memory.limit_in_bytes*)
	[ -n "$LIMIT" ] || LIMIT=memory.max
	least=$(least_for_stock $((MIB << 10)) $(((MIB + 32) << 10)) 128)
	for try in 1 2 3 4 5; do
		! restores_in $((least + 640)) "$CRIU" restore -D "$D/fast" --fast-image \
			--fast-threads 4 --fast-stats "$D/stats" || good=$((good + 1))
	done
	echo "$V: stock with $((least - (MIB << 10))) KiB more than the process; $good of $try with 640 more"
	[ $good -ge 2 ] || fail "restored $good times of $try in $((least + 640)) KiB, by the stock CRIU in $least"
	grep -aq 'fast-image: Memory is short' "$D/restore.log" || fail "the log does not say that memory is short"
	[ "$(stat_of huge_pages)" = 0 ] || fail "$(stat_of huge_pages) huge pages where memory is short"
	[ "$(stat_of workers)" = 1 ] || fail "$(stat_of workers) workers where memory is short"
	enough_memory
	many_cpus "$least"
	leave_cgroup
}

# with_cpus CPUS KIB: a fast restore in G with that limit, on a machine that seems to have so many CPUs. Sets
# WORKERS, and SHORT where memory is short for one.
with_cpus() {
	restores_in "$2" env LD_PRELOAD="$PROGS/cpus.so" CKF_TEST_CPUS="$1" "$CRIU" restore -D "$D/fast" \
		--fast-image --fast-stats "$D/stats" || return 1
	WORKERS=$(stat_of workers)
	! grep -aq 'fast-image: Memory is short' "$D/restore.log" || SHORT=yes
}

# On any number of CPUs: as many workers as the image is worth, fewer where there is no room for them, and a
# frugal fill last. No limit that is enough for one worker is too little for more CPUs.
many_cpus() {
	local least=$1 cpus more before useful
	# One for 16 MiB, but no more than there are lanes.
	useful=$("$CKFAST" inspect --json "$D/fast" | "$PYTHON" -c 'import json, sys
task = max(json.load(sys.stdin)["image"]["targets"], key=lambda t: t["fill_bytes"])
print(min(task["lanes"], task["fill_bytes"] >> 24))')
	[ "$useful" -gt 2 ] || fail "the image is worth $useful workers"
	for cpus in 1 2 16 64 256; do
		SHORT=
		with_cpus $cpus $((least + (1 << 20))) || fail "$cpus CPUs: $(log_errors "$D/restore.log")"
		[ "$WORKERS" = $((cpus < useful ? cpus : useful)) ] || fail "$cpus CPUs: $WORKERS workers"
		for more in 64 24 8 2; do
			before=$WORKERS
			with_cpus $cpus $((least + (more << 10))) ||
				fail "$cpus CPUs, $more MiB more than stock needs: $(log_errors "$D/restore.log")"
			[ "$WORKERS" -le "$before" ] ||
				fail "$cpus CPUs, $more MiB more than stock needs: $WORKERS workers, $before with more"
			[ -z "$SHORT" ] || [ "$WORKERS" = 1 ] || fail "$cpus CPUs: $WORKERS workers where memory is short"
		done
		[ -n "$SHORT" ] || fail "$cpus CPUs: memory is not short with 2 MiB more than stock needs"
	done
}

# With a limit that is far away nothing is saved.
enough_memory() {
	restores_in $(((MIB + 512) << 10)) "$CRIU" restore -D "$D/fast" --fast-image \
		--fast-threads 4 --fast-stats "$D/stats" || fail "restore: $(log_errors "$D/restore.log")"
	! grep -aq 'Memory is short' "$D/restore.log" || fail "memory is said to be short with 512 MiB left"
	[ "$(stat_of workers)" -gt 1 ] || fail "one worker where memory is not short"
}

limits() {
	start "$PROGS/bench_mem" . anon $MIB random
	wait_ready ready.0
	dump "$PID" "$D/dump"
	convert "$D/dump" "$D/fast"
	no_threads
	little_memory
	moved
}

SKIPPED=
each_version limits
[ -z "$SKIPPED" ] || skip "no cgroup controllers for limits here:$SKIPPED"

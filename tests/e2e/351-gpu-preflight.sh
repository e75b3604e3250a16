#!/bin/bash
# SPDX-License-Identifier: MIT
# What CRIU will refuse is refused before device memory is taken, in words that say what to change;
# what CRIU dumps is dumped. Each refusal is a right one: without it CRIU fails, late, and the
# program goes on, its memory right.
. "$(dirname "$0")/gpu.sh"

NR=0

# odd_start THING [agent]: cuapp with it. Sets PID, the root, and APP, which has CUDA. False where
# the kernel has no such thing.
odd_start() {
	local thing=$1 app=("$STUB/cuapp" . allocs=9)
	[ "${2:-}" != agent ] || app=("$CKFAST" run -- "${app[@]}")
	rm -f "$D"/ready "$D"/report "$D"/child
	start "$PYTHON" "$ROOT/tests/e2e/odd.py" "$thing" "${app[@]}"
	wait_for 60 test -e "$D/ready" -o ! -d "/proc/$PID" || fail "$thing: cuapp does not get ready"
	[ -e "$D/ready" ] || return 1
	APP=$PID
	[ ! -e "$D/child" ] || APP=$(cat "$D/child")
}

odd_dump() {
	mkdir -p "$D/failed"
	"$CRIU" dump -t "$PID" -D "$D/failed" -v4 -o "$D/dump.log" --libdir "$(plugin_of "$CRIU")" "$@"
}

was_taken() {
	grep -aq 'device memory of process .* in images' "$D/dump.log"
}

says() {
	grep -a Error "$D/dump.log" | grep -aq "$1" || fail "the log does not say '$1': $(log_errors "$D/dump.log")"
}

# refused THING WORDS [CURE…]: and dumped with the options in CURE, if there are any.
refused() {
	local thing=$1 words=$2 kind
	shift 2
	NR=$((NR + 1))
	kind=$([ $((NR % 2)) = 0 ] || echo agent)
	odd_start "$thing" "$kind" || {
		echo "no $thing here"
		return 0
	}
	! odd_dump || fail "$thing: was dumped"
	says "$words"
	says "Nothing was taken"
	! was_taken || fail "$thing: device memory was taken"
	check "$APP"

	! CKFAST_NO_PREFLIGHT=1 odd_dump || fail "$thing: CRIU dumps it, so it must not be refused"
	was_taken || fail "$thing: refused all the same: $(log_errors "$D/dump.log")"
	check "$APP"
	if [ $# -gt 0 ]; then
		odd_dump --leave-running "$@" || fail "$thing: not dumped with $*: $(log_errors "$D/dump.log")"
		check "$APP"
	fi
	stop "$PID"
	gpu_idle
	rm -rf "$D/failed"
}

# ranks_start COMMAND…: two ranks of NCCL, as far as their sockets show.
ranks_start() {
	rm -f "$D"/ready "$D"/child
	start "$@" "$PYTHON" "$ROOT/tests/e2e/odd.py" stay-rank0 "$PYTHON" "$ROOT/tests/e2e/odd.py" rank1 \
		"$STUB/cuapp" . allocs=9
	wait_ready ready
	APP=$(cat "$D/child")
}

# With memory of another process the driver's restore fails, and nobody but NCCL knows who has it.
ranks() {
	local setting
	ranks_start env
	! odd_dump || fail "ranks of NCCL were dumped"
	says "by NCCL.*ckfast run.*NCCL_P2P_DISABLE=1"
	! was_taken || fail "ranks: device memory was taken"
	check "$APP"
	CKFAST_NO_PREFLIGHT=1 odd_dump --leave-running || fail "ranks: $(log_errors "$D/dump.log")"
	check "$APP"
	stop "$PID"
	for setting in "env NCCL_P2P_DISABLE=1 NCCL_CUMEM_ENABLE=0" "$CKFAST run --"; do
		ranks_start $setting
		odd_dump --leave-running || fail "$setting: $(log_errors "$D/dump.log")"
		check "$APP"
		stop "$PID"
	done
	gpu_idle
	rm -rf "$D/failed"
}

# Two processes, the second with imported memory that its agent has no room for a descriptor of, and
# so cannot take away: the first keeps all that it has, too.
imported() {
	local name
	mkdir -p "$D/one" "$D/two"
	rm -f "$D"/{one,two}/{ready,report}
	start "$BASH" -c '"$@" one & (ulimit -Sn 500; exec "$@" two allocs=9 vmm import) & wait' pair "$CKFAST" run -- "$STUB/cuapp"
	for name in one two; do
		wait_for 60 test -e "$D/$name/ready" || fail "$name does not get ready: $(cat "$D/stderr")"
	done
	mapfile -t APPS < <(tree_of "$PID" | tail -n +2)
	! odd_dump || fail "a process with memory of another one was dumped"
	says 'has memory of another one'
	says "Nothing was taken"
	! grep -aq 'CUDA of process .* is locked' "$D/dump.log" || fail "a process was locked before that was seen"
	# The second one gives it up at its second SIGUSR1.
	pair_check first
	pair_check second
	odd_dump --leave-running || fail "without imported memory: $(log_errors "$D/dump.log")"
	pair_check last
	stop "$PID"
	gpu_idle
	rm -rf "$D/failed"
}

plain() {
	local kind thing=plain
	[[ $V == 4.1* ]] || thing=plain-sockets
	for kind in agent ''; do
		odd_start $thing $kind || fail "plain things are not there"
		odd_dump --leave-running || fail "plain things are not dumped: $(log_errors "$D/dump.log")"
		! grep -aq 'cannot be dumped' "$D/dump.log" || fail "plain things are refused"
		check "$APP"
		stop "$PID"
	done
	gpu_idle
}

no_session() {
	local leader
	rm -f "$D/ready"
	start "$BASH" -c '"$@" & wait' leader "$STUB/cuapp" . allocs=9
	wait_ready ready
	leader=$PID
	PID=$(tree_of "$leader" | tail -n 1)
	! odd_dump || fail "a process that leads no session was dumped"
	says "use --shell-job"
	check "$PID"
	odd_dump --shell-job --leave-running || fail "--shell-job: $(log_errors "$D/dump.log")"
	check "$PID"
	stop "$leader"
}

each_thing() {
	plain
	refused uring 'io_uring.*ckfast run.*USE_LIBUV=0'
	refused stay-uring 'io_uring'
	refused stay-uring-mapped 'io_uring (mapped)'
	refused locked 'locks of files: use --file-locks' --file-locks
	refused ghost 'has no name and 3145728 bytes: use --ghost-limit 3M' --ghost-limit 3M
	refused stay-ghost-mapped 'use --ghost-limit 3M' --ghost-limit 3M
	no_session
	# The rest is the same in all versions.
	[[ $V != 4.1* ]] || return 0
	refused perf 'perf event'
	refused userfault 'userfaultfd'
	refused device 'the device /dev/fuse'
	refused family 'socket of family 40'
	refused connected '2 connections.*--tcp-established'
	refused stay-pending 'wait to be accepted'
	ranks
	imported
}

each_version each_thing

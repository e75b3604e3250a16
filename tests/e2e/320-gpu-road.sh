#!/bin/bash
# SPDX-License-Identifier: MIT
# The whole road of GPU memory: a program with and without the agent, on two GPUs, dumped, converted,
# extracted, restored from the fast image and from the dump, through the daemon and through a helper; dumped
# again after that; left running.
. "$(dirname "$0")/gpu.sh"

restore_and_check() {
	gpu_restore "$1"
	check "$PID"
}

# What the program has made with the virtual memory API itself leaves with the rest: five handles, and
# those that its busy thread has just then.
has_handles() {
	"$PYTHON" - "$1" <<-'END' || fail "$1 lacks memory of the program's own"
		import glob, struct, sys
		table = open(glob.glob(sys.argv[1] + "/ckfast-gpu-[0-9]*.img")[0], "rb").read()
		devices, allocs = struct.unpack_from("<II", table, 20)
		addrs = [struct.unpack_from("<Q", table, 64 + 96 * devices + 32 * i)[0] for i in range(allocs)]
		sys.exit(sum(addr >= 1 << 62 for addr in addrs) < 5)
	END
}

# road AGENT: with AGENT "agent" or "".
road() {
	app_start $1 devices=2 vmm busy churn
	check "$PID"
	gpu_dump_running
	gpu_dump "$D/dump"
	[ -z "$1" ] || has_handles "$D/dump"
	gpu_idle
	convert "$D/dump" "$D/fast"
	"$CKFAST" inspect "$D/fast" >"$D/inspect.out" || fail "inspect"
	extract_same "$D/fast" "$D/dump"
	restore_and_check "$D/dump"
	stop "$PID"
	restore_and_check "$D/fast"
	# Memory that came from outside leaves in another way than memory that the agent made.
	gpu_dump "$D/again"
	[ -z "$1" ] || has_handles "$D/again"
	restore_and_check "$D/again"
	stop "$PID"
	gpu_idle
	rm -rf "$D/dump" "$D/fast" "$D/again"
}

gpu_dump_running() {
	rm -rf "$D/running"
	mkdir -p "$D/running"
	"$CRIU" dump -t "$PID" -D "$D/running" --leave-running -v4 -o dump.log \
		--libdir "$(plugin_of "$CRIU")" || fail "dump: $(log_errors "$D/running/dump.log")"
	check "$PID"
	rm -rf "$D/running"
}

roads() {
	local daemon
	for daemon in yes no; do
		[ $daemon = no ] || gpud_start
		road agent
		road ""
		gpud_stop
	done
	[ -s "$D/inspect.out" ] || fail "inspect says nothing"
}

each_version roads

#!/bin/bash
# SPDX-License-Identifier: MIT
# A program that is in calls of CUDA all the time, in several threads: parked, dumped and left
# running, dumped and restored, at any moment, again and again, it computes what is right. With the
# agent and without. Nobody needs to trace its threads for a park.
. "$(dirname "$0")/gpu.sh"

turns() {
	local i
	for ((i = 0; i < $1; i++)); do
		sleep 0.0$((RANDOM % 10))
		"$CKFAST" park "$PID" --dir "$W/parked" >/dev/null || fail "park $i"
		gpu_idle
		"$CKFAST" unpark "$PID" --dir "$W/parked" >/dev/null || fail "unpark $i"
		check "$PID"
	done
}

dumps() {
	local i
	for ((i = 0; i < $1; i++)); do
		"$CRIU" dump -t "$PID" -D "$D" -v4 -o "$D/dump.log" --leave-running \
			--libdir "$(plugin_of "$CRIU")" || fail "dump $i: $(log_errors "$D/dump.log")"
		check "$PID"
		gpu_dump "$D/dump"
		gpu_restore "$D/dump"
		check "$PID"
	done
}

all_stopped() {
	! grep -hs '^State:' /proc/"$PID"/task/*/status | grep -qv T
}

# A tracer that lets the program run is no hindrance; one that has stopped it is told of.
traced() {
	"$PYTHON" - "$PID" <<-'END' &
		import ctypes, os, sys, time
		libc = ctypes.CDLL(None, use_errno=True)
		libc.ptrace.argtypes = [ctypes.c_long] + 3 * [ctypes.c_void_p]
		for tid in os.listdir(f'/proc/{sys.argv[1]}/task'):
		    if libc.ptrace(0x4206, int(tid), None, None):
		        sys.exit('cannot trace')
		open('traced', 'w').close()
		while os.path.exists('traced'):
		    time.sleep(0.01)
	END
	local tracer=$!
	wait_for 20 test -e traced || fail "the program is not traced"
	turns 1
	rm traced
	wait "$tracer"
	kill -STOP "$PID"
	wait_for 20 all_stopped || fail "the program does not stop"
	! "$CKFAST" park "$PID" --dir "$W/parked" 2>err || fail "a stopped process was parked"
	grep -q "is stopped" err || fail "the message does not say that it is stopped: $(cat err)"
	kill -CONT "$PID"
	check "$PID"
}

load() {
	gpud_start
	app_start agent devices=2 vmm busy=4 churn
	turns 4
	traced
	dumps 1
	stop "$PID"
	gpu_idle
	app_start busy=4
	turns 1
	dumps 1
	stop "$PID"
	gpud_stop
	gpu_idle
}

each_version load

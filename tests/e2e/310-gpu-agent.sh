#!/bin/bash
# SPDX-License-Identifier: MIT
# The agent in a program that is not dumped: it takes over large allocations whether the program
# links the driver or looks it up, what the program sees is right, and dlsym() of others works.
. "$(dirname "$0")/gpu.sh"

D=$W
need_ckfast

# calls FUNCTION: how often the program has called it.
calls() {
	awk -v f="$1" '$1 == f { n += $2 } END { print n + 0 }' "$W/count"
}

run_app() {
	local app=$1
	shift
	rm -f "$W/count" "$W/stop"
	export CKF_STUB_COUNT=$W/count
	start_ready "$@" "$STUB/$app" . devices=2 vmm busy churn
	check "$PID"
	touch "$W/stop"
	check "$PID"
	wait_for 20 is_gone "$PID" || fail "$app does not end"
	gpu_idle
}

for app in cuapp cuapp-linked; do
	run_app "$app"
	all=$(calls cuMemAlloc)
	run_app "$app" "$CKFAST" run --
	[ "$(calls cuMemAlloc)" -lt $((all - 10)) ] || fail "$app: the agent has taken over nothing"
	[ "$(calls cuMemAlloc)" -gt 10 ] || fail "$app: small allocations are the driver's"
done

# What is asked and done about memory has the driver's answers, right calls and wrong ones.
"$STUB/cuanswers" >answers || fail "cuanswers without the agent"
"$CKFAST" run -- "$STUB/cuanswers" >answers.agent || fail "cuanswers with the agent"
diff answers answers.agent >&2 || fail "the agent answers otherwise than the driver"
[ "$(grep -c ': 0,' answers)" -gt 60 ] && [ "$(grep -vc ': 0,' answers)" -gt 20 ] || fail "cuanswers asks too little"
gpu_idle

# RTLD_NEXT of a library behind the agent is what comes after that library, not after the agent.
printf '%s\n' '#define _GNU_SOURCE' '#include <dlfcn.h>' '#include <unistd.h>' \
	'pid_t getppid(void) { return ((pid_t (*)(void))dlsym(RTLD_NEXT, "getppid"))() + 1000000; }' >next.c
"${CC:-gcc}" -O2 -shared -fPIC -o next.so next.c || skip "no compiler"
got=$(LD_PRELOAD=$AGENT:$W/next.so "$PYTHON" -c 'import os; print(os.getppid())') ||
	fail "dlsym(RTLD_NEXT) does not come back"
[ "$got" -gt 1000000 ] || fail "the library behind the agent was passed over"

# A program that has nothing to do with CUDA.
[ "$("$CKFAST" run -- echo word)" = word ] || fail "ckfast run echo"
! "$CKFAST" run -- /no/such/program 2>err || fail "no such program"
grep -q /no/such/program err || fail "the message names no program: $(cat err)"

# What it sets, only where nothing is set.
seen() {
	env -u LD_PRELOAD -u USE_LIBUV -u UV_USE_IO_URING "$@" | sort
}
wanted=$(printf "%s\n" "LD_PRELOAD=$AGENT" UV_USE_IO_URING=0 USE_LIBUV=0 | sort)
[ "$(seen "$CKFAST" run --env)" = "$wanted" ] || fail "run --env: $(seen "$CKFAST" run --env)"
got=$(seen "$CKFAST" run -- env | grep -E '^(LD_PRELOAD|USE_LIBUV|UV_USE_IO_URING)=')
[ "$got" = "$wanted" ] || fail "the program's environment: $got"
[ "$(USE_LIBUV=1 "$CKFAST" run -- printenv USE_LIBUV)" = 1 ] || fail "a variable of the user's was changed"
USE_LIBUV=1 "$CKFAST" run --env | grep -qx USE_LIBUV=1 || fail "--env does not say what the user has set"
! "$CKFAST" run --env true 2>err || fail "--env with a program"

# SPDX-License-Identifier: MIT
#
# What the tests of gpud share. Sourced after tests/e2e/lib.sh.
D=$W
STUB=$BUILD/stub
GPUDTEST=$PROGS/gpudtest
need_ckfast
[ -x "$STUB/stub-smi" ] || skip "no $STUB/stub-smi (make stub)"
[ -x "$GPUDTEST" ] || skip "no $GPUDTEST (make progs)"
export LD_LIBRARY_PATH=$STUB
export CKFAST_GPUD_SOCKET=$W/run/gpud.sock
GPUD=

# start_gpud OPTIONS…: and waits until it is ready. Sets GPUD.
start_gpud() {
	: >gpud.log
	"$CKFAST" gpud "$@" 2>>gpud.log &
	GPUD=$!
	disown "$GPUD"
	wait_for 20 grep -q ': ready$' gpud.log || fail "gpud does not get ready: $(cat gpud.log)"
}

stop_gpud() {
	kill "$GPUD"
	wait_for 20 is_gone "$GPUD" || fail "gpud does not end"
	[ ! -e "$CKFAST_GPUD_SOCKET" ] || fail "gpud left its socket"
	nothing_left "gpud ended"
}

client() {
	"$GPUDTEST" "$@" >client.out 2>client.err
}

# works ARGS…: the client does.
works() {
	client "$@" || fail "gpudtest $*: $(cat client.err)"
}

# refused WORDS ARGS…: it says them, and why.
refused() {
	local words=$1 status=0
	shift
	client "$@" || status=$?
	[ $status = 1 ] || fail "gpudtest $*: exit code $status, want 1: $(cat client.err)"
	grep -qF -- "$words" client.err || fail "gpudtest $*: want \"$words\": $(cat client.err)"
}

# Bytes that are in use on all GPUs.
used() {
	"$STUB/stub-smi" | awk '{ sum += $2 } END { print sum }'
}

used_is() {
	[ "$(used)" = "$1" ]
}

nothing_left() {
	wait_for 20 used_is 0 || fail "$1: memory is left on the GPUs: $(used)"
}

# status EXPRESSION: of the object s.
status() {
	"$CKFAST" gpud --status --json >status.json || fail "no status"
	"$PYTHON" -c "import json, sys; s = json.load(open('status.json')); print(($1))"
}

status_is() {
	local got
	got=$(status "$1")
	[ "$got" = "$2" ] || fail "status: $1 is $got, want $2"
}

# filled PID…: what the client got of each process is what was saved.
filled() {
	local pid
	for pid in "$@"; do
		cmp "out/$pid" "expect-$pid" || fail "process $pid: the memory is not the same"
	done
	rm -rf out
	mkdir out
}

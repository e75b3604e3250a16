#!/bin/bash
# SPDX-License-Identifier: MIT
#
# gpud and its client in different pid namespaces: the process that the client means is locked,
# dumped and restored, never the other one that has the same number where gpud is. And client and
# gpud of different versions say so.
. "$(dirname "$0")/gpu.sh"
GPUDTEST=$PROGS/gpudtest
NUMBER=700 # of a process on either side
export ROOT BUILD PROGS CKFAST PYTHON STUB AGENT GPUDTEST NUMBER W

[ -w /proc/sys/kernel/ns_last_pid ] || skip "cannot choose the number of a process"

# start_numbered COMMAND…: as the process NUMBER.
start_numbered() {
	local tries=20
	# One for rm in start_ready.
	until echo $((NUMBER - 2)) >/proc/sys/kernel/ns_last_pid && start_ready "$@" && [ "$PID" = "$NUMBER" ]; do
		stop "$PID"
		[ $((tries--)) -gt 0 ] || fail "the process is never number $NUMBER"
	done
}

# contained FUNCTION ARGS… &: in a pid namespace of its own, which ends with the process $!.
contained() {
	export V CRIU CRIU_STOCK D
	exec unshare --pid --fork --mount-proc --kill-child "$PROGS/reaper" 120 "$BASH" -c \
		"set -euo pipefail; $(declare -f); \"\$@\"" contained "$@"
}

# act ACTION PID: what gpud answers.
act() {
	"$GPUDTEST" act "$@" 2>&1 || true
}

# state_is PID STATE: as the driver numbers them.
state_is() {
	[ "$(act state "$1")" = "$2" ] || fail "process $1 is in state $(act state "$1"), not $2"
}

inner() {
	D=$D/inner
	cd "$D"
	start_numbered "$CKFAST" run -- "$STUB/cuapp" .
	[ "$(act lock "$PID")" = 0 ] || fail "lock: $(act lock "$PID")"
	touch locked
	wait_for 60 test -e seen
	state_is "$PID" 1
	[ "$(act unlock "$PID")" = 0 ] || fail "unlock: $(act unlock "$PID")"
	gpu_dump dump
	convert dump fast
	gpu_restore fast
	check "$PID"
	"$CKFAST" park --dir "$D/parked" "$PID" >park.out 2>&1 || fail "park: $(cat park.out)"
	state_is "$PID" 2
	"$CKFAST" unpark --dir "$D/parked" "$PID" >park.out 2>&1 || fail "unpark: $(cat park.out)"
	check "$PID"
	stop "$PID"
}

# gpud outside, its client in a container.
client_contained() {
	local victim box
	gpud_start
	mkdir -p "$D/victim" "$D/inner"
	cd "$D/victim"
	D=$D/victim start_numbered "$STUB/cuapp" .
	victim=$PID
	cd "$W"
	contained inner >inner.out 2>&1 &
	box=$!
	wait_for 60 test -e "$D/inner/locked" -o ! -d "/proc/$box"
	state_is "$victim" 0
	touch "$D/inner/seen"
	wait "$box" || fail "in the container: $(cat inner.out)"
	state_is "$victim" 0
	D=$D/victim check "$victim"
	stop "$victim"
	gpud_stop
	rm -r "$D/inner" "$D/victim"
}

gpud_inside() {
	D=$D/inner
	cd "$D"
	gpud_start
	start_numbered "$STUB/cuapp" .
	touch running
	sleep 120
}

# outer_number: of the process in the container.
outer_number() {
	# Others may end meanwhile.
	{ grep -ls "^NSpid:.*	$NUMBER\$" /proc/[0-9]*/status || true; } | cut -d/ -f3 | head -n 1
}

# gpud in a container, its client outside. What gpud cannot see it does not touch.
gpud_contained() {
	local box inside outside
	mkdir -p "$D/inner" "$D/outside"
	contained gpud_inside >inner.out 2>&1 &
	box=$!
	disown "$box"
	wait_for 60 test -e "$D/inner/running" || fail "in the container: $(cat inner.out)"
	export CKFAST_GPUD_SOCKET=$W/gpud/sock
	inside=$(outer_number)
	D=$D/outside start_numbered "$STUB/cuapp" .
	outside=$PID
	[ "$(act lock "$inside")" = 0 ] || fail "lock: $(act lock "$inside")"
	state_is "$inside" 1
	act lock "$outside" | grep -q 'in a pid namespace that gpud.* does not contain' ||
		fail "a process that gpud does not see: $(act lock "$outside")"
	state_is "$inside" 1
	! "$CKFAST" park --dir "$D/parked" "$outside" 2>park.err || fail "parked a process that gpud does not see"
	grep -q 'in a pid namespace that' park.err || fail "park: $(cat park.err)"
	kill -9 "$box"
	wait_for 20 is_gone "$inside" || fail "the container stays"
	[ "$("$BUILD/bin/cuda-checkpoint" --pid "$outside" --action state)" = running ] || fail "the process outside was touched"
	stop "$outside"
	export CKFAST_GPUD_SOCKET=$W/none
	rm -r "$D/inner" "$D/outside"
}

VERSION=$(gpud_version)

# Old clients with this gpud; this client with an old one.
versions() {
	local v
	gpud_start
	for v in 0 $((VERSION - 1)); do
		! "$GPUDTEST" hello $v 2>client.err || fail "a client of version $v is served"
		grep -q 'both have to come from one version of ckfast' client.err || fail "version $v: $(cat client.err)"
	done
	"$GPUDTEST" hello "$VERSION" >/dev/null || fail "a client of version $VERSION is not served"
	gpud_stop
	"$PYTHON" - "$W/old.sock" <<-'END' &
		import socket, struct, sys
		s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
		s.bind(sys.argv[1])
		s.listen()
		c = s.accept()[0]
		op, pid, version = struct.unpack_from("<IIQ", c.recv(1000))
		text = b"gpud speaks version 2, the client version %d" % version
		c.send(struct.pack("<IIQ", 18, 0, 95) + bytes(64) + text.ljust(432, b"\0"))
		c.recv(1000)
	END
	wait_for 20 test -S old.sock
	! CKFAST_GPUD_SOCKET=$W/old.sock "$CKFAST" park $$ 2>client.err || fail "an old gpud is used"
	grep -q 'old.sock: gpud speaks version 2, the client version '"$VERSION" client.err || fail "an old gpud: $(cat client.err)"
}

pidns() {
	client_contained
	gpud_contained
}

each_version pidns
versions

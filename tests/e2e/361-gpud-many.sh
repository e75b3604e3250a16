#!/bin/bash
# SPDX-License-Identifier: MIT
#
# gpuds that start at the same time: one of them serves, the others say so, and none takes the
# socket of another away. And a client that opens more and more connections.
. "$(dirname "$0")/lib.sh"
. "$ROOT/tests/gpu/lib.sh"
ROUNDS=50

# one_ended PID PID
one_ended() {
	is_gone "$1" || is_gone "$2"
}

# together: two at once, where a dead one has left its socket.
together() {
	local i pids winner
	for ((i = 1; i <= ROUNDS; i++)); do
		"$CKFAST" gpud --slots 1 --threads 1 2>first.log &
		pids=($!)
		"$CKFAST" gpud --slots 1 --threads 1 2>second.log &
		pids+=($!)
		disown -a
		wait_for 20 one_ended "${pids[@]}" || fail "round $i: both run"
		winner=${pids[0]}
		! is_gone "$winner" || winner=${pids[1]}
		wait_for 20 grep -q ': ready$' first.log second.log || fail "round $i: $(cat first.log second.log)"
		grep -q 'listens at .* already' first.log second.log || fail "round $i: $(cat first.log second.log)"
		[ "$(status "s['pid']")" = "$winner" ] || fail "round $i: the socket is not that of the one that runs"
		kill -9 "$winner"
		wait_for 20 is_gone "$winner" || fail "round $i: it does not end"
		[ -S "$CKFAST_GPUD_SOCKET" ] || fail "round $i: no socket"
	done
	rm "$CKFAST_GPUD_SOCKET"
}

# Somebody removes the socket, and another gpud starts: it stays when the first one ends.
replaced() {
	local first
	start_gpud
	first=$GPUD
	rm "$CKFAST_GPUD_SOCKET"
	start_gpud
	kill "$first"
	wait_for 20 is_gone "$first" || fail "gpud does not end"
	[ -S "$CKFAST_GPUD_SOCKET" ] || fail "a gpud that ends takes the socket of another one away"
	stop_gpud
	[ -z "$(ls run)" ] || fail "left behind: $(ls run)"
}

connections() {
	start_gpud
	"$PYTHON" - "$CKFAST_GPUD_SOCKET" "$(gpud_version)" >many.out <<-'END' || fail "connections: $(cat many.out)"
		import socket, struct, sys
		HELLO = struct.pack("<IIQ", 1, 0, int(sys.argv[2])) + bytes(496)
		socks, refused = [], None
		for i in range(400):
		    s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
		    s.connect(sys.argv[1])
		    s.settimeout(20)
		    try:
		        s.send(HELLO)
		    except BrokenPipeError:
		        pass
		    try:
		        answer = s.recv(1000)
		    except ConnectionResetError: # it has not read what we said
		        answer = s.recv(1000)
		    if struct.unpack_from("<I", answer)[0] != 16:
		        refused = answer[80:].rstrip(b"\0").decode()
		        break
		    socks.append(s)
		print(len(socks), refused)
		sys.exit(not (200 < len(socks) < 400 and "takes no more" in refused))
	END
	wait_for 20 "$CKFAST" gpud --status >/dev/null || fail "gpud serves nobody any more"
	stop_gpud
}

together
replaced
connections

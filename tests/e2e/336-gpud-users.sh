#!/bin/bash
# SPDX-License-Identifier: MIT
#
# gpud --group: members are served, with their own rights on files and processes, not those of gpud.
# And the limits of each user, which leave others alone.
. "$(dirname "$0")/lib.sh"
. "$ROOT/tests/gpu/lib.sh"

[ "$(id -u)" = 0 ] || skip "needs root"
export CKF_STUB_GPUS=1
GROUP=4242
MEMBER=(setpriv --reuid 65534 --regid 65534 --groups "$GROUP")
FIRST_MEMBER=(setpriv --reuid 65534 --regid "$GROUP" --clear-groups) # by its first group
OTHER=(setpriv --reuid 65534 --regid 65534 --clear-groups)
METRICS=$ROOT/tests/e2e/metrics.py
mkdir -p mine/{dump,theirs}
chown 65534:65534 mine mine/dump
chmod 700 mine mine/dump
PORT=$("$PYTHON" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
cp "$GPUDTEST" client.bin
chmod 755 client.bin

# as USER WORDS ARGS…: the client runs in mine/, in which all may be by a relative path; with WORDS, it
# fails with these.
as() {
	local -n who=$1
	local words=$2 status=0
	shift 2
	(cd mine && "${who[@]}" ../client.bin --socket ../run/gpud.sock "$@") >client.out 2>client.err || status=$?
	if [ -z "$words" ]; then
		[ $status = 0 ] || fail "$*: $(cat client.err)"
	else
		[ $status = 1 ] || fail "$*: exit code $status, want 1"
		grep -qF -- "$words" client.err || fail "$*: want \"$words\": $(cat client.err)"
	fi
}

metrics_are() {
	sleep 1.1
	[ "$("$PYTHON" "$METRICS" "$PORT" "$1")" = "$2" ] || fail "metrics: $1: want $2"
}

served() {
	[ "$(stat -c %a:%g run)" = 710:$GROUP ] || fail "the directory of the socket: $(stat -c %a:%g run)"
	[ "$(stat -c %a:%u:%g run/gpud.sock)" = 660:0:$GROUP ] || fail "the socket: $(stat -c %a:%u:%g run/gpud.sock)"
	as OTHER 'Permission denied' act state $$
	chmod 666 run/gpud.sock
	chmod 711 run
	as OTHER 'serves only members of its group' act state $$
	chmod 660 run/gpud.sock
	chmod 710 run
	as MEMBER '' save dump 1001 6
	[ "$(stat -c %u:%g mine/dump/ckfast-gpu-pages-1001.img)" = 65534:65534 ] || fail "the owner: $(ls -ln mine/dump)"
	as MEMBER '' fill dump
	as FIRST_MEMBER '' fill dump
}

# What gpud may do, and the member may not.
own_rights() {
	works save mine/theirs 1002 2
	rm mine/expect-1002
	chmod 600 mine/theirs/*
	as MEMBER 'Permission denied' fill theirs
	as MEMBER 'Permission denied' save theirs 1003 2
	as MEMBER 'cannot write ckfast-gpu-pages-1002.img' save theirs 1002 2
	[ "$(ls mine/theirs)" = $'ckfast-gpu-1002.img\nckfast-gpu-pages-1002.img' ] || fail "written by a member: $(ls mine/theirs)"
	# Nor by a link.
	ln -s ../theirs/ckfast-gpu-1002.img mine/dump/
	as MEMBER 'ckfast-gpu-1002.img' fill dump
	rm mine/dump/ckfast-gpu-1002.img
	as MEMBER 'is not one of user 65534 (1)' act lock $$
	(cd mine && exec "${MEMBER[@]}" sleep 60) &
	SLEEPER=$!
	wait_for 5 grep -q '^Uid:.65534' "/proc/$SLEEPER/status" || fail "no process of the member"
	as MEMBER '(3)' act state "$SLEEPER"
	kill $SLEEPER
}

# A connection that joins another one is the same member's.
joined() {
	(cd mine && "${MEMBER[@]}" "$PYTHON" - ../run/gpud.sock theirs $$ "$(gpud_version)") >joined.out 2>&1 <<-'END' || fail "joined: $(cat joined.out)"
		import os, socket, struct, sys
		HELLO, CHECKPOINT, FILL, JOIN, DONE, ERROR = 1, 3, 4, 9, 16, 18
		def message(op, arg=0):
		    return struct.pack("<IIQ", op, 0, arg).ljust(512, b"\0")
		def answer(sock):
		    data, fds, _, _ = socket.recv_fds(sock, 512, 1)
		    return struct.unpack_from("<I", data)[0], data[80:].rstrip(b"\0").decode(), fds
		first = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
		first.connect(sys.argv[1])
		first.send(message(HELLO, int(sys.argv[4])))
		assert answer(first)[0] == DONE
		first.send(message(JOIN))
		op, _, fds = answer(first)
		assert op == DONE and len(fds) == 1, op
		second = socket.socket(fileno=fds[0])
		for sock in second, first:
		    socket.send_fds(sock, [message(FILL)], [os.open(sys.argv[2], os.O_RDONLY)])
		    op, text, _ = answer(sock)
		    assert op == ERROR and "Permission denied" in text, (op, text)
		    socket.send_fds(sock, [message(CHECKPOINT, 1)], [os.pidfd_open(int(sys.argv[3]))])
		    op, text, _ = answer(sock)
		    assert op == ERROR and "is not one of user" in text, (op, text)
	END
}

in_flight_are() {
	[ "$(status "len(s['transfers'])")" = "$1" ]
}

limits() {
	local pids=()
	as MEMBER '' save dump 1002 6
	as MEMBER 'needs 12 MiB of GPU memory, user 65534 has 0 MiB under way and may have 10 MiB' fill dump
	rm mine/dump/*1002*
	as MEMBER '' fill dump
	metrics_are "m('refused_total', reason='bytes'), m('failures_total', request='restore', kind='limit')" '(1.0, 1.0)'
	mkdir mine/a mine/b
	chown 65534 mine/a mine/b
	for dir in a b; do
		(cd mine && exec "${MEMBER[@]}" ../client.bin --socket ../run/gpud.sock --pause 60000 save $dir 1003 2) >/dev/null 2>&1 &
		pids+=($!)
	done
	wait_for 20 in_flight_are 2 || fail "they do not save: $(cat status.json)"
	as MEMBER 'user 65534 has 2 requests under way, and may have no more' fill dump
	as MEMBER 'may have no more' save dump 1004 2
	as MEMBER 'may have no more' act state $$
	[ ! -e mine/dump/ckfast-gpu-1004.img ] || fail "saved beyond the limit"
	works fill mine/theirs
	kill -9 "${pids[@]}"
	wait_for 20 in_flight_are 0 || fail "they never end"
	as MEMBER '' fill dump
	metrics_are "m('refused_total', reason='requests'), m('refused_total', reason='user')" '(3.0, 1.0)'
	nothing_left "limits"
}

start_gpud --group $GROUP --client-requests 2 --client-bytes 10M --metrics "$PORT"
served
own_rights
joined
limits
stop_gpud
rm -r run
! "$CKFAST" gpud --group no-such-group 2>gpud.log || fail "a group that is not there"
grep -q 'there is no such group' gpud.log || fail "$(cat gpud.log)"

#!/bin/bash
# SPDX-License-Identifier: MIT
#
# gpud under a service manager: what it notifies, and the socket that it may be given. A client may
# come before gpud is there, and is served by a helper where gpud does not get started.
. "$(dirname "$0")/lib.sh"
. "$ROOT/tests/gpu/lib.sh"

export CKF_STUB_GPUS=1
mkdir dump out
OPENING='STATUS=Opening the CUDA driver'
READY=$'READY=1\nSTATUS=Serving clients'
STOPPING=$'STOPPING=1\nSTATUS=Waiting for connections to end'

# managed OPTIONS…: starts gpud under the manager. Sets MANAGER and GPUD.
managed() {
	: >gpud.log
	"$PYTHON" "$ROOT/tests/e2e/manager.py" "$@" "$CKFAST" gpud >told 2>>gpud.log &
	MANAGER=$!
	disown "$MANAGER"
	wait_for 20 grep -q ': ready$' gpud.log || fail "gpud does not get ready: $(cat gpud.log told)"
	GPUD=$(cat "/proc/$MANAGER/task/$MANAGER/children")
	GPUD=${GPUD% }
}

end_managed() {
	kill "$GPUD"
	wait_for 20 is_gone "$MANAGER" || fail "gpud does not end"
}

told_is() {
	[ "$(cat told)" = "$1" ] || fail "notified: $(cat told)"
}

notified() {
	local name
	for name in "$W/notify" @ckfast-test-$$; do
		managed --notify "$name"
		wait_for 20 grep -q READY told || fail "it is never ready: $(cat told)"
		told_is "$OPENING"$'\n'"$READY"
		end_managed
		told_is "$OPENING"$'\n'"$READY"$'\n'"$STOPPING"$'\nexit 0'
	done
	rm notify
	# A manager that does not listen, and one that is not there.
	managed --notify "$W/notify" --deaf
	end_managed
	told_is 'exit 0'
	NOTIFY_SOCKET=$W/no/such managed
	works save dump 1001 6
	end_managed
	told_is 'exit 0'
	# A helper is no service.
	NOTIFY_SOCKET=$W/notify works --helper "$CKFAST" fill dump out
	filled 1001
	rm notify
}

activated() {
	local inode
	mkdir -p run
	managed --notify "$W/notify" --listen "$CKFAST_GPUD_SOCKET"
	inode=$(stat -c %i "$CKFAST_GPUD_SOCKET")
	works fill dump out
	filled 1001
	end_managed
	told_is "$OPENING"$'\n'"$READY"$'\n'"$STOPPING"$'\nexit 0'
	[ "$(stat -c %i "$CKFAST_GPUD_SOCKET")" = "$inode" ] || fail "gpud removed the manager's socket"
	nothing_left "an activated gpud"
	rm "$CKFAST_GPUD_SOCKET" notify

	# Not meant for gpud: it makes its own.
	managed --listen "$W/other" --pid 1
	works fill dump out
	filled 1001
	end_managed
	rm other
}

# refused_socket WORDS OPTIONS…
refused_socket() {
	local words=$1
	shift
	rm -f other
	"$PYTHON" "$ROOT/tests/e2e/manager.py" --listen "$W/other" "$@" "$CKFAST" gpud >told 2>gpud.log
	told_is 'exit 1'
	grep -q "$words" gpud.log || fail "$*: $(cat gpud.log)"
}

# The client is there first. The gpud that is started for it has no driver.
never_there() {
	rm -f "$CKFAST_GPUD_SOCKET"
	"$PYTHON" "$ROOT/tests/e2e/manager.py" --listen "$CKFAST_GPUD_SOCKET" \
		/bin/sh -c 'sleep 1; LD_LIBRARY_PATH= exec "$0" gpud' "$CKFAST" >told 2>gpud.log &
	MANAGER=$!
	disown "$MANAGER"
	wait_for 20 test -S "$CKFAST_GPUD_SOCKET" || fail "the manager makes no socket"
	works --helper "$CKFAST" fill dump out
	filled 1001
	grep -q 'no CUDA driver' gpud.log || fail "a helper was not needed: $(cat gpud.log)"
	rm "$CKFAST_GPUD_SOCKET"
}

notified
activated
refused_socket 'no unix socket of sequenced packets' --stream
refused_socket 'passes 2 sockets, gpud takes one' --fds 2
never_there

#!/bin/bash
# SPDX-License-Identifier: MIT
# Options of a client are checked as those of the command line, and its statistics stay in its working directory. The
# version tells what can be restored.
. "$(dirname "$0")/lib.sh"

# ask FIELD=VALUE…: restores by RPC, as 060-detect.sh.
ask() {
	local proto=$D/proto
	mkdir -p "$proto"
	protoc --python_out="$proto" -I "$PROTOS" rpc.proto || fail "protoc"
	"$PYTHON" "$ROOT/tests/e2e/swrk.py" "$CRIU" "$proto" "$D/fast" "$D/restore.log" "$@" >"$D/rpc.out" 2>&1
}

refused() {
	rm -f "$D/restore.log"
	if ask "$1"; then
		stop "$PID"
		fail "$1 was taken"
	fi
}

options() {
	start_ready "$PROGS/traces" . plain 16
	dump "$PID" "$D/dump"
	convert "$D/dump" "$D/fast"
	refused fast_timeout=4294967295
	refused fast_threads=4294967295
	refused fast_stats=/tmp/ckfast-stats-of-nobody
	[ ! -e /tmp/ckfast-stats-of-nobody ] || fail "statistics outside of the working directory"
	echo precious >"$D/victim"
	ln -s victim "$D/link"
	ask fast_stats=link fast_timeout=86400 || fail "rpc: $(cat "$D/rpc.out")"
	stop "$PID"
	grep -q precious "$D/victim" || fail "statistics were written through a link"
	ask fast_stats=stats || fail "rpc: $(cat "$D/rpc.out")"
	stop "$PID"
	grep -q workers "$D/stats" || fail "no statistics"
}

version() {
	"$CRIU" --version | head -n 1 | grep -Eq "^Version: [0-9.]+ \+ckfast [0-9.]+, fast image [0-9]+\.[0-9]+$" ||
		fail "$("$CRIU" --version)"
	PROTOS=$BUILD/criu-$V/images
	if [ ! -f "$PROTOS/rpc.proto" ]; then
		echo "$V: no source tree to take rpc.proto from: RPC is not tried"
		return
	fi
	options
}

every_version
each_version version

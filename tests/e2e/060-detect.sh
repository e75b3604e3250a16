#!/bin/bash
# SPDX-License-Identifier: MIT
# The ways to say that an image is a fast one: nothing at all, the option, the configuration file, RPC.
# And to say it of a directory that is none.
. "$(dirname "$0")/lib.sh"

was_fast() {
	grep -aq 'fast-image: ' "$D/restore.log" || fail "$1: was not restored as a fast image"
	check "$PID"
	stop "$PID"
}

by_rpc() {
	local protos=$BUILD/criu-$V/images pid
	if [ ! -f "$protos/rpc.proto" ]; then
		echo "$V: no source tree to take rpc.proto from: RPC is not tried"
		return
	fi
	mkdir -p "$D/pb"
	protoc --proto_path="$protos" --python_out="$D/pb" "$protos/rpc.proto"
	rm -f "$D/restore.log"
	pid=$("$PYTHON" "$ROOT/tests/e2e/swrk.py" "$CRIU" "$D/pb" "$D/fast" "$D/restore.log" "$@") ||
		fail "RPC: $pid $(log_errors "$D/restore.log")"
	[ "$pid" = "$PID" ] || fail "RPC: pid $pid, not $PID"
	was_fast "RPC $*"
}

detect() {
	start_ready "$PROGS/bigproc" . 16 mixed
	dump "$PID" "$D/dump"
	convert "$D/dump" "$D/fast"

	restore "$CRIU" "$D/fast" || fail "no option: $(log_errors "$D/restore.log")"
	was_fast "no option"
	restore "$CRIU" "$D/fast" --fast-image || fail "option: $(log_errors "$D/restore.log")"
	was_fast "option"
	printf 'fast-image\nfast-threads 2\n' >"$D/criu.conf"
	restore "$CRIU" "$D/fast" --config "$D/criu.conf" ||
		fail "configuration file: $(log_errors "$D/restore.log")"
	was_fast "configuration file"
	by_rpc
	by_rpc fast_image=true fast_threads=2

	# A dump is restored as ever, and is no fast image.
	restore "$CRIU" "$D/dump" || fail "a dump: $(log_errors "$D/restore.log")"
	if grep -aq 'fast-image: ' "$D/restore.log"; then
		fail "a dump was taken for a fast image"
	fi
	check "$PID"
	stop "$PID"
	if restore "$CRIU" "$D/dump" --fast-image; then
		fail "--fast-image took a dump"
	fi
	grep -aq 'Error.*fast' "$D/restore.log" || fail "--fast-image of a dump: no clear error"
	all_gone "$PID"
}

every_version
each_version detect

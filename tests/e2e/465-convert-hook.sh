#!/bin/bash
# SPDX-License-Identifier: MIT
# With the action script in its configuration, CRIU's own dump leaves a fast image, or when that
# fails, the dump.
. "$(dirname "$0")/lib.sh"

# hook BINDIR: as `make install` would put it in place.
hook() {
	sed "s|@BINDIR@|$1|" "$ROOT/scripts/ckfast-convert-hook" >"$D/hook"
	chmod 755 "$D/hook"
	echo "action-script $D/hook" >"$D/criu.conf"
}

# settings LINE…: of the hook.
settings() {
	printf '%s\n' "LOG=$D/hook.log" "$@" >"$D/hook.conf"
	export CKFAST_HOOK_CONF=$D/hook.conf
}

new_dump() {
	rm -rf "$D/dump" "$D/work"
	mkdir "$D/dump" "$D/work"
	start_ready "$PROGS/bigproc" . 4 mixed
}

nothing_left() {
	[ -z "$(find "$D" -maxdepth 1 -name '.*.ckfast-*')" ]
}

is_fast() {
	[ -e "$D/dump/ckfast.idx" ] || fail "$1: the dump is not a fast image"
	"$CKFAST" verify -q "$D/dump" || fail "$1: verify"
	wait_for 30 nothing_left || fail "$1: something is left"
	restore_fast "$D/dump" -W "$D"
	check "$PID"
	stop "$PID"
}

is_dump() {
	[ ! -e "$D/dump/ckfast.idx" ] || fail "$1: the dump became an image"
	wait_for 30 nothing_left || fail "$1: something is left"
	restore_stock "$D/dump" -W "$D"
	check "$PID"
	stop "$PID"
}

# What the runtimes do: CRIU works in another directory, and the image is there when CRIU has ended.
before_the_end() {
	settings
	new_dump
	dump "$PID" "$D/dump" --config "$D/criu.conf" -W "$D/work" -o "$D/dump.log"
	[ -e "$D/work/stats-dump" ] || fail "CRIU's statistics are lost"
	is_fast "now"
}

# In the background: what CRIU writes at its end is in the image.
after_the_end() {
	new_dump
	dump "$PID" "$D/dump" --config "$D/criu.conf"
	wait_for 30 test -e "$D/dump/ckfast.idx" || fail "not converted: $(cat "$D/hook.log")"
	[ -e "$D/dump/stats-dump" ] || fail "the image has no stats-dump"
	grep -aq 'Dumping finished successfully' "$D/dump/dump.log" || fail "the log is cut off"
	is_fast "after"
}

by_rpc() {
	local protos=$BUILD/criu-$V/images
	if [ ! -f "$protos/rpc.proto" ]; then
		echo "$V: no source tree to take rpc.proto from: RPC is not tried"
		return
	fi
	mkdir -p "$D/proto"
	protoc --python_out="$D/proto" -I "$protos" rpc.proto || fail "protoc"
	new_dump
	"$PYTHON" "$ROOT/tests/e2e/swrk.py" "$CRIU_STOCK" "$D/proto" "$D/dump" "$D/work/dump.log" \
		"config_file=$D/criu.conf" "pid=$PID" >"$D/rpc.out" 2>&1 || fail "rpc: $(cat "$D/rpc.out")"
	all_gone "$PID"
	is_fast "rpc"
}

failures() {
	settings OPTIONS="--level=nonsense"
	new_dump
	dump "$PID" "$D/dump" --config "$D/criu.conf" -W "$D/work" -o "$D/dump.log"
	grep -aq 'level nonsense' "$D/dump.log" || fail "the log does not say why"
	is_dump "it failed"

	new_dump
	dump "$PID" "$D/dump" --config "$D/criu.conf"
	wait_for 30 grep -q 'level nonsense' "$D/hook.log" || fail "its log does not say why"
	is_dump "it failed in the background"

	mkdir "$D/bin"
	printf '#!/bin/sh\nkill -9 $$\n' >"$D/bin/ckfast"
	chmod 755 "$D/bin/ckfast"
	hook "$D/bin"
	settings
	new_dump
	dump "$PID" "$D/dump" --config "$D/criu.conf" -W "$D/work" -o "$D/dump.log"
	is_dump "it was killed"
}

converts() {
	hook "$(dirname "$CKFAST")"
	before_the_end
	after_the_end
	by_rpc
	failures
}

each_version converts

#!/bin/bash
# SPDX-License-Identifier: MIT
# CRIU's own amdgpu plugin, as it is, on the fake of tests/stub/amd: a program with memory on two GPUs
# is dumped and restored by stock CRIU, from a fast image that has the plugin's files, and from
# the dump that an image with --amd gives back. The patched plugin restores from that image itself, and
# not from a damaged one. Calls that fail do no harm, or are noticed.
. "$(dirname "$0")/lib.sh"
. "$ROOT/tests/e2e/amd.sh"

# restores_amd OPTIONS…: from the pack of $D/fast.
restores_amd() {
	amd restore_fast "$D/fast" --libdir "$D/patched" "$@"
	check "$PID"
	stop "$PID"
}

# The restore ends at the first wrong byte of a GPU's memory.
damaged() {
	local off
	off=$("$PYTHON" - "$ROOT/tests/py" "$D/fast" <<-'END'
		import os, sys
		sys.path.insert(0, sys.argv[1])
		sys.dont_write_bytecode = True
		import ckread
		image = ckread.Image(sys.argv[2])
		image.check()
		last = image.targets[-1]
		ops = image.ops[last[2]:last[2] + last[3]]
		print(max(image.chunks[op[1]][0] for op in ops))
	END
	)
	printf 'wrong' | dd of="$D/fast/ckfast.pack" bs=1 seek="$off" conv=notrunc status=none
	! LD_PRELOAD=$SO restore "$CRIU" "$D/fast" --fast-image --libdir "$D/patched" ||
		fail "a restore with wrong memory"
	grep -aq 'fast-image: .*corrupt chunks' "$D/restore.log" || fail "it failed for another reason: $(log_errors "$D/restore.log")"
}

fails_once() {
	amd start_ready "$BUILD/stub/rocmprog" .
	AMD_FAIL=checkpoint amd "$CRIU_STOCK" dump -t "$PID" -D "$1" -o dump.log --libdir "$D/plugins" &&
		fail "a dump without a checkpoint"
	check "$PID"
	rm -rf "$1"
	mkdir "$1"
	# Of a copy that fails, the plugin tells nobody: the file is too short.
	if AMD_FAIL=submit amd "$CRIU_STOCK" dump -t "$PID" -D "$1" -o dump.log \
		--libdir "$D/plugins" --leave-running; then
		! "$CKFAST" convert -q --amd "$1" "$D/short" || fail "contents that are too short"
	fi
	stop "$PID"
}

plugin() {
	build_plugin "$BUILD/criu-$V-stock" "$D/plugins"
	build_plugin "$BUILD/criu-$V" "$D/patched"
	amd start_ready "$BUILD/stub/rocmprog" .
	check "$PID"
	amd dump "$PID" "$D/dump" --libdir "$D/plugins"
	amd restore_stock "$D/dump" --libdir "$D/plugins"
	check "$PID"
	stop "$PID"

	convert "$D/dump" "$D/plain"
	amd restore_fast "$D/plain" --libdir "$D/plugins"
	check "$PID"
	stop "$PID"

	"$CKFAST" convert -q --amd "$D/dump" "$D/fast"
	"$CKFAST" verify -q "$D/fast"
	[ -z "$(find "$D/fast" -name 'amdgpu-pages-*')" ] || fail "contents beside the pack"
	restores_amd
	KFD_MAX_BUFFER_SIZE=64K restores_amd --fast-threads 1
	"$CKFAST" extract -q "$D/fast" "$D/back"
	diff -r -x '*.log' -x 'stats-*' "$D/dump" "$D/back" || fail "another dump"
	amd restore_stock "$D/back" --libdir "$D/plugins"
	check "$PID"
	stop "$PID"

	AMD_FAIL=restore amd "$CRIU_STOCK" restore -d -D "$D/back" -o fail.log --libdir "$D/plugins" &&
		fail "a restore without memory"
	grep -aq 'Restore ioctl failed' "$D/back/fail.log" || fail "it failed for another reason"
	damaged
	mkdir "$D/failed"
	fails_once "$D/failed"
}

LIBDRM_CFLAGS=${LIBDRM_CFLAGS-$(pkg-config --cflags libdrm 2>/dev/null)} ||
	skip "no headers of libdrm (libdrm-dev)"
make_world 26:128:64 48879:129:32
every_version
each_version plugin

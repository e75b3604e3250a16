#!/bin/bash
# SPDX-License-Identifier: MIT
# CRIU's own amdgpu plugin, as it is, on the fake of tests/stub/amd: a program with memory on two GPUs
# is dumped and restored by stock CRIU, from a fast image that has the plugin's files, and from
# the dump that an image with --amd gives back. The patched plugin restores from that image itself, and
# not from a damaged one. Calls that fail do no harm, or are noticed.
. "$(dirname "$0")/lib.sh"

SO=$BUILD/stub/libamd.so
[ -e "$SO" ] || skip "no $SO (make stub)"

# Over /dev and /sys/class, in the mount namespace of this test.
make_world() {
	mkdir dev sys
	mount -t tmpfs none dev
	mount -t tmpfs none sys
	"$BUILD/stub/amd-world" dev sys 26:128:64 48879:129:32
	mknod -m 666 dev/null c 1 3
	mknod -m 666 dev/zero c 1 5
	mknod -m 666 dev/urandom c 1 9
	mknod -m 666 dev/ptmx c 5 2
	mkdir dev/shm dev/pts
	mount -t devpts -o ptmxmode=666 none dev/pts
	mount --move dev /dev
	mount --move sys /sys/class
}

# build_plugin SOURCE DIR: the plugin of that CRIU; libdrm itself is the fake's.
build_plugin() {
	local src=$1 out=$2 dir
	mkdir -p "$out" "$D/src"
	cp "$src"/plugins/amdgpu/*.[ch] "$src/plugins/amdgpu/criu-amdgpu.proto" "$D/src"
	(
		cd "$D/src"
		protoc-c --proto_path=. --c_out=. criu-amdgpu.proto
		set --
		for dir in include criu/include criu/arch/x86/include .; do
			set -- "$@" -iquote "$src/$dir"
		done
		gcc -w -g -D_GNU_SOURCE -shared -nostartfiles -fPIC -iquote . "$@" \
			-I"$src/compel/include/uapi" $LIBDRM_CFLAGS amdgpu_plugin.c amdgpu_plugin_drm.c \
			amdgpu_plugin_topology.c amdgpu_plugin_util.c criu-amdgpu.pb-c.c \
			-o "$out/amdgpu_plugin.so"
	)
	rm -rf "$D/src"
}

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
	grep -aq 'fast-image: corrupt chunks' "$D/restore.log" || fail "it failed for another reason: $(log_errors "$D/restore.log")"
}

# amd COMMAND…: with the fake.
amd() {
	LD_PRELOAD=$SO "$@"
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
make_world
each_version plugin

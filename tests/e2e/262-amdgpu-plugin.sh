#!/bin/bash
# SPDX-License-Identifier: MIT
# CRIU's own amdgpu plugin, as it is, on the fake of tests/stub/amd: a program with memory on two GPUs
# is dumped and restored by stock CRIU, from a fast image that has the plugin's files, and from
# the dump that an image with --amd gives back. Calls that fail do no harm, or are noticed.
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

# The plugin of $V, in $D/plugins; libdrm itself is the fake's.
build_plugin() {
	local src=$BUILD/criu-$V-stock dir
	mkdir -p "$D/plugins" "$D/src"
	cp "$src"/plugins/amdgpu/*.[ch] "$src/plugins/amdgpu/criu-amdgpu.proto" "$D/src"
	(
		cd "$D/src"
		protoc-c --proto_path=. --c_out=. criu-amdgpu.proto
		for dir in include criu/include criu/arch/x86/include .; do
			set -- "$@" -iquote "$src/$dir"
		done
		gcc -w -g -D_GNU_SOURCE -shared -nostartfiles -fPIC -iquote . "$@" \
			-I"$src/compel/include/uapi" $LIBDRM_CFLAGS amdgpu_plugin.c amdgpu_plugin_drm.c \
			amdgpu_plugin_topology.c amdgpu_plugin_util.c criu-amdgpu.pb-c.c \
			-o "$D/plugins/amdgpu_plugin.so"
	)
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
	build_plugin
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
	"$CKFAST" extract -q "$D/fast" "$D/back"
	diff -r -x '*.log' -x 'stats-*' "$D/dump" "$D/back" || fail "another dump"
	amd restore_stock "$D/back" --libdir "$D/plugins"
	check "$PID"
	stop "$PID"

	AMD_FAIL=restore amd "$CRIU_STOCK" restore -d -D "$D/back" -o fail.log --libdir "$D/plugins" &&
		fail "a restore without memory"
	grep -aq 'Restore ioctl failed' "$D/back/fail.log" || fail "it failed for another reason"
	mkdir "$D/failed"
	fails_once "$D/failed"
}

LIBDRM_CFLAGS=${LIBDRM_CFLAGS-$(pkg-config --cflags libdrm 2>/dev/null)} ||
	skip "no headers of libdrm (libdrm-dev)"
make_world
each_version plugin

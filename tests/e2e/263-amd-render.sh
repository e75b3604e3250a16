#!/bin/bash
# SPDX-License-Identifier: MIT
# Buffer objects of render nodes, on the fake of tests/stub/amd. CRIU's branch criu-dev, where it is
# built (CRIU_SRC), dumps a program that has some: an image with --amd restores them from the pack,
# and not from a damaged one, and extract gives the dump back. Versions that do not know them restore
# an image with such objects as they do the dump: without them.
. "$(dirname "$0")/lib.sh"
. "$ROOT/tests/e2e/amd.sh"

# Contents of which 4.2.1 knows nothing, beside its own dump.
add_render() {
	"$PYTHON" - "$ROOT/tests/py" "$1" <<-'END'
		import os, sys
		sys.path.insert(0, sys.argv[1])
		sys.dont_write_bytecode = True
		import amdimg, criuimg
		out = os.fsencode(sys.argv[2])
		nodes = [name for name in os.listdir(out) if amdimg.render_ident(name)]
		for i, name in enumerate(sorted(nodes)):
		    ident, sizes = amdimg.render_ident(name), [3 << 20, 4096]
		    with open(os.path.join(out, name), "rb") as f:
		        gpu = criuimg.decode(f.read()[8:])[1][-1]
		    with open(os.path.join(out, name), "wb") as f:
		        f.write(amdimg.render_table(gpu, ident, 128 + i, sizes))
		    for n, size in enumerate(sizes):
		        pages = os.path.join(out, amdimg.render_pages_name(ident, 128 + i, n))
		        with open(pages, "xb") as f:
		            f.write(bytes(8) + b"weights " * (size // 8))
		with open(os.path.join(out, b"amdgpu-dmabuf_99.img"), "xb") as f:
		    f.write(amdimg.sized(criuimg.encode([(1, 3)])))
	END
}

# packs DUMP NODES NR: all of the objects, NR on each node, which inspect tells of.
packs() {
	"$CKFAST" convert -q --amd "$1" "$D/fast"
	"$CKFAST" verify -q "$D/fast"
	[ -z "$(find "$D/fast" -name 'amdgpu-*pages-*')" ] || fail "contents beside the pack"
	"$CKFAST" inspect "$D/fast" >"$D/text"
	[ "$(grep -c "in the pack: $3 (.*), zero" "$D/text")" = "$2" ] || fail "inspect: $(cat "$D/text")"
	"$CKFAST" extract -q "$D/fast" "$D/back"
	diff -r -x '*.log' -x 'stats-*' "$1" "$D/back" || fail "another dump"
}

unknown() {
	make_world 26:128:64 48879:129:32
	amd start_ready "$BUILD/stub/rocmprog" .
	amd dump "$PID" "$D/dump" --libdir "$D/plugins"
	add_render "$D/dump"
	amd restore_stock "$D/dump" --libdir "$D/plugins"
	check "$PID"
	stop "$PID"
	packs "$D/dump" 2 2
	amd restore_fast "$D/fast" --libdir "$D/patched"
	check "$PID"
	stop "$PID"
}

# damaged RENDER: a chunk that only objects of render nodes have, or (0) none of them. CRIU is there to
# the end, and leaves no task.
damaged() {
	rm -rf "$D/broken"
	cp -a "$D/fast" "$D/broken"
	damage_chunk "$D/broken" "image.is_render(t) == bool($1)"
	! LD_PRELOAD=$SO restore "$CRIU" "$D/broken" --fast-image --libdir "$D/patched" ||
		fail "a restore with wrong memory"
	grep -aq 'fast-image: .*corrupt chunks' "$D/restore.log" ||
		fail "it failed for another reason: $(log_errors "$D/restore.log")"
	grep -aq 'Restoring FAILED' "$D/restore.log" || fail "CRIU has not ended its tasks"
}

# check_all CHILDREN: of which there is one at most.
check_all() {
	check "$PID"
	[ "$1" = 0 ] || wait_for 60 test -s "$D/ready1" || fail "the child is not ready"
	[ "$1" = 0 ] || check "$(cat "$D/ready1")" report1
}

known() {
	local children
	# criu-dev restores a single process in another way than several, and with several GPUs wrongly.
	make_world 26:128:64
	for children in 0 1; do
		rm -rf "$D/dump" "$D/fast" "$D/back"
		amd start_ready "$BUILD/stub/rocmprog" . 0 $children 0 5
		check_all $children
		amd dump "$PID" "$D/dump" --libdir "$D/plugins"
		amd restore_stock "$D/dump" --libdir "$D/plugins"
		check_all $children
		stop "$PID"
		packs "$D/dump" $((children + 1)) 5
		amd restore_fast "$D/fast" --libdir "$D/patched"
		check_all $children
		stop "$PID"
		amd restore_stock "$D/back" --libdir "$D/plugins"
		check_all $children
		stop "$PID"
		damaged 0
		damaged 1
	done
}

render() {
	build_plugin "$BUILD/criu-$V-stock" "$D/plugins"
	build_plugin "$BUILD/criu-$V" "$D/patched"
	if grep -q drm_bo_entry "$BUILD/criu-$V-stock/plugins/amdgpu/criu-amdgpu.proto"; then
		known
	else
		unknown
	fi
}

LIBDRM_CFLAGS=${LIBDRM_CFLAGS-$(pkg-config --cflags libdrm 2>/dev/null)} ||
	skip "no headers of libdrm (libdrm-dev)"
each_version render

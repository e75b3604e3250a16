#!/bin/bash
# SPDX-License-Identifier: MIT
# Memory of AMD GPUs beside a real dump: without --amd the image has its files as they are and is
# restored; with --amd the pack has it, and extract gives the same dump back. The files are
# generated: no GPU is here.
. "$(dirname "$0")/lib.sh"

add_amd() {
	"$PYTHON" - "$ROOT/tests/py" "$1" <<-'END'
		import os, sys
		sys.path.insert(0, sys.argv[1])
		sys.dont_write_bytecode = True
		import amdimg
		pid, page, out = 5, 4096, sys.argv[2]
		objects = {0x1a: [b"weights " * (3 << 17), b"weights " * (3 << 17)], 0xbeef: [bytes(5 << 20)]}
		rows = [amdimg.obj(g, len(data)) for g in objects for data in objects[g]]
		rows.append(amdimg.obj(0x1a, 2 * page, amdimg.USERPTR))
		def put(name, data):
		    with open(os.path.join(os.fsencode(out), name), "xb") as f:
		        f.write(data)
		put(amdimg.table_name(70), amdimg.table(pid, [amdimg.device(g) for g in (0, *objects)], rows))
		for g in objects:
		    put(amdimg.pages_name(70, g), amdimg.sized(b"".join(objects[g])))
		    put(b"amdgpu-renderD-%d.img" % (71 + (g > 99)), amdimg.render_node(g))
	END
}

amd() {
	local pack
	start_ready "$PROGS/mixed" .
	dump "$PID" "$D/dump"
	add_amd "$D/dump"
	convert "$D/dump" "$D/plain"
	restore_fast "$D/plain"
	check "$PID"
	stop "$PID"
	rm -rf "$D/plain"

	"$CKFAST" convert -q --amd "$D/dump" "$D/fast"
	"$CKFAST" verify -q "$D/fast"
	[ -z "$(find "$D/fast" -name 'amdgpu-pages-*')" ] || fail "contents beside the pack"
	"$CKFAST" inspect "$D/fast" >"$D/text"
	grep -q 'GPU 001a .*: 6.0 MiB, objects: 2, in the pack, zero 0 B' "$D/text" ||
		fail "inspect: $(cat "$D/text")"
	grep -q 'GPU beef .*: 5.0 MiB, objects: 1, in the pack, zero 5.0 MiB' "$D/text" ||
		fail "inspect: $(cat "$D/text")"
	"$CKFAST" convert -q --amd --base "$D/fast" "$D/dump" "$D/fast2"
	pack=$(stat -c %s "$D/fast2/ckfast.pack")
	[ "$pack" -lt 1048576 ] || fail "a pack of $pack bytes, though the base has all of it"
	"$CKFAST" extract -q "$D/fast2" "$D/back"
	diff -r "$D/dump" "$D/back" || fail "another dump"
	archive
}

# The same dump in a checkpoint archive.
archive() {
	local contents
	mkdir "$D/stage"
	mv "$D/dump" "$D/stage/checkpoint"
	tar -C "$D/stage" --sort=name -cf "$D/x.tar" checkpoint
	"$CKFAST" convert -q --amd "$D/x.tar" "$D/y.tar"
	"$CKFAST" verify -q "$D/y.tar"
	contents=$(tar -tf "$D/y.tar" | grep amdgpu-pages- || true)
	[ -z "$contents" ] || fail "contents beside the pack: $contents"
	"$CKFAST" extract -q "$D/y.tar" "$D/z.tar"
	cmp "$D/x.tar" "$D/z.tar" || fail "another archive"
}

each_version amd

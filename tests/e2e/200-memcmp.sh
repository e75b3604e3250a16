#!/bin/bash
# SPDX-License-Identifier: MIT
# Memory compared with the dump by memcmp, for stock and fast restores; and that it finds a flipped
# byte, a page too many, flags that differ and memory that has grown.
. "$(dirname "$0")/lib.sh"

MEMCMP=$ROOT/tests/e2e/memcmp

# flip DUMP OTHER FILE: OTHER becomes DUMP with a byte in the middle of FILE flipped. Says which.
flip() {
	rm -rf "$2"
	cp -a "$1" "$2"
	"$PYTHON" - "$2/$3" <<-'END'
		import os, sys
		with open(sys.argv[1], "r+b") as f:
		    at = os.path.getsize(sys.argv[1]) // 2 + 100
		    f.seek(at)
		    byte = f.read(1)
		    f.seek(at)
		    f.write(bytes([byte[0] ^ 0x40]))
		print(at)
	END
}

# differs PATTERN ARGS…: memcmp fails, and says this.
differs() {
	local pattern=$1 status=0
	shift
	"$MEMCMP" "$@" >"$D/memcmp.out" || status=$?
	[ $status = 1 ] || fail "memcmp $*: exit code $status, want 1"
	grep -qE "$pattern" "$D/memcmp.out" || fail "memcmp $*: no $pattern in: $(cat "$D/memcmp.out")"
}

# A byte that the image has wrong but well: all checksums are made after it.
flipped_bytes() {
	local file at
	for file in "$D"/dump/pages-*.img; do
		at=$(flip "$D/dump" "$D/flipped" "${file##*/}")
		rm -rf "$D/flipped-fast"
		convert "$D/flipped" "$D/flipped-fast"
		differs "(task|shared memory) [0-9]+: at 0x.* byte $at of the pages file" \
			--criu "$CRIU" "$D/dump" "$D/flipped-fast"
	done
}

# change EXPRESSION: $D/before with each mapping m changed, as $D/changed.
change() {
	"$PYTHON" - "$D/before" "$D/changed" "$1" <<-'END'
		import json, sys
		with open(sys.argv[1]) as f:
		    tasks = json.load(f)
		for task in tasks:
		    for m in task["maps"]:
		        exec(sys.argv[3])
		with open(sys.argv[2], "w") as f:
		    json.dump(tasks, f)
	END
}

# A task whose images know of one mapping less than there is, the last one without a file.
hidden_mapping() {
	rm -rf "$D/hidden"
	cp -a "$D/dump" "$D/hidden"
	"$PYTHON" - "$ROOT/tests/py" "$D/hidden/mm-$PID.img" <<-'END'
		import struct, sys
		sys.path.insert(0, sys.argv[1])
		sys.dont_write_bytecode = True
		import criuimg
		with open(sys.argv[2], "rb") as f:
		    mm = f.read()[12:]
		fields = criuimg.decode(mm)
		last = max(i for i, raw in enumerate(fields[14])
		           if criuimg.decode(raw)[7][-1] == criuimg.VMA_REGULAR | criuimg.VMA_ANON_PRIVATE)
		print("%x" % criuimg.decode(fields[14].pop(last))[1][-1])
		with open(sys.argv[2], "wb") as f:
		    f.write(criuimg.image("mm", [criuimg.encode([(n, v) for n, values in
		                                                 fields.items() for v in values])]))
	END
}

# Writes one byte where the program has never written: in a private mapping that has no page.
write_elsewhere() {
	"$PYTHON" - "$1" <<-'END'
		import re, sys
		with open(f"/proc/{sys.argv[1]}/smaps") as f:
		    maps = re.findall(r"^(\w+)-\w+ rw-p 0+ 00:00 0 *\n(?:\w+:.*\n)*?Rss: +0 kB", f.read(), re.M)
		with open(f"/proc/{sys.argv[1]}/mem", "r+b", buffering=0) as mem:
		    mem.seek(int(maps[0], 16) + 4096 + 5)
		    mem.write(b"x")
	END
}

stopped_tree() {
	"$MEMCMP" --criu "$CRIU" --then stop "$D/dump" "$D/fast"
	"$MEMCMP" --root "$PID" --then stop "$D/dump"
	differs "$(hidden_mapping)-.* is mapped, but not in the dump" --root "$PID" --then stop \
		"$D/hidden"
	write_elsewhere "$PID"
	differs "offset 5 in the page: no pagemap names it" --root "$PID" --then stop "$D/dump"
	stop "$PID"
}

memory() {
	start_ready "$PROGS/mixed" .
	"$MEMCMP" --save "$D/before" "$PID"
	dump "$PID" "$D/dump"
	convert "$D/dump" "$D/fast"
	"$MEMCMP" --plain --criu "$CRIU_STOCK" --before "$D/before" --ignore wf "$D/dump"
	"$MEMCMP" --criu "$CRIU" --before "$D/before" --ignore wf --then run "$D/dump" "$D/fast"
	check "$PID"
	stop "$PID"

	flipped_bytes
	change 'm[5] = [f for f in m[5] if f != "rd"]'
	differs "mapping .* flags" --criu "$CRIU" --before "$D/changed" "$D/dump" "$D/fast"
	change 'm[3] = m[3] // 2'
	differs "resident memory: " --criu "$CRIU" --before "$D/changed" "$D/dump" "$D/fast"
	change 'm[4] = m[4] // 2'
	differs "own memory: " --criu "$CRIU" --before "$D/changed" "$D/dump" "$D/fast"
	stopped_tree
}

each_version memory

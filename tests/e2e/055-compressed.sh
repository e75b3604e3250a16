#!/bin/bash
# SPDX-License-Identifier: MIT
# Dumps of a real process whose pages files were compressed as CRIU 4.3 does it: this CRIU refuses the dump
# and the fast image alike, without a process; but for the version in inventory.img, the image has the memory
# of the process, and extract gives the compressed dump back.
. "$(dirname "$0")/lib.sh"

# refused_alike CRIU DIR OPTION…
refused_alike() {
	if restore "$@"; then
		stop "$PID"
		fail "$2 was restored"
	fi
	grep -aq "Error.*Not supported images version 3" "$D/restore.log" ||
		fail "$2: no clear error: $(log_errors "$D/restore.log")"
	all_gone "$PID"
}

# set_version DUMP N: in inventory.img.
set_version() {
	"$PYTHON" - "$ROOT/tests/py" "$1/inventory.img" "$2" <<-'END'
		import sys
		sys.dont_write_bytecode = True
		sys.path.insert(0, sys.argv[1])
		import packimg
		packimg.pack_inventory(sys.argv[2], int(sys.argv[3]))
	END
}

compressed() {
	local pages
	start_ready "$PROGS/bigproc" . 16 mixed
	"$ROOT/tests/e2e/memcmp" --save "$D/memory" "$PID"
	dump "$PID" "$D/dump"
	for pages in 1 64; do
		rm -rf "$D/packed" "$D/fast"
		cp -a "$D/dump" "$D/packed"
		"$PYTHON" "$ROOT/tests/py/packimg.py" "$D/packed" $pages
		convert "$D/packed" "$D/fast"
		grep -q "compressed by CRIU" "$D/convert.out" || fail "the summary does not tell of it"
		extract_same "$D/fast" "$D/packed"
		refused_alike "$CRIU_STOCK" "$D/packed"
		refused_alike "$CRIU" "$D/packed"
		refused_alike "$CRIU" "$D/fast" --fast-image

		rm -rf "$D/back.tar" "$D/checkpoint"
		cp -a "$D/packed" "$D/checkpoint"
		tar -C "$D" -cf "$D/dump.tar" checkpoint
		convert "$D/dump.tar" "$D/fast.tar" --force
		"$CKFAST" extract "$D/fast.tar" "$D/back.tar" 2>"$D/err" || fail "$(cat "$D/err")"
		cmp "$D/dump.tar" "$D/back.tar" || fail "the archive came back as another one"

		set_version "$D/packed" 2
		rm -rf "$D/fast"
		convert "$D/packed" "$D/fast"
		compare_memory
		restore_fast "$D/fast"
		check "$PID"
		stop "$PID"
	done
}

each_version compressed

#!/bin/bash
# SPDX-License-Identifier: MIT
# Right after convert the pack is in the page cache, as the dump is: a restore then reads no disk.
# Not so with --no-cache. The pack is the same each time.
. "$(dirname "$0")/lib.sh"

# percent FILE: how much of it is in the page cache.
percent() {
	"$PYTHON" - "$1" <<-'END'
		import ctypes, mmap, sys
		with open(sys.argv[1], "r+b") as f:
		    m = mmap.mmap(f.fileno(), 0)
		pages = len(m) // mmap.PAGESIZE
		there = (ctypes.c_ubyte * pages)()
		addr = ctypes.addressof(ctypes.c_char.from_buffer(m))
		if ctypes.CDLL(None).mincore(ctypes.c_void_p(addr), ctypes.c_size_t(len(m)), there):
		    sys.exit("mincore failed")
		print(sum(t & 1 for t in there) * 100 // pages)
	END
}

# cached WHAT OPTIONS…: converts, and leaves in P how much of the pack is in the page cache then.
cached() {
	rm -rf "$D/fast"
	"$CKFAST" convert -q --codec raw "${@:2}" "$D/dump" "$D/fast"
	P=$(percent "$D/fast/ckfast.pack")
	[ -e "$D/pack" ] || cp "$D/fast/ckfast.pack" "$D/pack"
	cmp "$D/pack" "$D/fast/ckfast.pack" || fail "$1: not the same pack"
}

page_cache() {
	start "$PROGS/bench_mem" . anon 64 random
	wait_ready ready.0
	dump "$PID" "$D/dump"
	cached default
	[ "$P" -ge 95 ] || fail "$P % of the pack are in the page cache"
	CKF_NO_DIRECT=1 cached plain
	[ "$P" -ge 95 ] || fail "plain: $P % of the pack are in the page cache"
	cached --no-cache --no-cache
	case $(stat -f -c %T "$D") in
	tmpfs | ramfs) ;;
	*) [ "$P" -le 50 ] || fail "--no-cache: $P % of the pack are in the page cache" ;;
	esac
	convert "$D/dump" "$D/fast" --no-cache --force
	restore_fast "$D/fast"
	stop "$PID"
}

each_version page_cache

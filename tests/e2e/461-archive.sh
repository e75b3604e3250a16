#!/bin/bash
# SPDX-License-Identifier: MIT
# A checkpoint archive as engines export it becomes a fast one, which any tar unpacks and CRIU restores
# from, and is made again, byte for byte; killed at any moment, or without room, nothing is half done.
. "$(dirname "$0")/lib.sh"

quiet() {
	"$@" >"$D/out" 2>&1 || fail "$*: $(cat "$D/out")"
}

# refused ARGS…: fails; what was there before is there, and nothing else.
refused() {
	find "$D" | sort >"$W/names"
	if "$CKFAST" "$@" >"$W/out" 2>&1; then
		fail "ckfast $*: not refused"
	fi
	diff "$W/names" <(find "$D" | sort) || fail "ckfast $*: something is left"
}

make_archive() {
	start_ready "$PROGS/bigproc" . 16 mixed
	dump "$PID" "$D/stage/checkpoint"
	mkdir -p "$D/stage/artifacts"
	echo '{}' >"$D/stage/config.dump"
	echo '{}' >"$D/stage/spec.dump"
	ln "$D/stage/spec.dump" "$D/stage/hard"
	tar -C "$D/stage" -cf "$D/stage/rootfs-diff.tar" config.dump
	# By name, as the order of a directory is another each time.
	tar -C "$D/stage" --sort=name --format=pax -cf "$D/x.tar" artifacts checkpoint config.dump hard \
		rootfs-diff.tar spec.dump
}

there_and_back() {
	local form
	make_archive
	quiet "$CKFAST" inspect "$D/x.tar"
	grep -q "mixed\|bigproc" "$D/out" || fail "inspect of an archive: $(cat "$D/out")"
	quiet "$CKFAST" convert "$D/x.tar" "$D/y.tar"
	quiet "$CKFAST" verify "$D/y.tar"
	quiet "$CKFAST" inspect "$D/y.tar"
	grep -q "fast image" "$D/out" || fail "inspect of a fast archive: $(cat "$D/out")"
	refused convert "$D/y.tar" "$D/z.tar"
	quiet "$CKFAST" extract "$D/y.tar" "$D/z.tar"
	cmp "$D/x.tar" "$D/z.tar" || fail "not the archive that it was"
	rm "$D/z.tar"
	for form in gzip zstd; do
		! command -v $form >/dev/null || compressed $form
	done

	mkdir "$D/unpacked"
	tar -C "$D/unpacked" -xpf "$D/y.tar" 2>"$D/out" || fail "tar: $(cat "$D/out")"
	[ ! -s "$D/out" ] || fail "tar has to say: $(cat "$D/out")"
	"$PYTHON" -c 'import sys, tarfile
for m in tarfile.open(sys.argv[1]):
    if m.name == "checkpoint/ckfast.pack":
        sys.exit(m.offset_data % 4096)
sys.exit("no pack")' "$D/y.tar" || fail "the pack is not at a page"
	restore_fast "$D/unpacked/checkpoint"
	check "$PID"
	stop "$PID"
	quiet "$CKFAST" extract "$D/unpacked/checkpoint" "$D/back"
	diff -r "$D/stage/checkpoint" "$D/back" || fail "unpacked and extracted: not the dump"
}

# compressed PROGRAM: the same as it was, but for that, and the user is told.
compressed() {
	$1 -q <"$D/x.tar" >"$D/x.$1"
	quiet "$CKFAST" convert --codec raw "$D/x.$1" "$D/c.tar"
	quiet "$CKFAST" extract "$D/c.tar" "$D/z.tar"
	grep -q "was compressed with $1" "$D/out" || fail "does not say: $(cat "$D/out")"
	cmp "$D/x.tar" "$D/z.tar" || fail "$1: not the archive that it was"
	head -c 100000 "$D/x.$1" >"$D/short"
	refused convert "$D/short" "$D/short.tar"
	rm "$D/c.tar" "$D/z.tar" "$D/short"
}

# No room for a second copy of the pages: what is written is the result and nothing else.
room() {
	local need
	need=$(($(stat -c %s "$D/y.tar") / 1048576 + 5))
	mkdir "$D/small"
	mount -t tmpfs -o size=${need}M none "$D/small"
	quiet "$CKFAST" convert "$D/x.tar" "$D/small/y.tar"
	rm "$D/small/y.tar"
	mount -o remount,size=4M none "$D/small"
	refused convert "$D/x.tar" "$D/small/y.tar"
	grep -q "No space left" "$W/out" || fail "does not say why: $(cat "$W/out")"
	umount "$D/small"
}

verified() {
	"$CKFAST" verify -q "$1"
}

is_dump() {
	cmp "$D/x.tar" "$1"
}

killed() {
	killed_at_each 50 "$D/x.tar" in out verified convert in out
	killed_at_each 50 "$D/x.tar" in in verified convert --in-place in
	killed_at_each 50 "$D/y.tar" in out is_dump extract in out
	killed_at_each 50 "$D/y.tar" in in is_dump extract --in-place in
}

each_version there_and_back
room
killed

#!/bin/bash
# SPDX-License-Identifier: MIT
# The same dump gives the same image however many threads there are, and however it is read and
# written; convert can be stopped at any moment and leaves nothing.
. "$(dirname "$0")/lib.sh"

MIB=192
NO_DIRECT=

# The dump is on the disk and not in the page cache.
put_out() {
	local f
	for f in "$D"/dump/pages-*.img; do
		sync "$f"
		dd if="$f" iflag=nocache count=0 status=none
	done
}

cached_bytes() {
	fincore -b -n -o RES "$@" | awk '{ n += $1 } END { print n + 0 }'
}

# All codecs, chosen without measurements that may differ; direct writes where there can be any.
OPTIONS=(--profile ssd --no-cache)

# same NAME OPTION…: converts the cold dump and compares with the first image.
same() {
	local name=$1
	shift
	put_out
	env ${SWITCH:+"$SWITCH=1"} "$CKFAST" convert -q "${OPTIONS[@]}" "$@" "$D/dump" "$D/fast" ||
		fail "$name: convert failed"
	WRITTEN_CACHED=$(cached_bytes "$D/fast/ckfast.pack")
	cmp "$D/first/ckfast.pack" "$D/fast/ckfast.pack" || fail "$name: another pack"
	cmp "$D/first/ckfast.idx" "$D/fast/ckfast.idx" || fail "$name: another index"
	rm -rf "$D/fast"
}

can_go_direct() {
	"$PYTHON" -c 'import os, sys; os.open(sys.argv[1], os.O_RDONLY | os.O_DIRECT)' \
		"$D"/dump/pages-1.img 2>/dev/null &&
		[ "$(cat /proc/sys/kernel/io_uring_disabled 2>/dev/null || echo 0)" = 0 ]
}

stopped() {
	local ms pid status took=$1
	for ms in 0 5 $((took / 4)) $((took / 2)) $((took * 3 / 4)); do
		put_out
		"$CKFAST" convert -q "$D/dump" "$D/fast" 2>/dev/null &
		pid=$!
		sleep "$(printf '%d.%03d' $((ms / 1000)) $((ms % 1000)))"
		kill -TERM "$pid" 2>/dev/null || true
		status=0
		wait "$pid" || status=$?
		[ "$status" != 0 ] || rm -rf "$D/fast"
		[ -z "$(find "$D" -maxdepth 1 -name '*fast*' ! -name fast.log)" ] ||
			fail "stopped after $ms ms: $(ls -a "$D")"
	done
}

convert_jobs() {
	local n took
	start_ready "$PROGS/bigproc" . $MIB mixed
	dump "$PID" "$D/dump"
	rm -rf "$D/first"
	took=$(date +%s%N)
	"$CKFAST" convert -q "${OPTIONS[@]}" --jobs 1 "$D/dump" "$D/first"
	took=$((($(date +%s%N) - took) / 1000000))
	for n in 1 2 3 7; do
		same "--jobs $n" --jobs $n
		SWITCH=CKF_NO_URING same "--jobs $n without io_uring" --jobs $n
	done
	if can_go_direct; then
		[ "$(cached_bytes "$D"/dump/pages-*.img)" -gt $((MIB << 19)) ] || fail "plain reads did not fill the page cache"
		[ "$WRITTEN_CACHED" -gt $((MIB << 18)) ] || fail "plain writes did not fill the page cache"
		SWITCH=CKF_NO_DIRECT same "not direct"
		[ "$WRITTEN_CACHED" -gt $((MIB << 18)) ] || fail "written directly in spite of CKF_NO_DIRECT"
		same "direct"
		[ "$(cached_bytes "$D"/dump/pages-*.img)" -lt $((MIB << 19)) ] || fail "the dump was not read directly"
		[ "$WRITTEN_CACHED" -lt $((1 << 20)) ] || fail "the pack was not written directly"
	else
		NO_DIRECT=1
	fi
	mv "$D/first" "$D/kept"
	stopped "$took"
}

each_version convert_jobs
[ -z "$NO_DIRECT" ] || skip "all else passed: the file system has no O_DIRECT, or io_uring is forbidden"

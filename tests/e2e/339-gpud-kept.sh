#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Images that gpud keeps in memory: restores get the same bytes from them, never those of an image
# that has changed or that the client may not read; they stay within their limits, and are gone when
# they are dropped.
. "$(dirname "$0")/lib.sh"
. "$ROOT/tests/gpu/lib.sh"
. "$ROOT/tests/gpu/kept.sh"

export CKF_STUB_GPUS=2

images() {
	images_begin
	image a 24 6 2
	image b 8 24
	image c 26 6
	images_end
}

# fills NAME: a fill of that image brings its bytes.
fills() {
	works fill "$1" out
	cmp "out/$FIRST" "expect-$1" || fail "fill of $1: the memory is not the same"
	rm "out/$FIRST"
}

# kept_are NAME…: these are kept, and no others.
kept_are() {
	status_is "sorted(i['image'].split('/')[-1] for i in s['kept']['images'])" \
		"$("$PYTHON" -c 'import sys; print(sorted(sys.argv[1:]))' "$@")"
}

# verb WORDS ARGS…: ckfast does it, and with WORDS fails with these.
verb() {
	local words=$1 status=0
	shift
	"$CKFAST" "$@" >verb.out 2>&1 || status=$?
	if [ -z "$words" ]; then
		[ $status = 0 ] || fail "$*: $(cat verb.out)"
	else
		[ $status != 0 ] || fail "$* works"
		grep -qF -- "$words" verb.out || fail "$*: want \"$words\": $(cat verb.out)"
	fi
}

from_start() {
	start_gpud --keep "$W/a" --keep "$W/none" --keep-bytes 1G
	wait_for 60 kept 1 || fail "not kept: $(cat gpud.log)"
	wait_for 20 grep -q 'keep: cannot open the directory: No such file' gpud.log || fail "$(cat gpud.log)"
	status_is "s['kept']['limit_bytes'], s['kept']['hits'], s['kept']['misses']" '(1073741824, 0, 0)'
	# Zeros take no memory, and it is pinned in whole huge pages.
	status_is "s['kept']['bytes'] < 32 << 20 and s['kept']['bytes'] % (2 << 20)" 0
	fills a
	fills b
	fills a
	status_is "s['kept']['hits'], s['kept']['misses'], s['kept']['images'][0]['hits']" '(2, 1, 2)'
	cp expect-a expect-dump-a
	fills dump-a
	"$CKFAST" gpud --status >status.txt
	grep -q '^kept .*; 2 restores from them, 1 of others$' status.txt || fail "$(cat status.txt)"
	stop_gpud
}

at_run_time() {
	start_gpud
	verb '' keep a
	verb '' keep --json a b
	kept_are a b
	"$PYTHON" -c 'import json, sys; assert 0 < json.load(sys.stdin)["bytes"] < 64 << 20' <verb.out || fail "$(cat verb.out)"
	status_is "s['jobs']['keep']['count'], s['jobs']['keep']['failed']" '(3, 0)'
	fills b
	fills c
	status_is "s['kept']['hits'], s['kept']['misses']" '(1, 1)'
	verb 'no fast image' keep dump-a
	verb 'cannot open the directory' keep none
	verb 'the image is not kept' drop c
	kept_are a b
	verb '' drop b
	kept_are a
	verb '' keep b
	verb '' drop --all --json
	grep -q '"dropped": 2' verb.out || fail "$(cat verb.out)"
	status_is "s['kept']['bytes'], s['kept']['count']" '(0, 0)'
	fills b
	stop_gpud
	verb 'cannot connect to gpud' keep a
	verb 'want DIR' drop --all a
}

# A byte of the pack becomes another one, by a writer who hides it as well as a writer can.
change_byte() {
	touch -r "$1/ckfast.pack" stamp
	"$PYTHON" - "$1/ckfast.pack" <<-'END'
		import sys
		with open(sys.argv[1], 'r+b') as f:
		    f.seek(-8192, 2)
		    b = f.read(1)
		    f.seek(-8192, 2)
		    f.write(bytes([b[0] ^ 1]))
	END
	touch -r stamp "$1/ckfast.pack"
}

changed() {
	start_gpud --keep "$W/live"
	cp -r a live
	# The first restore finds that it is there by now.
	wait_for 60 fills_from_kept live a || fail "not kept: $(cat gpud.log)"
	change_byte live
	refused 'gpud: corrupt chunks' fill live
	wait_for 20 kept 0 || fail "a changed image is kept: $(cat gpud.log)"
	nothing_left "a changed image"
	# Another image in its place.
	rm -r live
	cp -r b live
	wait_for 60 fills_from_kept live b || fail "the new image is not kept: $(cat gpud.log)"
	cp -r c new
	rm -r live
	mv new live
	works fill live out
	cmp "out/$FIRST" expect-c || fail "the memory of an image that was replaced"
	rm "out/$FIRST"
	wait_for 60 fills_from_kept live c || fail "the last image is not kept: $(cat gpud.log)"
	stop_gpud
	# One that a client had kept, and is gone.
	settle
	start_gpud
	verb '' keep live
	rm -r live
	fills a
	wait_for 20 kept 0 || fail "an image that is gone is kept: $(cat gpud.log)"
	stop_gpud
}

# fills_from_kept NAME EXPECT: and always with the right bytes.
fills_from_kept() {
	local before
	before=$(status "s['kept']['hits']")
	works fill "$1" out
	cmp "out/$FIRST" "expect-$2" || fail "fill of $1: not the memory of $2"
	rm "out/$FIRST"
	[ "$(status "s['kept']['hits']")" -gt "$before" ]
}

limits() {
	start_gpud --keep-bytes 50M
	verb '' keep a b
	fills a
	verb '' keep c
	kept_are a c
	status_is "s['kept']['bytes'] <= 50 << 20" True
	stop_gpud
	start_gpud --keep-bytes 6M
	verb '6 MiB may be kept (--keep-bytes)' keep a
	status_is "s['kept']['bytes'], s['kept']['failed'], s['jobs']['keep']['failed']" '(0, 1, 1)'
	fills a
	stop_gpud
}

# The memory cgroup of gpud has next to nothing left.
short_of_memory() {
	in_cgroup memory memory.limit_in_bytes=400M memory.max=400M || return 0
	start_gpud
	verb '' keep a
	echo "$GPUD" >"$G/cgroup.procs"
	verb 'the memory cgroup can spare' keep b
	# What is kept is given back.
	wait_for 20 kept 0 || fail "nothing is given back"
	fills a
	stop_gpud
	leave_cgroup
}

# Memory that a fill copies from stays until it has ended.
dropped_in_use() {
	local client
	CKF_STUB_DELAY_US=100000 start_gpud
	verb '' keep a
	"$GPUDTEST" fill a out >client.out 2>client.err &
	client=$!
	wait_for 20 is_filling "$client" || fail "it never fills"
	verb '' drop a
	wait "$client" || fail "a fill from what was dropped: $(cat client.err)"
	cmp "out/$FIRST" expect-a || fail "a fill from what was dropped: other memory"
	rm "out/$FIRST"
	wait_for 20 no_bytes || fail "memory stays: $(cat status.json)"
	stop_gpud
}

is_filling() {
	is_gone "$1" || [ "$(status "len(s['transfers'])")" = 1 ]
}

no_bytes() {
	[ "$(status "s['kept']['bytes']")" = 0 ]
}

# Each call that keeping adds fails once: that is said, nothing stays, and it works the next time.
failures() {
	local call
	for call in cuMemHostRegister:1 cuMemcpyHtoDAsync:1; do
		CKF_STUB_FAIL=$call start_gpud
		if [ $call = cuMemHostRegister:1 ]; then
			verb 'cannot pin memory' keep a
			status_is "s['kept']['bytes'], s['kept']['count']" '(0, 0)'
		else
			verb '' keep a
			refused 'cannot copy to the GPU' fill a
			nothing_left "$call"
		fi
		verb '' keep a
		fills a
		stop_gpud
	done
	# What cannot be unpinned is still there, and counts.
	CKF_STUB_FAIL=cuMemHostUnregister:1 start_gpud
	verb '' keep a
	verb '' drop a
	status_is "s['kept']['count'], s['kept']['bytes'] > 0" '(0, True)'
	verb '' keep a
	fills a
	stop_gpud
	cp -r a bad
	change_byte bad
	start_gpud
	verb 'try again' keep bad
	settle
	verb 'wrong checksum' keep bad
	status_is "s['kept']['bytes'], s['kept']['count']" '(0, 0)'
	stop_gpud
}

# A member of the group gets what it may read, and says nothing about what is kept.
members() {
	local ids=(setpriv --reuid 65534 --regid 65534 --groups 4242)
	local member=("${ids[@]}" ../client.bin --socket ../run/gpud.sock)
	cp "$GPUDTEST" client.bin
	cp "$CKFAST" ckfast.bin
	chmod 755 client.bin ckfast.bin
	mkdir mine
	cp -r a mine/a
	cp -r a mine/forged
	chown -R 65534:65534 mine
	rm -rf run
	start_gpud --group 4242
	settle
	verb '' keep mine/a
	(cd mine && "${member[@]}" fill a >/dev/null 2>../client.err) || fail "a member: $(cat client.err)"
	status_is "s['kept']['hits']" 1
	# The index alone is not enough.
	"$PYTHON" - mine/forged/ckfast.pack <<-'END'
		import os, sys
		with open(sys.argv[1], 'r+b') as f:
		    size = os.fstat(f.fileno()).st_size
		    f.seek(4096)
		    f.write(bytes(size - 4096))
	END
	! (cd mine && "${member[@]}" fill forged >/dev/null 2>../client.err) || fail "a forged image"
	grep -q 'corrupt chunks' client.err || fail "a forged image: $(cat client.err)"
	chown root mine/a/ckfast.pack
	chmod 600 mine/a/ckfast.pack
	! (cd mine && "${member[@]}" fill a >/dev/null 2>../client.err) || fail "a member may not read it"
	grep -q 'Permission denied' client.err || fail "a member: $(cat client.err)"
	settle
	verb '' keep mine/a
	! (cd mine && "${member[@]}" fill a >/dev/null 2>../client.err) || fail "a member may not read it"
	grep -q 'Permission denied' client.err || fail "a member: $(cat client.err)"
	status_is "s['kept']['hits']" 1
	! (cd mine && "${ids[@]}" ../ckfast.bin keep --socket ../run/gpud.sock forged 2>../client.err) ||
		fail "a member keeps images"
	grep -q 'may say which images are kept' client.err || fail "a member: $(cat client.err)"
	! (cd mine && "${ids[@]}" ../ckfast.bin drop --socket ../run/gpud.sock a 2>../client.err) ||
		fail "a member drops images"
	grep -q 'may say which images are kept' client.err || fail "a member: $(cat client.err)"
	(cd mine && "${ids[@]}" ../ckfast.bin gpud --status --json --socket ../run/gpud.sock) >told.json
	grep -q '"count": 1, "images": \[\]' <(tr -s '\n ' ' ' <told.json) || fail "a member is told: $(cat told.json)"
	kept_are a
	stop_gpud
	rm -rf run
}

images
from_start
at_run_time
changed
limits
short_of_memory
dropped_in_use
failures
members

#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Images that gpud keeps, over time: directories that come late and are replaced, memory and
# descriptors that get short, reads that are dropped, and restores that come first.
. "$(dirname "$0")/lib.sh"
. "$ROOT/tests/gpu/lib.sh"
. "$ROOT/tests/gpu/kept.sh"

export CKF_STUB_GPUS=1

images() {
	images_begin
	image a 24
	image b 26
	image big 768
	images_end
	rm -r dump-*
}

# put NAME AT: that image is at AT, and has been for a while.
put() {
	rm -rf "$2"
	cp -r "$1" "$2"
	settle
}

keep() {
	"$CKFAST" keep "$@" >keep.out 2>&1 || fail "keep $*: $(cat keep.out)"
}

drop() {
	"$CKFAST" drop "$@" >drop.out 2>&1 || fail "drop $*: $(cat drop.out)"
}

# An image of --keep that a client keeps before the keeper has read it, and then restores of others.
late() {
	start_gpud --keep "$W/k" --keep-bytes 30M
	put a k
	keep k
	sleep 10
	works fill b out
	sleep 2
	status_is "s['kept']['count'], s['kept']['bytes'] < 30 << 20" '(1, True)'
	[ "$(grep -c 'keep: .* MB' gpud.log)" = 0 ] || fail "an image was read again: $(cat gpud.log)"
	stop_gpud
	rm -r k
}

unread() {
	start_gpud --keep "$W/k"
	wait_for 20 grep -q 'keep: cannot open' gpud.log || fail "$(cat gpud.log)"
	put a k
	drop k
	works fill b out
	sleep 2
	kept 0 || fail "an image is kept that was dropped"
	stop_gpud
	rm -r k
}

replaced() {
	put a k
	start_gpud --keep "$W/k"
	wait_for 20 kept 1 || fail "not kept: $(cat gpud.log)"
	mv k old
	put b k
	keep k
	kept 1 || fail "one directory is kept twice: $(cat status.json)"
	# It cannot be read for a while, and nobody restores.
	python_flip k/ckfast.pack
	sleep 1
	! "$CKFAST" keep k >keep.out 2>&1 || fail "a corrupt image is kept"
	kept 0 || fail "a corrupt image is kept"
	put a k
	wait_for 30 kept 1 || fail "it is not read again: $(cat gpud.log)"
	stop_gpud
	rm -r k old
}

python_flip() {
	"$PYTHON" - "$1" <<-'END'
		import sys
		with open(sys.argv[1], 'r+b') as f:
		    f.seek(-8192, 2)
		    b = f.read(1)
		    f.seek(-8192, 2)
		    f.write(bytes([b[0] ^ 1]))
	END
}

short_of_memory() {
	local home
	in_cgroup memory memory.limit_in_bytes=400M memory.max=400M || return 0
	home=$(home_cgroup)
	start_gpud --keep "$W/a"
	wait_for 20 kept 1 || fail "not kept: $(cat gpud.log)"
	echo "$GPUD" >"$G/cgroup.procs"
	wait_for 20 kept 0 || fail "nothing is given back"
	echo "$GPUD" >"$home/cgroup.procs"
	wait_for 30 kept 1 || fail "it is not read again: $(cat gpud.log)"
	stop_gpud
	leave_cgroup
}

# The cgroup of this shell, beside G.
home_cgroup() {
	local line
	if [ -e /sys/fs/cgroup/memory/cgroup.procs ]; then
		line=$(grep ':memory:' /proc/self/cgroup)
		echo "/sys/fs/cgroup/memory${line##*:}"
	else
		line=$(grep '^0::' /proc/self/cgroup)
		echo "/sys/fs/cgroup${line##*:}"
	fi
}

# Without descriptors nobody can tell how much memory is free: what is kept stays.
short_of_descriptors() {
	start_gpud
	keep a
	prlimit --pid "$GPUD" --nofile=3:4096
	sleep 5
	prlimit --pid "$GPUD" --nofile=4096:4096
	kept 1 || fail "an image is dropped for lack of descriptors"
	stop_gpud
}

# A client drops what another has gpud read, and need not wait for what is read.
dropped_while_read() {
	local client
	start_gpud --threads 1
	"$CKFAST" keep big >keep.out 2>&1 &
	client=$!
	wait_for 20 "$CKFAST" drop big >drop.out 2>&1 || fail "drop: $(cat drop.out)"
	! wait "$client" || fail "an image is kept that was dropped"
	grep -q 'dropped while it was read' keep.out || fail "keep: $(cat keep.out)"
	status_is "s['kept']['count'], s['kept']['bytes']" '(0, 0)'
	keep big
	stop_gpud
}

# The keeper waits for the end of the restore that woke it, and has less of the CPUs.
restores_first() {
	local client
	CKF_STUB_DELAY_US=300000 start_gpud --keep "$W/k"
	awk '$19 == 10' /proc/"$GPUD"/task/*/stat | grep -q . || fail "no thread of gpud is nice"
	wait_for 20 grep -q 'keep: cannot open' gpud.log || fail "$(cat gpud.log)"
	put a k
	"$GPUDTEST" fill b out >client.out 2>client.err &
	client=$!
	while ! is_gone "$client"; do
		! grep -q 'keep: .* MB' gpud.log || is_gone "$client" || fail "the keeper reads during a restore"
	done
	wait "$client" || fail "a fill: $(cat client.err)"
	wait_for 20 kept 1 || fail "not kept: $(cat gpud.log)"
	stop_gpud
	rm -r k
}

images
for step in ${CKF_STEPS:-late unread replaced short_of_memory short_of_descriptors dropped_while_read restores_first}; do
	"$step"
done

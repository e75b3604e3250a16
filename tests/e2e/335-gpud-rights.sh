#!/bin/bash
# SPDX-License-Identifier: MIT
#
# gpud gives up root's rights but for those that it needs, in all of its threads; and it does its work
# with them, for images of other users too.
. "$(dirname "$0")/lib.sh"
. "$ROOT/tests/gpu/lib.sh"

[ "$(id -u)" = 0 ] || skip "needs root"
export CKF_STUB_GPUS=1

# Numbers of capabilities: dac_override, net_admin, ipc_lock, sys_ptrace; and sys_module, mknod
# for the driver where its device is not there yet.
KEPT='1 12 14 19'
[ -e /dev/nvidia-uvm ] || KEPT="$KEPT 16 27"

mask() {
	local cap mask=0
	for cap in $KEPT; do
		mask=$((mask | 1 << cap))
	done
	printf '%016x' $((mask & 0x$(awk '/^CapPrm/ { print $2 }' /proc/self/status)))
}

# limited PID: each of its threads is.
limited() {
	local task want
	want=$(mask)
	for task in "/proc/$1/task"/*; do
		awk -v want="$want" '
			/^Cap(Prm|Eff|Bnd):/ && $2 != want || /^Cap(Inh|Amb):/ && $2 !~ /^0*$/ { bad = 1; print }
			/^NoNewPrivs:/ && $2 != 1 { bad = 1; print }
			END { exit bad }' "$task/status" >bad || fail "thread ${task##*/}: $(cat bad), want $want"
	done
}

mkdir -m 700 dump
mkdir out
chown 65534:65534 dump
start_gpud
limited "$GPUD"
works save dump 1001 6
chown 65534:65534 dump/*
chmod 400 dump/*
works fill dump out
filled 1001
limited "$GPUD"
rm -f stop
start_ready "$STUB/cuapp" . busy
for action in lock suspend resume unlock; do
	works act "$action" "$PID"
done
touch stop
check "$PID"
stop_gpud

# With members: setgid and setuid, to do what they ask for with their ids.
KEPT="$KEPT 6 7"
start_gpud --group 4242
limited "$GPUD"
stop_gpud
rm -r run
KEPT=${KEPT% 6 7}

# A helper likewise.
"$GPUDTEST" --helper "$CKFAST" --pause 60000 save dump 1002 2 >hog.out 2>&1 &
HOG=$!
wait_for 20 used_is $((2 << 20)) || fail "no helper saves: $(cat hog.out)"
wait_for 20 pgrep -x ckfast >/dev/null || fail "no helper"
limited "$(pgrep -x ckfast)"
kill -9 "$HOG"
nothing_left "a helper"

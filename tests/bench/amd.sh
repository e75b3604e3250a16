#!/bin/bash
# SPDX-License-Identifier: MIT
#
# amd.sh [OUT]: restores memory of AMD GPUs by CRIU's own plugin, by the patched one, and by that one
# with `ckfast gpud`, on the fake of tests/stub/amd with a link of set speed and latency, in turns. Writes
# OUT/amd.json (build/) and a table of medians. "link" is the part of the link's speed that the copies
# reach, over all GPUs; gpud counts from the request on, and fills with a nice value of 10. No figure of
# it says anything about hardware.
#
# The fake copies with the CPUs, which also read and check the image, so a link must be slow for what the
# machine can do: 0.05 GB/s for two CPUs that others use, too.
#
#	BENCH_AMD_GPUS=2		up to 4
#	BENCH_AMD_MIB=96		of memory on each
#	BENCH_AMD_BYTES_PER_S=50000000	of the link to each; a machine with many CPUs can play 25000000000
#	BENCH_AMD_LATENCY_US=10		before each packet
#	BENCH_AMD_REPS=5
ARGS=("$@")
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

OUT=$(realpath "${ARGS[0]:-$BUILD}")
W=$(mktemp -d /var/tmp/ckfast-amd.XXXXXX)
trap 'rm -rf "$W"' EXIT
D=$W
skip() {
	fail "$*"
}
. "$ROOT/tests/e2e/amd.sh"

export CKFAST_GPUD_SOCKET=$W/gpud.sock
GPUS=${BENCH_AMD_GPUS:-2}
MIB=${BENCH_AMD_MIB:-96}
SPEED=${BENCH_AMD_BYTES_PER_S:-50000000}
LATENCY=${BENCH_AMD_LATENCY_US:-10}
REPS=${BENCH_AMD_REPS:-5}
V=$(readlink "$BUILD/bin/criu")
V=${V#criu-}
use_criu "$BUILD/bin/criu-$V-stock" "$BUILD/bin/criu-$V"
STOCK_PLUGIN=$BUILD/lib/amdgpu-$V-stock
PLUGIN=$BUILD/lib/amdgpu-$V
[ -e "$PLUGIN/amdgpu_plugin.so" ] || fail "no $PLUGIN/amdgpu_plugin.so (libdrm-dev, make criu)"

# A world whose memory of GPUs is there and zero: on hardware, nobody waits for pages of it.
new_world() {
	local i
	make_world "${world[@]}"
	for i in $(seq "$GPUS"); do
		fallocate -l $((MIB + 64))M "/dev/dri/renderD$((127 + i))"
	done
}

# timed WAY CRIU DIR OPTIONS…
timed() {
	local way=$1 criu=$2 dir=$3 start end
	shift 3
	new_world
	[ "$way" != gpud ] || start_gpud
	start=$(date +%s%N)
	AMD_BYTES_PER_S=$SPEED AMD_LATENCY_US=$LATENCY amd restore "$criu" "$dir" "$@" ||
		fail "$way: $(log_errors "$D/restore.log")"
	end=$(date +%s%N)
	cp "$D/restore.log" "$W/$way.$REP.log"
	echo "$way $REP $((end - start))" >>"$W/times"
	check "$PID"
	stop "$PID"
	[ "$way" != gpud ] || stop_gpud
}

# With the fake's settings of a restore, and no more.
start_gpud() {
	AMD_BYTES_PER_S=$SPEED AMD_LATENCY_US=$LATENCY LD_PRELOAD=$SO "$CKFAST" gpud 2>"$W/gpud.log" &
	GPUD=$!
	wait_for 20 grep -q ': ready$' "$W/gpud.log" || fail "gpud: $(cat "$W/gpud.log")"
}

stop_gpud() {
	kill "$GPUD"
	wait "$GPUD"
}

cd "$W"
world=()
for i in $(seq "$GPUS"); do
	world+=("$((100 + i)):$((127 + i)):$((MIB + 64))")
done
new_world
amd start_ready "$BUILD/stub/rocmprog" . "$MIB"
amd dump "$PID" "$D/dump" --libdir "$STOCK_PLUGIN"
"$CKFAST" convert -q --amd "$D/dump" "$D/fast"
for REP in $(seq "$REPS"); do
	timed stock "$CRIU_STOCK" "$D/dump" --libdir "$STOCK_PLUGIN"
	timed ckfast "$CRIU" "$D/fast" --fast-image --libdir "$PLUGIN"
	timed gpud "$CRIU" "$D/fast" --fast-image --libdir "$PLUGIN"
done
"$PYTHON" -B "$ROOT/tests/bench/amd_table.py" "$W" "$OUT/amd.json" "$GPUS" "$SPEED" "$LATENCY"

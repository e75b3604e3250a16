#!/bin/bash
# SPDX-License-Identifier: MIT
#
# amd.sh [OUT]: restores memory of AMD GPUs by CRIU's own plugin and by the patched one, on the fake of
# tests/stub/amd with a link of set speed and latency, in turns. Writes OUT/amd.json (build/) and a
# table. "link" is the part of the link's speed that the copies reach, over all GPUs. No figure of it
# says anything about hardware.
#
#	BENCH_AMD_GPUS=2		up to 4
#	BENCH_AMD_MIB=192		of memory on each
#	BENCH_AMD_BYTES_PER_S=400000000	of the link to each; a machine with many CPUs can play 25000000000
#	BENCH_AMD_LATENCY_US=10		before each packet
#	BENCH_AMD_REPS=3
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

GPUS=${BENCH_AMD_GPUS:-2}
MIB=${BENCH_AMD_MIB:-192}
SPEED=${BENCH_AMD_BYTES_PER_S:-400000000}
LATENCY=${BENCH_AMD_LATENCY_US:-10}
REPS=${BENCH_AMD_REPS:-3}
V=$(readlink "$BUILD/bin/criu")
V=${V#criu-}
use_criu "$BUILD/bin/criu-$V-stock" "$BUILD/bin/criu-$V"
STOCK_PLUGIN=$BUILD/lib/amdgpu-$V-stock
PLUGIN=$BUILD/lib/amdgpu-$V
[ -e "$PLUGIN/amdgpu_plugin.so" ] || fail "no $PLUGIN/amdgpu_plugin.so (libdrm-dev, make criu)"

# timed WAY CRIU DIR OPTIONS…
timed() {
	local way=$1 criu=$2 dir=$3 start end
	shift 3
	start=$(date +%s%N)
	AMD_BYTES_PER_S=$SPEED AMD_LATENCY_US=$LATENCY amd restore "$criu" "$dir" "$@" ||
		fail "$way: $(log_errors "$D/restore.log")"
	end=$(date +%s%N)
	cp "$D/restore.log" "$W/$way.$REP.log"
	echo "$way $REP $((end - start))" >>"$W/times"
	check "$PID"
	stop "$PID"
}

cd "$W"
world=()
for i in $(seq "$GPUS"); do
	world+=("$((100 + i)):$((127 + i)):$((MIB + 64))")
done
make_world "${world[@]}"
amd start_ready "$BUILD/stub/rocmprog" . "$MIB"
amd dump "$PID" "$D/dump" --libdir "$STOCK_PLUGIN"
"$CKFAST" convert -q --amd "$D/dump" "$D/fast"
for REP in $(seq "$REPS"); do
	timed stock "$CRIU_STOCK" "$D/dump" --libdir "$STOCK_PLUGIN"
	timed ckfast "$CRIU" "$D/fast" --fast-image --libdir "$PLUGIN"
done
"$PYTHON" -B "$ROOT/tests/bench/amd_table.py" "$W" "$OUT/amd.json" "$GPUS" "$SPEED" "$LATENCY"

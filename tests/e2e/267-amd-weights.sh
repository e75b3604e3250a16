#!/bin/bash
# SPDX-License-Identifier: MIT
# bf16 weights on two AMD GPUs of the fake: layers that are the same on both are stored once, and --codec bf16 packs
# them; both images are restored, and give the dump back.
. "$(dirname "$0")/lib.sh"
. "$ROOT/tests/e2e/amd.sh"

LAYERS=3 # of 8 MiB on each GPU, of which the last one is its own
SAME_MIB=$(((LAYERS - 1) * 8))
OWN_MIB=16
REST_MIB=7 # the other objects, and the program itself

# stored CODEC: converts and verifies; sets STORED, in bytes.
stored() {
	"$CKFAST" convert --amd --json --codec "$1" "$D/dump" "$D/$1" >"$D/convert.json" 2>"$D/convert.err" ||
		fail "convert: $(cat "$D/convert.err")"
	"$CKFAST" verify "$D/$1" >"$D/verify.out" 2>&1 || fail "verify: $(cat "$D/verify.out")"
	STORED=$("$PYTHON" -c 'import json, sys
print(json.load(open(sys.argv[1]))["stored_bytes"])' "$D/convert.json")
}

restored() {
	amd restore_fast "$D/$1" --libdir "$PLUGIN"
	check "$PID"
	stop "$PID"
	"$CKFAST" extract -q "$D/$1" "$D/extracted"
	diff -r "$D/dump" "$D/extracted" >"$D/diff" || fail "$1: extract: not the same: $(head "$D/diff")"
	rm -r "$D/extracted"
}

D=$W
V=$(readlink "$BUILD/bin/criu")
V=${V#criu-}
use_criu "$BUILD/bin/criu-$V-stock" "$BUILD/bin/criu-$V"
PLUGIN=$BUILD/lib/amdgpu-$V
[ -e "$PLUGIN/amdgpu_plugin.so" ] || skip "no $PLUGIN/amdgpu_plugin.so (libdrm-dev, make criu)"
make_world 26:128:64 48879:129:48
amd start_ready "$BUILD/stub/rocmprog" . 0 0 $LAYERS
amd dump "$PID" "$D/dump" --libdir "$PLUGIN-stock"
stored raw
RAW=$STORED
echo "$((2 * LAYERS * 8)) MiB of weights on two GPUs are stored in $((RAW >> 20)) MiB"
[ $((RAW >> 20)) -ge $((SAME_MIB + OWN_MIB)) ] || fail "less than the weights themselves"
[ $((RAW >> 20)) -le $((SAME_MIB + OWN_MIB + REST_MIB)) ] || fail "equal weights are stored twice"
stored bf16
WEIGHTS=$(((SAME_MIB + OWN_MIB) << 20))
PACKED=$((WEIGHTS - (RAW - STORED)))
echo "$((WEIGHTS >> 20)) MiB of different weights are packed into $((PACKED >> 10)) KiB by bf16, $((100 * PACKED / WEIGHTS)) %"
[ $((100 * PACKED / WEIGHTS)) -lt 75 ] || fail "bf16 does not pack weights of GPUs"
restored raw
restored bf16

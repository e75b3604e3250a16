#!/bin/bash
# SPDX-License-Identifier: MIT
# tests/gpu/amd.sh, for machines with AMD GPUs, on the fake: all that it checks is right, and it notices
# an engine that stands still.
. "$(dirname "$0")/lib.sh"
. "$ROOT/tests/e2e/amd.sh"

D=$W
[ -e "$BUILD/lib/amdgpu-$(readlink "$BUILD/bin/criu" | cut -d- -f2)/amdgpu_plugin.so" ] ||
	skip "no amdgpu plugin (libdrm-dev, make criu)"
need_hsakmt
make_world 26:128:64 48879:129:64
export AMD_PROGRAM="$BUILD/stub/rocmprog . 8" AMD_REPS=1 AMD_COPY_MIB=16 AMD_BASE=$W
amd "$ROOT/tests/gpu/amd.sh" "$W/out" >"$W/log" 2>&1 || fail "$(cat "$W/log")"
[ "$(grep -c '^restore, .* ok' "$W/out/table.txt")" = 4 ] || fail "$(cat "$W/out/table.txt")"
[ "$(grep -c '^its memory, .* ok' "$W/out/table.txt")" = 4 ] || fail "$(cat "$W/out/table.txt")"
grep -q 'the same contents *ok' "$W/out/table.txt" || fail "$(cat "$W/out/table.txt")"
! AMD_FAIL=packet:2 amd "$ROOT/tests/gpu/amd.sh" "$W/out2" >"$W/log" 2>&1 || fail "no failure: $(cat "$W/log")"
grep -q 'amdcopy.*FAILED.*an SDMA engine' "$W/out2/table.txt" || fail "$(cat "$W/log")"

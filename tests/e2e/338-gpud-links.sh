#!/bin/bash
# SPDX-License-Identifier: MIT
#
# One process with memory on four GPUs: all of their links are used at the same time, from a dump and
# from a fast image. No copy of the driver ends here before each GPU has one, so a fill that goes
# from GPU to GPU never ends.
. "$(dirname "$0")/lib.sh"
. "$ROOT/tests/gpu/lib.sh"

export CKF_STUB_GPUS=4
[ -x "$BUILD/bin/criu-stock" ] || skip "no patched CRIU in build/bin (make criu)"
mkdir dump out

saved() {
	use_criu "$BUILD/bin/criu-stock" "$BUILD/bin/criu"
	start_ready "$PROGS/bigproc" . 8
	FIRST=$PID
	dump "$PID" "$W/dump"
	start_gpud
	works save dump "$FIRST" 64 64 64 64
	stop_gpud
	convert dump fast
}

# fills FROM OPTIONS…: a gpud with these options does, with all GPUs together.
fills() {
	local from=$1 filling
	shift
	CKF_STUB_TOGETHER=4 start_gpud "$@"
	"$GPUDTEST" fill "$from" out >client.out 2>client.err &
	filling=$!
	if ! wait_for 60 is_gone "$filling"; then
		kill -9 "$GPUD"
		fail "from $from with $*: not all GPUs have copies at the same time"
	fi
	wait "$filling" || fail "from $from: $(cat client.err)"
	filled "$FIRST"
	stop_gpud
}

saved
fills dump --threads 4 --slots 8
fills fast --threads 4 --slots 8
# More threads than slots, which are short.
fills fast --threads 8 --slots 4

#!/bin/bash
# SPDX-License-Identifier: MIT
# The memory of all processes of a dump is saved at once, on a slow GPU so that it is seen; if the dump
# ends meanwhile, nothing goes on being written, no half of it is left, and the processes go on.
. "$(dirname "$0")/gpu.sh"
. "$ROOT/tests/e2e/share.sh"

# saving N: so many processes' memory is being saved.
saving() {
	"$CKFAST" gpud --socket "$CKFAST_GPUD_SOCKET" --status --json | "$PYTHON" -c 'import json, sys
nr = sum(t["kind"] == "save" for t in json.load(sys.stdin)["transfers"])
sys.exit(nr < int(sys.argv[1]))' "$1"
}

start_dump() {
	mkdir -p "$D/dump"
	"$CRIU" dump -t "$PID" -D "$D/dump" -v4 -o "$D/dump.log" --libdir "$(plugin_of "$CRIU")" --leave-running &
	DUMP=$!
}

saves() {
	local pages
	export CKF_STUB_DELAY_US=300000
	gpud_start --threads 1
	unset CKF_STUB_DELAY_US
	share_start agent how=ipc procs=3
	start_dump
	wait_for 20 saving 3 || fail "the memory of three processes is not saved at once"
	wait "$DUMP" || fail "dump: $(log_errors "$D/dump.log")"
	share_round
	rm -rf "$D/dump"
	start_dump
	wait_for 20 saving 3 || fail "the memory of three processes is not saved at once again"
	kill -TERM "$DUMP"
	! wait "$DUMP" || fail "a dump that was ended has succeeded"
	for pages in "$D"/dump/ckfast-gpu-pages-*.img; do
		[ ! -e "$pages" ] || [ -e "${pages/pages-/}" ] || fail "pages without a table: $(ls "$D/dump")"
	done
	! saving 1 || fail "memory is still being saved"
	share_round
	stop "$PID"
	gpud_stop
	gpu_idle
	rm -rf "$D/dump"
}

each_version saves

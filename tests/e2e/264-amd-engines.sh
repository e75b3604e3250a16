#!/bin/bash
# SPDX-License-Identifier: MIT
# The backend for AMD GPUs on the fake of tests/stub/amd and libhsakmt as Debian has it: every byte that
# goes to one, two and four GPUs comes back. When a call fails, the backend says so, and does not hang.
. "$(dirname "$0")/lib.sh"
. "$ROOT/tests/e2e/amd.sh"

D=$W
COPY=$PROGS/amdcopy

# fails NAME CODE TEXT: a call that fails.
fails() {
	local rc=0
	AMD_FAIL=$1 amd timeout 60 "$COPY" 16 >"$D/out" 2>"$D/err" || rc=$?
	[ "$rc" = "$2" ] || fail "$1: exit code $rc, want $2: $(cat "$D/err")"
	grep -q "$3" "$D/err" || fail "$1: $(cat "$D/err")"
}

need_hsakmt
for gpus in 26:128:64 "26:128:64 48879:129:32" "26:128:64 48879:129:32 3:130:32 4:131:48"; do
	make_world $gpus
	amd "$COPY" 24 >"$D/out" || fail "$gpus"
	set -- $gpus
	[ "$(wc -l <"$D/out")" = $# ] || fail "$(cat "$D/out")"
	amd "$COPY" 24 1 >/dev/null
	amd "$COPY" 24 5 >/dev/null
	amd "$COPY" 24 1 4096 >/dev/null
	AMD_LATENCY_US=30 AMD_BYTES_PER_S=2000000000 amd "$COPY" 8 >/dev/null
done
make_world 26:128:64
for call in open version apertures acquire policy; do
	fails $call 77 'cannot open /dev/kfd'
done
fails queue 77 'cannot make a queue'
fails packet 1 'an SDMA engine has done nothing'
fails packet:4 1 'an SDMA engine has done nothing'
# Each time that memory is made or mapped: without engines at the start, as a failed copy later.
for call in alloc map; do
	bad=0
	for n in 1 2 3 4 5 6 7 8 9 10; do
		rc=0
		AMD_FAIL=$call:$n amd timeout 60 "$COPY" 16 >"$D/out" 2>"$D/err" || rc=$?
		case $rc in
		0) ;;
		1 | 77) [ -s "$D/err" ] || fail "$call:$n: no message" ;;
		*) fail "$call:$n: exit code $rc: $(cat "$D/err")" ;;
		esac
		[ $rc = 0 ] || bad=$((bad + 1))
	done
	[ $bad -ge 3 ] || fail "$call: only $bad calls were noticed"
done
# More than the GPU has.
rc=0
amd "$COPY" 100 2>"$D/err" || rc=$?
[ $rc = 1 ] && grep -q 'cannot make memory of a GPU' "$D/err" || fail "$rc: $(cat "$D/err")"
# Nothing was left behind by any of them.
amd "$COPY" 60 >/dev/null || fail "memory of the GPU was lost"

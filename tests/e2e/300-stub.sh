#!/bin/bash
# SPDX-License-Identifier: MIT
# The fake CUDA driver under CRIU without a plugin: a process that is checkpointed by hand can be
# dumped and restored, one that is not cannot be dumped. On other GPUs, on too small ones, and killed
# in between, with no memory of a GPU left behind.
. "$(dirname "$0")/lib.sh"
. "$ROOT/tests/e2e/share.sh"

STUB=$BUILD/stub
[ -x "$STUB/cuapp" ] || skip "no $STUB/cuapp (make stub)"
export LD_LIBRARY_PATH=$STUB
export CKF_STUB_GPUS=2

act() {
	"$BUILD/bin/cuda-checkpoint" --pid "$PID" --action "$@" 2>>"$D/acts"
}

# refused ERROR ACTION OPTIONS…
refused() {
	local want=$1
	shift
	: >"$D/acts"
	! act "$@" || fail "$* worked"
	grep -q "$want" "$D/acts" || fail "$*: want $want: $(cat "$D/acts")"
}

state_is() {
	[ "$(act state)" = "$1" ] || fail "state is $(act state), not $1"
}

# used: "BYTES BYTES" on the two GPUs.
used() {
	"$STUB/stub-smi" | awk '{ printf "%s%s", sep, $2; sep = " " }'
}

nothing_left() {
	[ "$(used)" = "0 0" ] || fail "$1: memory is left on the GPUs: $(used)"
}

# uuid N: of GPU N.
uuid() {
	printf 'ckfast stub GPU' | od -An -tx1 | tr -d ' \n'
	printf '%02x' "$1"
}

# Ends the application, which says whether all was right, ever.
finish() {
	touch "$D/stop"
	check "$PID"
	wait_for 20 is_gone "$PID" || fail "cuapp does not end"
	rm "$D/stop"
	grep -q '^cuMemAlloc [1-9]' "$D/calls" || fail "the calls were not counted"
	[ ! -s "$D/stderr" ] || fail "cuapp: $(cat "$D/stderr")"
	nothing_left "end"
}

dumped() {
	local app=$1 before
	export CKF_STUB_COUNT=$D/calls
	start_ready "$STUB/$app" . devices=2 vmm busy
	unset CKF_STUB_COUNT
	before=$(used)
	[ "${before#* }" -gt 50000000 ] || fail "cuapp uses too little: $before"
	! "$CRIU_STOCK" dump -t "$PID" -D "$D" -v4 -o refused.log || fail "dumped with its memory"
	grep -q "Can't dump file" "$D/refused.log" || fail "$(log_errors "$D/refused.log")"
	state_is running
	check "$PID"

	act lock
	state_is locked
	refused ILLEGAL_STATE lock
	[ "$(used)" = "$before" ] || fail "lock changes the memory"
	act checkpoint
	nothing_left "checkpoint"
	rm -rf "$D/dump"
	dump "$PID" "$D/dump"
	restored "$before"
}

# What the dump holds is restored as it was, on other GPUs, and not where it does not fit.
restored() {
	local before=$1 map
	restore_stock "$D/dump"
	state_is checkpointed
	CKF_STUB_MIB=32 refused OUT_OF_MEMORY restore
	CKF_STUB_GPUS=1 refused INVALID_VALUE restore
	CKF_STUB_UUID_SHIFT=5 refused INVALID_VALUE restore
	CKF_STUB_GPUS=3 refused INVALID_VALUE restore --device-map "$(uuid 0)=$(uuid 2)"
	refused INVALID_VALUE restore --device-map "$(uuid 0)=$(uuid 1),$(uuid 1)=$(uuid 1)"
	nothing_left "refused restore"
	state_is checkpointed
	act restore
	[ "$(used)" = "$before" ] || fail "restored: $(used), not $before"
	act unlock
	check "$PID"
	stop "$PID"
	nothing_left "killed"

	# The other way round, with other UUIDs.
	restore_stock "$D/dump"
	map="$(uuid 0)=$(uuid 6),$(uuid 1)=$(uuid 5)"
	CKF_STUB_UUID_SHIFT=5 refused INVALID_VALUE restore --device-map "${map%,*}"
	CKF_STUB_UUID_SHIFT=5 act restore --device-map "$map"
	[ "$(used)" = "${before#* } ${before% *}" ] || fail "not crossed: $(used), was $before"
	act unlock
	check "$PID"
	finish
}

# What the real driver cannot restore, it checkpoints all the same.
importer() {
	rm -f "$D/stop"
	start_ready "$STUB/cuapp" . vmm import
	act lock
	act checkpoint
	nothing_left "checkpoint of an importer"
	refused NOT_SUPPORTED restore
	refused NOT_SUPPORTED restore
	state_is checkpointed
	stop "$PID"
}

# Processes that share memory, as the driver lets them; its checkpoint of an importer is not restored.
sharing() {
	local how
	for how in fd ipc; do
		share_start '' how=$how procs=3 again
		share_round
		share_round
		PID=${RANKS[1]}
		act lock
		act checkpoint
		refused NOT_SUPPORTED restore
		stop "${RANKS[0]}"
		nothing_left "shared by $how"
	done
}

stub() {
	local top=$D app
	importer
	sharing
	for app in cuapp cuapp-linked; do
		D=$top/$app
		mkdir -p "$D"
		dumped "$app"
	done
}

each_version stub

#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Every call of the driver that gpud makes fails once: the client gets an error or what it wanted,
# and then there is no memory left on the GPUs, no descriptor, no slot and no half of a dump, and
# gpud serves the next one.
. "$(dirname "$0")/lib.sh"
. "$ROOT/tests/gpu/lib.sh"

export CKF_STUB_GPUS=2
export CKF_STUB_DELAY_US=0
mkdir dump out

# count_calls CHECK COMMAND…: the functions that a gpud calls while it serves the command, and how often,
# beyond those of its start and end: in the file calls.
count_calls() {
	local check=$1
	shift
	CKF_STUB_COUNT=$W/before start_gpud --threads 2
	stop_gpud
	CKF_STUB_COUNT=$W/after start_gpud --threads 2
	works "$@"
	$check worked
	stop_gpud
	awk 'NR == FNR { n[$1] += $2; next } { $2 -= n[$1]; if ($2 > 0) print $1, $2 }' \
		before after >calls
	rm before after
	[ "$(wc -l <calls)" -ge 10 ] || fail "gpud calls only: $(cat calls)"
}

fds() {
	ls "/proc/$GPUD/fd" | wc -l
}

fds_are() {
	[ "$(fds)" = "$1" ]
}

# each_fails CHECK COMMAND…: with each call failing in turn.
each_fails() {
	local check=$1 name calls n before errors=0 passes=0
	shift
	count_calls "$check" "$@"
	: >fail
	CKF_STUB_FAIL_FILE=$W/fail start_gpud --threads 2
	works "$@"
	$check worked
	before=$(fds)
	while read -r name calls; do
		for ((n = 1; n <= calls; n++)); do
			echo "$name:$n" >fail
			if client "$@"; then
				passes=$((passes + 1))
				$check worked
			else
				errors=$((errors + 1))
				grep -q "^gpud: .*CUDA_ERROR_UNKNOWN" client.err ||
					fail "$name:$n: $(cat client.err)"
				$check failed
			fi
			: >fail
			wait_for 5 used_is 0 || fail "$name:$n: memory is left: $(used)"
			wait_for 5 fds_are "$before" || fail "$name:$n: $(fds) descriptors, not $before"
		done
	done <calls
	status_is "s['slots']['in_use']" 0
	works "$@"
	$check worked
	stop_gpud
	echo "$*: $errors errors, $passes times it did not matter"
	[ $errors -ge 10 ] || fail "only $errors errors"
}

check_fill() {
	[ "$1" = failed ] || cmp out/1001 expect-1001 || fail "the memory is not the same"
	rm -f out/1001
}

check_save() {
	if [ "$1" = failed ]; then
		[ -z "$(ls dump2)" ] || fail "files of a save that failed: $(ls dump2)"
	else
		cmp dump2/ckfast-gpu-pages-1002.img expect-1002 || fail "not what was saved"
		rm -r dump2
		mkdir dump2
	fi
}

# A gpud that does not get started says why and leaves nothing; neither does a helper.
starts_fail() {
	local name n
	for name in cuInit cuDeviceGetCount cuDeviceGet cuDeviceGetName cuDeviceGetUuid \
		cuDeviceTotalMem cuDevicePrimaryCtxRetain cuEventCreate cuMemHostAlloc; do
		for n in 1 2; do
			! CKF_STUB_FAIL=$name:$n timeout 5 "$CKFAST" gpud 2>gpud.log ||
				fail "$name:$n: it ended well"
			[ ! -e "$CKFAST_GPUD_SOCKET" ] || rm "$CKFAST_GPUD_SOCKET"
			grep -q CUDA_ERROR_UNKNOWN gpud.log || [ $n = 2 ] || fail "$name:$n: $(cat gpud.log)"
			nothing_left "$name:$n"
		done
	done
}

start_gpud
works save dump 1001 6 2
stop_gpud
each_fails check_fill fill dump out
mkdir dump2
each_fails check_save save dump2 1002 6 2
starts_fail

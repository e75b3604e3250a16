#!/bin/bash
# SPDX-License-Identifier: MIT
#
# run.sh [--fast | --root] [WORD…]: runs the tests whose names hold one of the words (all without), one line for each.
# What make has built is what is run. Logs: build/test-logs/NAME.log.
#
# One more at once than there are CPUs, since they wait now and then, and memory of 2 GiB for each; but for a script that
# says "Alone: why" at its head, as it changes or measures what all processes share.
#
# --fast: those that need no root, no network and no CRIU
#	lint		scripts/lint.sh
#	unit/NAME	build/unit/NAME
#	unit/fault	build/fault/fault: the Nth call of everything fails
#	py/GROUP	tests/py/run.py: the independent reader, mutators, roundtrips
#	fuzz/NAME	build/fuzz/NAME, for a while
# --root: the others
#	asan/NAME	unit/NAME with sanitizers, tsan/NAME with another one, where built
#	e2e/NAME	tests/e2e/NAME.sh
#	*-convert/NAME	with CKF_LONG: those about convert, with the ckfast of each sanitizer
#	asan-restore/NAME	likewise: those about restores, with the sanitized loader in CRIU
#	packages/NAME	with CKF_LONG: packages are installed, used, upgraded and removed
#	zdtm		tests/zdtm/zdtm.sh subset
#
# CKF_LONG=1 takes more time: more rounds, longer fuzzing. A test passes with exit code 0 and skips
# with 77, and its last line then says why.
set -uo pipefail
cd "$(dirname "$0")/.."

tier=all
case ${1:-} in
--fast | --root)
	tier=${1#--}
	shift
	;;
esac
words=("$@")
logs=build/test-logs
long_factor=1
fuzz_seconds=3
[ $tier != fast ] || fuzz_seconds=1
if [ -n "${CKF_LONG:-}" ]; then
	fuzz_seconds=300
	long_factor=5
fi
# For what frees much memory and takes it again: page faults are a quarter of its time. Not where a child's peak is
# measured, since that is at least what its parent has when it is forked.
heap=GLIBC_TUNABLES=glibc.malloc.mmap_threshold=67108864:glibc.malloc.trim_threshold=268435456
jobs=$(awk -v most=$(($(nproc) + 1)) '/^MemAvailable:/ {
	n = int($2 / (2 * 1024 * 1024)); print n < 1 ? 1 : n < most ? n : most }' /proc/meminfo)
nr=0
mkdir -p "$logs"
results=$(mktemp -d "$logs/results.XXXXXX")
trap 'rm -rf "$results"' EXIT

wanted() {
	local w
	[ ${#words[@]} -gt 0 ] || return 0
	for w in "${words[@]}"; do
		[[ $1 != *"$w"* ]] || return 0
	done
	return 1
}

# What matters of a failed test's log: the lines that tell of failures, and the end.
excerpt() {
	if [ "$(wc -l <"$1")" -gt 60 ]; then
		grep -aE '^(FAIL|not ok)|FAILED|[Ee]rror:|ERROR: ' "$1" | head -n 30
		echo ...
	fi
	tail -n 40 "$1"
}

# run_one NUMBER NAME SECONDS COMMAND…: prints the line of a test, and writes down its result.
run_one() {
	local nr=$1 name=$2 seconds=$(($3 * long_factor)) log status start took
	shift 3
	log=$logs/${name//\//-}.log
	start=$(date +%s%N)
	CKF_TEST_SECONDS=$seconds timeout -k 10 $((seconds + 10)) "$@" >"$log" 2>&1 </dev/null
	status=$?
	took=$(awk -v ns=$(($(date +%s%N) - start)) 'BEGIN { printf "%.1f", ns / 1e9 }')
	case $status in
	0)
		printf 'ok    %s (%s s)\n' "$name" "$took"
		echo passed >"$results/$nr"
		# A unit test may leave out one of its cases.
		sed -n "s|^\[  SKIPPED \] \(test_.*\)|skipped in part $name: \1|p" "$log" | sort -u >>"$results/$nr"
		;;
	77)
		printf 'skip  %s\n' "$name"
		printf 'skipped %s: %s\n' "$name" "$(tail -n 1 "$log" | sed 's/^SKIP: //')" >"$results/$nr"
		;;
	*)
		printf '%s\n' "FAIL  $name ($took s), exit $status, $log" "$(excerpt "$log" | sed 's/^/      | /')"
		echo failed >"$results/$nr"
		;;
	esac
}

# one NAME SECONDS COMMAND…
one() {
	wanted "$1" || return 0
	nr=$((nr + 1))
	while [ "$(jobs -pr | wc -l)" -ge "$jobs" ]; do
		wait -n || true
	done
	run_one $nr "$@" &
}

# alone NAME SECONDS COMMAND…: when those before have ended.
alone() {
	wait
	one "$@"
	wait
}

# scripts COMMAND FILE…: by one or alone.
scripts() {
	local run=$1 name
	shift
	for name; do
		name=${name##*/}
		"$run" "e2e/${name%.sh}" 600 "tests/e2e/$name"
	done
}

# units DIR PREFIX: the unit tests that are built there.
units() {
	local test
	# First, since it takes longest; with sanitizers minutes, which long runs have.
	[ ! -x "$1/fault/fault" ] || [ "$2${CKF_LONG:-}" = asan ] ||
		one "$2/fault" 600 env "$heap" "$1/fault/fault"
	for test in "$1"/unit/test_*; do
		[ ! -x "$test" ] || one "$2/${test##*/test_}" 300 "$test"
	done
}

fast() {
	local test corpus py=(/usr/bin/python3 tests/py/run.py ${CKF_LONG:+--long})
	# The longest ones first.
	one py/roundtrip 900 "${py[@]}" roundtrip
	one py/broken 900 env "$heap" "${py[@]}" broken
	one py/flips 900 "${py[@]}" flips
	one py/reader 900 "${py[@]}" reader
	one lint 120 scripts/lint.sh
	units build unit
	for test in build/fuzz/fuzz_*; do
		if [ -x "$test" ]; then
			corpus=build/corpus/${test##*/}
			mkdir -p "$corpus"
			# A fault found is 77 by default, and an input that hangs would end with our own timeout.
			one "fuzz/${test##*/fuzz_}" $((fuzz_seconds + 60)) "$test" -max_total_time=$fuzz_seconds \
				-error_exitcode=1 -timeout=40 -timeout_exitcode=1 -artifact_prefix="$corpus-" "$corpus"
		fi
	done
}

root() {
	units build/asan-ubsan asan
	units build/tsan tsan
	if [ -n "${CKF_LONG:-}" ]; then
		one py-asan 900 env CKFAST=build/asan-ubsan/bin/ckfast /usr/bin/python3 tests/py/run.py
	fi
	scripts one $(grep -L '^# Alone: ' tests/e2e/[0-9]*.sh)
	scripts alone $(grep -l '^# Alone: ' tests/e2e/[0-9]*.sh)
	if [ -n "${CKF_LONG:-}" ]; then
		sanitized
		alone packages/debian 600 tests/packages/run.sh
		alone packages/rpm 300 tests/packages/rpm.sh
	fi
	alone zdtm 900 tests/zdtm/zdtm.sh subset
}

# The same programs with sanitizers: ckfast, and what is ours in CRIU, which frees nothing at its end. Not where memory is
# measured, nor where a fake of libc's calls is preloaded into CRIU, which must not come before the sanitizer's. A test
# has one directory to work in, so it ends before it runs with another program.
sanitized() {
	local test name kind run
	for kind in asan-ubsan tsan; do
		for name in 105-convert-jobs 210-parent 220-bases; do
			one "${kind%-ubsan}-convert/$name" 600 env CKFAST="$PWD/build/$kind/bin/ckfast" "tests/e2e/$name.sh"
		done
		wait
	done
	for test in tests/e2e/0[1-8]*.sh tests/e2e/2*.sh; do
		name=${test##*/}
		case $name in
		082-* | 083-* | 262-* | 263-* | 265-* | 266-*) continue ;;
		esac
		run=one
		! grep -q '^# Alone: ' "$test" || run=alone
		"$run" "asan-restore/${name%.sh}" 600 env ASAN_OPTIONS=detect_leaks=0 \
			CRIU="$PWD/build/asan-ubsan/bin/criu" CRIU_STOCK="$PWD/build/bin/criu-stock" "$test"
	done
	wait
}

[ $tier = root ] || fast
wait
[ $tier = fast ] || root

if grep -qs '^skipped' "$results"/*; then
	echo
	grep -hs '^skipped' "$results"/*
fi
# count WORD: tests whose result begins so.
count() {
	head -qn 1 "$results"/* 2>/dev/null | grep -c "^$1"
}
failed=$(count failed)
echo
echo "$(count passed) passed, $failed failed, $(count skipped) skipped"
[ "$failed" = 0 ]

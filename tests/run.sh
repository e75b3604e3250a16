#!/bin/bash
# SPDX-License-Identifier: MIT
#
# run.sh [WORD…]: runs the tests whose names hold one of the words (all without), one line for each.
# What make check has built is what is run. Logs: build/test-logs/NAME.log.
#
#	lint		scripts/lint.sh
#	unit/NAME	build/unit/NAME, and asan/NAME and tsan/NAME where built with sanitizers
#	unit/fault	build/fault/fault: the Nth call of everything fails; with sanitizers likewise
#	py		tests/py/run.py; with CKF_LONG py-asan too, of the sanitized ckfast
#	fuzz/NAME	build/fuzz/NAME, for a while
#	e2e/NAME	tests/e2e/NAME.sh
#	*-convert/NAME	with CKF_LONG: those about convert, with the ckfast of each sanitizer
#	asan-restore/NAME	likewise: those about restores, with the sanitized loader in CRIU
#	zdtm		tests/zdtm/zdtm.sh subset
#
# CKF_LONG=1 takes more time: more rounds, longer fuzzing. A test passes with exit code 0 and skips
# with 77, and its last line then says why.
set -uo pipefail
cd "$(dirname "$0")/.."

words=("$@")
logs=build/test-logs
fuzz_seconds=10
long_factor=1
if [ -n "${CKF_LONG:-}" ]; then
	fuzz_seconds=300
	long_factor=5
fi
passed=0
failed=0
skips=()
parts=()
mkdir -p "$logs"

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

# one NAME SECONDS COMMAND…
one() {
	local name=$1 seconds=$(($2 * long_factor)) log status start took
	shift 2
	wanted "$name" || return 0
	log=$logs/${name//\//-}.log
	start=$(date +%s%N)
	CKF_TEST_SECONDS=$seconds timeout -k 10 $((seconds + 10)) "$@" >"$log" 2>&1 </dev/null
	status=$?
	took=$(awk -v ns=$(($(date +%s%N) - start)) 'BEGIN { printf "%.1f", ns / 1e9 }')
	case $status in
	0)
		printf 'ok    %s (%s s)\n' "$name" "$took"
		passed=$((passed + 1))
		# A unit test may leave out one of its cases.
		mapfile -t -O "${#parts[@]}" parts < <(sed -n "s|^\[  SKIPPED \] \(test_.*\)|$name: \1|p" "$log" | sort -u)
		;;
	77)
		printf 'skip  %s\n' "$name"
		skips+=("$name: $(tail -n 1 "$log" | sed 's/^SKIP: //')")
		;;
	*)
		printf 'FAIL  %s (%s s), exit %s, %s\n' "$name" "$took" "$status" "$log"
		excerpt "$log" | sed 's/^/      | /'
		failed=$((failed + 1))
		;;
	esac
}

one lint 120 scripts/lint.sh
for kind in unit asan-ubsan tsan; do
	dir=build/$kind/unit
	prefix=${kind%-ubsan}
	[ $kind != unit ] || dir=build/unit
	for test in "$dir"/test_*; do
		if [ -x "$test" ]; then
			one "$prefix/${test##*/test_}" 300 "$test"
		fi
	done
	if [ -x "${dir%unit}fault/fault" ]; then
		one "$prefix/fault" 600 "${dir%unit}fault/fault"
	fi
done
one py 900 /usr/bin/python3 tests/py/run.py ${CKF_LONG:+--long}
if [ -n "${CKF_LONG:-}" ]; then
	one py-asan 900 env CKFAST=build/asan-ubsan/bin/ckfast /usr/bin/python3 tests/py/run.py
fi
for test in build/fuzz/fuzz_*; do
	if [ -x "$test" ]; then
		corpus=build/corpus/${test##*/}
		mkdir -p "$corpus"
		# A fault found is 77 by default, and an input that hangs would end with our own timeout.
		one "fuzz/${test##*/fuzz_}" $((fuzz_seconds + 60)) "$test" -max_total_time=$fuzz_seconds \
			-error_exitcode=1 -timeout=40 -timeout_exitcode=1 -artifact_prefix="$corpus-" "$corpus"
	fi
done
for test in tests/e2e/[0-9]*.sh; do
	name=${test##*/}
	one "e2e/${name%.sh}" 600 "$test"
done
# The same programs with sanitizers: ckfast, and what is ours in CRIU, which frees nothing at its end. Not where memory is
# measured.
if [ -n "${CKF_LONG:-}" ]; then
	for kind in asan-ubsan tsan; do
		for name in 105-convert-jobs 210-parent 220-bases; do
			one "${kind%-ubsan}-convert/$name" 600 env CKFAST="$PWD/build/$kind/bin/ckfast" "tests/e2e/$name.sh"
		done
	done
	for test in tests/e2e/0[1-8]*.sh tests/e2e/2*.sh; do
		name=${test##*/}
		[ "$name" != 082-limits.sh ] || continue
		one "asan-restore/${name%.sh}" 600 env ASAN_OPTIONS=detect_leaks=0 \
			CRIU="$PWD/build/asan-ubsan/bin/criu" CRIU_STOCK="$PWD/build/bin/criu-stock" "$test"
	done
fi
one zdtm 900 tests/zdtm/zdtm.sh subset

if [ $((${#skips[@]} + ${#parts[@]})) -gt 0 ]; then
	echo
	[ ${#skips[@]} = 0 ] || printf 'skipped %s\n' "${skips[@]}"
	[ ${#parts[@]} = 0 ] || printf 'skipped in part %s\n' "${parts[@]}"
fi
echo
echo "$passed passed, $failed failed, ${#skips[@]} skipped"
[ $failed = 0 ]

#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Runs what reaches most lines, built with D=cov, and writes build/coverage.txt: a sum for each folder and
# file, and the lines that nothing has reached. As root also tests with CRIU, in one version: of GPUs, of
# conversions, and of what the command does beside restores.
# Tests may fail here: they are checked by make check.
set -uo pipefail
cd "$(dirname "$0")/.."

cov=build/cov
logs=build/test-logs
mkdir -p "$logs"
find $cov -name '*.gcda' -delete

# run NAME COMMAND…: beside others, but no more of them than one for each CPU.
run() {
	while [ "$(jobs -pr | wc -l)" -ge "$(nproc)" ]; do
		wait -n || true
	done
	run_one "$@" &
}

run_one() {
	local name=$1 status=0
	shift
	"$@" >"$logs/cov-$name.log" 2>&1 </dev/null || status=$?
	case $status in
	0) ;;
	77) echo "coverage: $name is left out: $(tail -n 1 "$logs/cov-$name.log")" >&2 ;;
	*) echo "coverage: $name failed: $logs/cov-$name.log" >&2 ;;
	esac
}

for test in $cov/unit/test_*; do
	[ ! -x "$test" ] || run "${test##*/}" "$test"
done
run fault $cov/fault/fault
run py env CKFAST=$cov/bin/ckfast /usr/bin/python3 tests/py/run.py
if [ "$(id -u)" = 0 ] && [ -x build/bin/criu ]; then
	# With the newest CRIU alone, and the library in its plugin.
	version=$(basename "$(readlink -f build/bin/criu)")
	scripts/criu-plugin.sh "${version#criu-}" cov
	export CRIU=$PWD/build/bin/$version CRIU_STOCK=$PWD/build/bin/$version-stock
	export PLUGINS=$PWD/$cov/lib STOP_SIGNAL=USR2
	for test in tests/e2e/{006,10,2,3[1-6],41,46[0-3],470}*.sh; do
		! grep -q '^# Alone: ' "$test" || wait
		run "$(basename "$test" .sh)" env CKFAST="$PWD/$cov/bin/ckfast" "$test"
		! grep -q '^# Alone: ' "$test" || wait
	done
fi
wait
exec /usr/bin/python3 -B scripts/coverage.py $cov/obj build/coverage.txt

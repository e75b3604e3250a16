#!/bin/bash
# SPDX-License-Identifier: MIT
#
# zdtm.sh subset|full [h|ns…]: CRIU's own test suite with every restore going through a fast image, and
# with stock CRIU: all tests, or of those that are named the ones that do not pass with fast images. What
# stock passes here and now is what has to pass.
#
#	subset	the tests of memory-h.txt and memory-ns.txt; the memory of all tasks is compared, too
#	full	all tests
#	h, ns	the flavours: on the host itself, in namespaces; both if none is named
#
# CRIU_VERSION picks the CRIU. CKZ_TESTS='zdtm/static/maps00 …' runs these tests only. CKZ_COMPARE=1
# compares memory in full mode, too: a test that notices when it is stopped for a moment may fail
# then. Results are in build/zdtm-results/MODE-FLAVOUR/: reports, output, and logs of what failed.
#
# Exit code 77 where it cannot run. Only one run at a time in one checkout.
set -euo pipefail
cd "$(dirname "$0")/../.."

root=$PWD
here=$root/tests/zdtm
mode=${1:?usage: zdtm.sh subset|full [h|ns…]}
shift
flavours=("$@")
[ ${#flavours[@]} -gt 0 ] || flavours=(h ns)

skip() {
	echo "SKIP: $*"
	exit 77
}

version=${CRIU_VERSION:-}
if [ -z "$version" ]; then
	version=$(readlink build/bin/criu) || skip "no patched CRIU in build/bin (make criu)"
	version=${version#criu-}
fi
[ -x "build/bin/criu-$version" ] || skip "no patched CRIU $version in build/bin (make criu)"
[ -x build/bin/ckfast ] || skip "no build/bin/ckfast (make all)"
[ "$(id -u)" = 0 ] || skip "the ZDTM suite needs root"

built=0
wanted=$mode
[ -z "${CKZ_TESTS:-}" ] || wanted=full
"$here/build.sh" "$wanted" "$version" || built=$?
[ $built = 0 ] || exit $built

tree=$root/build/zdtm-$version
exec 9>"$tree/.lock"
flock -n 9 || skip "another run is using $tree"

# Copies: whoever builds meanwhile does not change what is tested.
mkdir -p "$tree/bin"
cp -f build/bin/criu-"$version"{,-stock} build/bin/ckfast "$tree/bin"
export CKZ_STOCK=$tree/bin/criu-$version-stock
export CKZ_CRIU=$tree/bin/criu-$version
export CKZ_CKFAST=$tree/bin/ckfast
export CKZ_MEMCMP=$root/tests/e2e/memcmp
[ "$mode" = full ] || export CKZ_COMPARE=1
export CKZ_PRELOAD=$tree/prlimit_shim.so
case $version in
4.1*)
	CKZ_PRELOAD+=:$tree/sockopt_shim.so
	# 4.1 waits for ever where hardware breakpoints do not work; this makes it do without.
	export CRIU_FAULT=130
	;;
esac

# tests FLAVOUR: the names of those that are to run; none for all.
tests() {
	local t
	if [ -n "${CKZ_TESTS:-}" ]; then
		printf '%s\n' $CKZ_TESTS
	elif [ "$mode" != full ]; then
		while read -r t; do
			# Not every CRIU has every test.
			if [[ $t == zdtm/* ]] && [ -x "$tree/test/$t" ]; then
				echo "$t"
			fi
		done <"$here/memory-$1.txt"
	fi
}

# run_tests FLAVOUR ARGS…: adds a report to those in $CKZ_RESULTS.
run_tests() {
	local flavour=$1
	shift
	(
		cd "$tree/test"
		umask 0000
		PATH=/usr/sbin:/usr/bin:/sbin:/bin:$PATH exec /usr/bin/python3 ./zdtm.py run "$@" \
			-f "$flavour" -p 2 --keep-going --ignore-taint -k never --report "$CKZ_RESULTS" \
			--criu-bin "$here/criu-wrapper.sh"
	) >>"$CKZ_RESULTS/output.log" 2>&1 </dev/null 9>&-
}

# suite FLAVOUR NAME [TEST…]: these tests, or all, with CKZ_FAST set or not.
suite() {
	local flavour=$1 name=$2 start=$SECONDS status=0 args=() tries t
	shift 2
	export CKZ_RESULTS=$results/$name
	mkdir -p "$CKZ_RESULTS"
	for t; do
		args+=(-t "$t")
	done
	# Without names: all tests.
	[ $# -gt 0 ] || args=(-a)
	run_tests "$flavour" "${args[@]}" || status=$?
	for tries in 1 2 3 4 5 6; do
		args=()
		for t in $("$here/compare.py" --undumped "$CKZ_RESULTS"); do
			args+=(-t "$t")
		done
		[ ${#args[@]} = 0 ] || run_tests "$flavour" "${args[@]}" || status=$?
	done
	echo "$mode $flavour $name: $((SECONDS - start)) s, exit code $status"
}

lost=0
unset CKZ_FAST
for flavour in "${flavours[@]}"; do
	results=$root/build/zdtm-results/$mode-$flavour
	rm -rf "$results"
	mkdir -p "$results/stock"
	names=$(tests "$flavour")
	if [ "$mode" != full ] && [ -z "$names" ]; then
		echo "no test of $mode $flavour is built"
		exit 1
	fi
	CKZ_FAST=1 suite "$flavour" fast $names
	if [ "$names" ]; then
		open=$("$here/compare.py" --open "$results/fast" $names)
		[ -z "$open" ] || suite "$flavour" stock $open
	else
		suite "$flavour" stock
	fi
	"$here/compare.py" "$results/stock" "$results/fast" $names || lost=1
done
exit $lost

#!/bin/bash
# SPDX-License-Identifier: MIT
#
# build.sh subset|full [VERSION]: CRIU's own test suite, ZDTM, or only the tests of memory-*.txt, in
# build/zdtm-VERSION: a copy of the stock tree that make criu has unpacked, since the suite writes into
# its tree; and our shims beside it.
#
# Exit code 77, with a last line that says why, where it cannot be built here.
set -euo pipefail
cd "$(dirname "$0")/../.."

missing() {
	echo "SKIP: the ZDTM suite needs $*"
	exit 77
}

here=$PWD/tests/zdtm
mode=${1:?usage: build.sh subset|full [VERSION]}
version=${2:-${CRIU_VERSION:-$(readlink build/bin/criu || true)}}
version=${version#criu-}
[ -n "$version" ] || missing "CRIU: make criu"
stock=build/criu-$version-stock
dir=build/zdtm-$version
log=$dir.log
# CRIU's make must not see the settings of the make that runs this.
unset MAKEFLAGS MFLAGS MAKELEVEL CRIU_VERSION

[ -f "$stock/.built" ] || missing "CRIU's sources: make criu"
pkg-config --exists libnl-route-3.0 || missing "libnl-route-3-dev"
for module in google.protobuf yaml junit_xml; do
	/usr/bin/python3 -c "import $module" 2>/dev/null ||
		missing "the module $module of /usr/bin/python3 (python3-protobuf, python3-yaml," \
			"python3-junit.xml)"
done
for program in iptables ip ps; do
	command -v $program >/dev/null || missing "$program (iptables, iproute2, procps)"
done
[ -d "$stock/test/zdtm" ] || missing "a CRIU source with its tests"

# Some tests need headers or libraries that may not be there, and not every CRIU has every test: -k, and
# they are not run.
build_tests() {
	local sub
	for sub in static transition; do
		if [ $mode = full ]; then
			make -C "$dir/test/zdtm/$sub" -j"$(nproc)" -k || true
		else
			make -C "$dir/test/zdtm/$sub" -j"$(nproc)" -k $(sed -n "s,^zdtm/$sub/,,p" "$here"/memory-*.txt | sort -u) || true
		fi
	done
}

build() {
	make -C "$dir" -j"$(nproc)" lib &&
		make -C "$dir/test" zdtm_ct &&
		make -C "$dir/test/zdtm/lib" -j"$(nproc)" &&
		build_tests
}

want="$mode $(cat "$stock/.built" "$here"/memory-*.txt | sha256sum)"
have=$(cat "$dir/.zdtm" 2>/dev/null || true)
if [ "$have" != "$want" ] && [ "$have" != "full ${want#* }" ]; then
	echo "zdtm: building the suite of $version"
	rm -rf "$dir"
	cp -a "$stock" "$dir"
	if ! build >"$log" 2>&1 </dev/null; then
		tail -n 20 "$log" >&2
		echo "zdtm: building the suite failed; the whole log is $log" >&2
		exit 1
	fi
	echo "$want" >"$dir/.zdtm"
fi
for shim in tests/zdtm/*_shim.c; do
	out=$dir/$(basename "$shim" .c).so
	if [ ! "$out" -nt "$shim" ]; then
		"${CC:-gcc}" -std=gnu11 -D_GNU_SOURCE -O2 -Wall -Wextra -fPIC -shared -o "$out" "$shim"
	fi
done

#!/bin/bash
# SPDX-License-Identifier: MIT
#
# rpmbuild builds the packages of packaging/ckfast.spec, and what is in them works.
set -euo pipefail
cd "$(dirname "$0")/../.."

skip() {
	echo "SKIP: $*"
	exit 77
}

fail() {
	echo "FAIL: $*" >&2
	exit 1
}

command -v rpmbuild >/dev/null || skip "no rpmbuild (scripts/deps.sh packages)"
command -v cpio >/dev/null || skip "no cpio (scripts/deps.sh packages)"
version=$(sed -n 's/^VERSION := //p' Makefile)
scripts/rpm-build.sh

root=build/rpm/root
mkdir -p "$root"
for package in ckfast ckfast-libs ckfast-devel; do
	file=build/rpm/RPMS/x86_64/$package-$version-1.x86_64.rpm
	[ -e "$file" ] || file=$(echo build/rpm/RPMS/x86_64/"$package-$version"-1.*.x86_64.rpm)
	[ -e "$file" ] || fail "no $package"
	rpm2cpio "$file" | cpio -idm --quiet -D "$root"
done

libdir=$root$(rpm --eval '%{_libdir}')
"$root/usr/bin/ckfast" --version | grep -q "^ckfast $version," || fail "ckfast does not run"
"$root/usr/bin/ckfast" run --env | grep -q libckfast-cuda.so || fail "ckfast run does not find the agent"
mkdir -p build/rpm/program
"${CC:-gcc}" -std=c11 -D_DEFAULT_SOURCE -I"$root/usr/include" -o build/rpm/program/list examples/list.c \
	-L"$libdir" -lckfast || fail "a program is not built with the library"
said=$(LD_LIBRARY_PATH=$libdir build/rpm/program/list docs 2>&1 || true)
grep -q 'no ckfast.idx' <<<"$said" || fail "the program does not run: $said"

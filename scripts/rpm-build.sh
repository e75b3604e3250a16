#!/bin/bash
# SPDX-License-Identifier: MIT
#
# rpm-build.sh: builds the RPM packages of the working tree in build/rpm/RPMS/. On a system without an
# RPM database of its own what they need to be built is not looked for.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/failed.sh

out=$PWD/build/rpm
spec=packaging/ckfast.spec
version=$(sed -n 's/^VERSION := //p' Makefile)
options=()
# Neither the settings of the make that runs this nor those of its user.
unset MAKEFLAGS MFLAGS MAKELEVEL CFLAGS CPPFLAGS LDFLAGS

die() {
	echo "rpm: $*" >&2
	exit 1
}

command -v rpmbuild >/dev/null || die "no rpmbuild: scripts/deps.sh packages installs it"
[ "$(sed -n 's/^Version: *//p' $spec)" = "$version" ] || die "$spec is not at version $version"
rpm -q rpm >/dev/null 2>&1 || options+=(--nodeps)

rm -rf "$out"
mkdir -p "$out/SOURCES"
scripts/source-archive.sh >"$out/SOURCES/ckfast-$version.tar.gz"
rpmbuild -ba "${options[@]}" --define "_topdir $out" $spec >"$out/build.log" 2>&1 </dev/null || {
	show_failure rpm "$out/build.log"
	exit 1
}
find "$out/RPMS" -name '*.rpm' | sort

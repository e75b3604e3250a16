#!/bin/bash
# SPDX-License-Identifier: MIT
#
# deb-build.sh [source]: builds the Debian packages of the working tree, with a source package, in
# build/deb/. With "source" it only fetches CRIU's source, before anything is installed for the build.
#
# CRIU's source, which make criu fetches, becomes a component of the source package: the build of
# the packages needs no network. CRIU_SRC=TARBALL takes one's own. Built again only when something
# in the tree has changed. lintian must find neither errors nor warnings.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/failed.sh

out=build/deb
criu_version=4.2.1
version=$(sed -n 's/^VERSION := //p' Makefile)
tree=$out/ckfast-$version
orig=$out/ckfast_$version.orig.tar.gz
# Neither the settings of the make that runs this nor those of its user.
unset MAKEFLAGS MFLAGS MAKELEVEL CFLAGS CPPFLAGS LDFLAGS CRIU_VERSION
# Only programs of the distribution: another python3 lacks the modules of its packages.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin

die() {
	echo "deb: $*" >&2
	exit 1
}

criu=${CRIU_SRC:-}
[ -n "$criu" ] || criu=$(scripts/criu-get.sh $criu_version)
[ -f "$criu" ] || die "CRIU_SRC=$criu is no archive"
[ "${1:-}" != source ] || exit 0

command -v dh >/dev/null || die "no debhelper: scripts/deps.sh packages installs what is needed"
[ "$(dpkg-parsechangelog -S Version)" = "$version-1" ] ||
	die "debian/changelog is not at version $version-1, which VERSION in the Makefile says"

mkdir -p $out
scripts/source-archive.sh >$out/orig.new
id=$( (cat $out/orig.new "$criu" && find debian -type f -print0 | sort -z | xargs -0 sha256sum) | sha256sum)
if [ "$(cat $out/.built 2>/dev/null)" = "$id" ]; then
	rm $out/orig.new
	exit 0
fi
echo "deb: building ckfast $version-1, which takes minutes; $out/build.log grows meanwhile"
rm -rf "$tree" $out/*.deb $out/*.changes $out/.built
mv $out/orig.new "$orig"
cp "$criu" "$out/ckfast_$version.orig-criu.tar.${criu##*.}"
tar -xf "$orig" -C $out
mkdir "$tree/criu"
tar -xf "$criu" -C "$tree/criu" --strip-components=1
cp -r debian "$tree/"
if ! (cd "$tree" && dpkg-buildpackage -us -uc) >$out/build.log 2>&1 </dev/null; then
	show_failure deb $out/build.log
	exit 1
fi
rm -rf "$tree"
lintian --allow-root --fail-on error,warning $out/*.changes || die "lintian finds faults"
echo "$id" >$out/.built
ls $out/*.deb

#!/bin/bash
# SPDX-License-Identifier: MIT
#
# criu-get.sh VERSION: fetches CRIU's source archive as Debian's source package and prints its path.
#
# The suites that hold it are not the machine's own, so apt gets lists of its own under build/,
# with the mirror and the keyring that the machine is already set up to use. Nothing outside of
# build/ changes.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/archives.sh

version=${1:?usage: criu-get.sh VERSION}
revision=1
case $version in
4.3)
	suites=(experimental sid forky)
	revision='1~exp2'
	sha256=90723e403818296d05c80660f6ebc7e852f27835f819f710fbf6894fc1bc8608
	;;
4.2.1)
	suites=(sid forky)
	sha256=29ec0ee09e296479fe7048c80980e8ef1d0684d0b0204c2b101dfea19f6725b9
	;;
4.1.1)
	suites=(trixie)
	sha256=f80a66cb3726bb2116266d4759ce3bcbfab7abdb6b6d430bf20dd41911717afe
	;;
*)
	echo "criu-get: no known source package for CRIU $version" >&2
	exit 1
	;;
esac

dir=build/criu-src
tarball=$dir/criu_$version.orig.tar.xz
good() { echo "$sha256  $tarball" | sha256sum --check --status 2>/dev/null; }

mkdir -p "$dir"
if [ -f "$tarball" ]; then
	if good; then
		echo "$tarball"
		exit 0
	fi
	rm -f "$tarball"
fi

# try KEYRING URI SUITE: fetches from there, checks, and ends the script if that was it.
try() {
	local keyring=$1 uri=$2 suite=$3 apt=$PWD/$dir/apt option="" opts read=""
	local debian_keyring=/usr/share/keyrings/debian-archive-keyring.gpg
	if [ "$keyring" = - ] && [ -f $debian_keyring ]; then
		keyring=$debian_keyring
	fi
	[ "$keyring" = - ] || option="[signed-by=$keyring] "
	rm -rf "$apt"
	mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial"
	echo "deb-src $option$uri $suite main" >"$apt/sources.list"
	opts=(-q -o "Dir::Etc::SourceList=$apt/sources.list" -o Dir::Etc::SourceParts=/dev/null
		-o "Dir::State::Lists=$apt/lists" -o "Dir::Cache=$apt/cache"
		-o APT::Sandbox::User=root -o Acquire::Languages=none -o Acquire::Retries=3
		-o APT::Update::Error-Mode=any)
	if apt-get "${opts[@]}" update >&2; then
		read=yes
		(cd "$dir" && apt-get "${opts[@]}" source --tar-only "criu=$version-$revision" >&2) || true
	fi
	rm -rf "$apt"
	if [ -z "$read" ]; then
		echo "criu-get: $suite of $uri could not be read: apt says above why" >&2
		unread+=("$suite of $uri")
		return
	elif [ ! -f "$tarball" ]; then
		echo "criu-get: CRIU $version is not in $suite of $uri" >&2
		nr_read=$((nr_read + 1))
		return
	fi
	if ! good; then
		rm -f "$tarball"
		echo "criu-get: CRIU $version from $suite has another sha256 than $sha256" >&2
		exit 1
	fi
	echo "$tarball"
	exit 0
}

unread=()
nr_read=0
while read -r keyring uri; do
	for suite in "${suites[@]}"; do
		try "$keyring" "$uri" "$suite" </dev/null
	done
done < <(own_archives)
if [ ${#unread[@]} -gt 0 ]; then
	echo "criu-get: could not be read, as apt's messages above say: $(printf '%s, ' "${unread[@]}" | sed 's/, $//')" >&2
fi
if [ $nr_read -gt 0 ]; then
	echo "criu-get: no archive that could be read holds CRIU $version" >&2
elif [ ${#unread[@]} = 0 ]; then
	echo "criu-get: apt has no archive for this machine's release" >&2
fi
echo "criu-get: CRIU_SRC=TARBALL takes the source from a file:" \
	"https://github.com/checkpoint-restore/criu/releases has that of CRIU $version" >&2
exit 1

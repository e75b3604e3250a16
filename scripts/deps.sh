#!/bin/bash
# SPDX-License-Identifier: MIT
#
# deps.sh [servers|packages]: installs the Debian packages that the build, CRIU's build and the
# tests need and that are missing; or the servers that a benchmark restores; or what it takes to
# make packages and to test them, beside the build's own. Says in one line what is missing where it
# cannot install it.
set -euo pipefail

build=(gcc make libc6-dev pkg-config libzstd-dev liblz4-dev libxxhash-dev liburing-dev zlib1g-dev
	libjansson-dev libprotobuf-c-dev libprotobuf-dev nettle-dev protobuf-c-compiler libhsakmt-dev)
criu=(patch xz-utils protobuf-compiler libnl-3-dev libnet1-dev libcap-dev libbsd-dev uuid-dev
	libgnutls28-dev libnftables-dev)
tests=(libcmocka-dev clang-14 libclang-rt-14-dev clang-format-14 python3 python3-xxhash
	python3-lz4 python3-zstandard python3-protobuf libdrm-dev abigail-tools)
containers=(runc crun containerd podman busybox-static zstd)
zdtm=(libnl-route-3-dev python3-yaml python3-junit.xml iptables nftables
	iproute2 procps openssl)
servers=(redis-server redis-tools postgresql postgresql-client openjdk-17-jdk-headless nodejs)
packages=(build-essential git debhelper dpkg-dev fakeroot lintian asciidoc xmlto debootstrap rpm cpio zsh fish)

wanted=("${build[@]}" "${criu[@]}" "${tests[@]}" "${containers[@]}" "${zdtm[@]}")
case ${1:-} in
servers) wanted=("${servers[@]}") ;;
packages) wanted=("${build[@]}" "${criu[@]}" "${packages[@]}") ;;
esac

# Whatever provides the package does (pkgconf for pkg-config).
installed=$(dpkg-query -W -f='${db:Status-Abbrev}${Package} ${Provides}\n' 2>/dev/null |
	sed -n 's/^ii //p' | tr -s ', ' '\n' || true)
missing=()
for p in "${wanted[@]}"; do
	grep -qxF -- "$p" <<<"$installed" || missing+=("$p")
done
[ ${#missing[@]} -gt 0 ] || exit 0

like=$(. /etc/os-release 2>/dev/null && echo " ${ID:-} ${ID_LIKE:-} ")
case $like in
*" debian "* | *" ubuntu "*) ;;
*)
	echo "deps: not a Debian system; please install what these packages hold: ${missing[*]}" >&2
	exit 1
	;;
esac
if [ "$(id -u)" != 0 ]; then
	echo "deps: root is needed to install: ${missing[*]}" >&2
	exit 1
fi
echo "deps: installing ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
# No server is started by its package, and containerd is not either.
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
	printf '#!/bin/sh\nexit 101\n' >$policy
	chmod 755 $policy
	trap 'rm -f $policy' EXIT
fi
apt-get update -q
apt-get install -q -y --no-install-recommends "${missing[@]}"

#!/bin/bash
# SPDX-License-Identifier: MIT
#
# run.sh [SUITE…]: installs the packages of build/deb in a new Debian of each suite (bookworm and
# trixie), alone and beside Debian's own CRIU, uses, upgrades and removes them. Each time the files,
# and dpkg's diversions, must be what they were before.
#
# Debian comes from the archives that apt is set up to use here, which must serve the suite.
# build/packages/SUITE.tar keeps it as it was installed; without that file it is fetched again.
set -euo pipefail
cd "$(dirname "$0")/../.."
. scripts/archives.sh

work=$PWD/build/packages
debs=build/deb
packages=(ckfast ckfast-criu ckfast-cuda libckfast0 libckfast-dev)
suites=("$@")
[ ${#suites[@]} -gt 0 ] || suites=(bookworm trixie)

skip() {
	echo "SKIP: $*"
	exit 77
}

fail() {
	echo "FAIL: $suite: $*" >&2
	exit 1
}

[ "$(id -u)" = 0 ] || skip "needs root"
command -v debootstrap >/dev/null || skip "no debootstrap (scripts/deps.sh packages)"
compgen -G "$debs/ckfast_*.deb" >/dev/null || skip "no packages in $debs (make deb)"
version=$(dpkg-parsechangelog -S Version)
old_version=0.1.9-1

# bootstrap KEYRING URI: a minimal Debian in $root, with apt set up to use that archive as it is here.
bootstrap() {
	local options=()
	[ "$1" = - ] || options+=("--keyring=$1")
	rm -rf "$root"
	debootstrap --variant=minbase --include=ca-certificates "${options[@]}" "$suite" "$root" "$2" \
		</dev/null || return 1
	apt-config dump | grep -E '^Acquire::(https?|Check|Retries|ForceIP)' >"$root/etc/apt/apt.conf.d/90-as-here" || true
	printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
	chmod 755 "$root/usr/sbin/policy-rc.d"
	tar -C "$root" -cf "$work/$suite.tar.new" . && mv "$work/$suite.tar.new" "$work/$suite.tar"
}

# fresh_root: $root is the suite as it was installed. Fails where no archive serves it.
fresh_root() {
	local keyring uri
	if [ -f "$work/$suite.tar" ]; then
		rm -rf "$root"
		mkdir -p "$root"
		tar -C "$root" -xf "$work/$suite.tar"
		return
	fi
	while read -r keyring uri; do
		bootstrap "$keyring" "$uri" && return
	done < <(own_archives)
	return 1
}

# inside COMMAND…: with $root as the root of the file system, in namespaces of its own, so that no
# mount and no process is left. CRIU wants a root that is a mount.
inside() {
	cp /etc/resolv.conf /etc/hosts "$root/etc/"
	unshare --mount --pid --fork --kill-child bash -c '
		set -e
		mount --bind "$1" "$1"
		cd "$1"
		mount -t proc proc proc
		mount --rbind /sys sys
		mount --rbind /dev dev
		pivot_root . . # the old root lies upon the new one, and is taken off it
		umount -l .
		shift
		export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
		export HOME=/root LC_ALL=C DEBIAN_FRONTEND=noninteractive
		cd /root
		exec "$@"
	' bash "$root" "$@" </dev/null
}

# shipped VERSION: our packages of that version, as apt and dpkg in $root name them.
shipped() {
	local package
	for package in "${packages[@]}"; do
		echo "/root/debs/${package}_$1_amd64.deb"
	done
}

# The packages, and the same ones with a lower version.
put_packages() {
	local package dir=$work/old
	mkdir -p "$root/root/debs"
	for package in "${packages[@]}"; do
		cp "$debs/${package}_${version}_amd64.deb" "$root/root/debs/"
		rm -rf "$dir"
		dpkg-deb -R "$debs/${package}_${version}_amd64.deb" "$dir"
		sed -i "s/\b$version\b/$old_version/g" "$dir/DEBIAN/control"
		dpkg-deb --root-owner-group -b "$dir" "$root/root/debs/${package}_${old_version}_amd64.deb" >/dev/null
	done
	rm -rf "$dir"
}

# The packages of others that ours need, and pkgconf, by which programs find libckfast.
install_needed() {
	local needed
	needed=$(inside apt-get -s install $(shipped "$version") |
		awk '/^Inst/ && $2 !~ /^(lib)?ckfast/ { print $2 }')
	inside apt-get -qy install $needed pkgconf
}

# state FILE: each file with its type, mode, owner, link and contents, and the diversions. Not /run, which
# is gone at the next boot, and not what dpkg, apt and logs write down about each installation.
state() {
	(
		cd "$root"
		find . -path ./run -prune -o -path ./var/log -prune -o -path ./var/cache -prune \
			-o -path ./var/lib/apt -prune \
			-o -path ./root -prune -o -path './var/lib/dpkg/*-old' \
			-o -printf '%p %y %m %U:%G %l\n' | sort
		find usr etc opt srv -type f ! -path etc/ld.so.cache -print0 | sort -z | xargs -0 sha256sum
	) >"$1"
	inside dpkg-divert --list >>"$1"
}

# same_state WHEN [PATTERN]: as in $work/before, but for lines with PATTERN.
same_state() {
	state "$work/after"
	diff <(grep -vE "${2:-^$}" "$work/before") <(grep -vE "${2:-^$}" "$work/after") >"$work/state.diff" ||
		fail "$1 the files are not as before:"$'\n'"$(head -n 30 "$work/state.diff")"
}

# needed_by FILE: the shared libraries that it is linked with.
needed_by() {
	readelf -d "$root$1" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p' | sort
}

# What is installed is ours and works; with "diverted", Debian's program is beside it
# and has nothing that ours lacks.
use() {
	local missing
	inside criu --version | grep -q "ckfast $(inside ckfast --version | sed 's/^ckfast \(.*\),.*/\1/')" ||
		fail "criu is not ours: $(inside criu --version)"
	[ "$(inside crit --version)" = "$(inside criu --version | sed -n 's/^Version: \([0-9.]*\).*/\1/p')" ] ||
		fail "crit is of version $(inside crit --version)"
	inside ckfast run --env | grep -q '^LD_PRELOAD=/usr/lib/ckfast/' || fail "no agent"
	inside pkg-config --static --libs ckfast >/dev/null || fail "libckfast-dev lacks what programs link with it"
	[ -e "$root/usr/share/man/man8/criu.8.gz" ] || fail "no criu(8)"
	[ ! -e "$root/etc/systemd/system/multi-user.target.wants/ckfast-gpud.service" ] || fail "gpud is enabled"
	[ ! -e "$root/etc/systemd/system/multi-user.target.wants/ckfast-watch.service" ] || fail "watch is enabled"
	if [ "${1:-}" = diverted ]; then
		! inside criu.distrib --version | grep -q ckfast || fail "Debian's criu is ours"
		missing=$(comm -23 <(needed_by /usr/sbin/criu.distrib) <(needed_by /usr/sbin/criu))
		[ -z "$missing" ] || fail "Debian's criu is linked with $missing, ours is not"
		if inside criu.distrib check; then
			inside criu check || fail "criu check passes with Debian's criu, not with ours"
		fi
	fi
	install -m 755 tests/packages/restore.py "$root/root/"
	inside /root/restore.py || fail "a process is not dumped, converted and restored"
}

remove() {
	inside dpkg "$1" "${packages[@]}"
}

# cycle [diverted]: installation, upgrade and removal, from the state that $root is in.
cycle() {
	state "$work/before"
	inside dpkg -i $(shipped "$version")
	use "$@"
	remove --remove
	# What only a purge removes: the scripts for it, and which units are enabled.
	same_state "after removal" '^\./var/lib/(dpkg/info/ckfast|systemd/deb-systemd-helper)'
	remove --purge
	same_state "after purge"

	inside dpkg -i $(shipped "$old_version")
	inside apt-get -qy install $(shipped "$version")
	[ "$(inside dpkg-query -W -f '${Version}' ckfast-criu)" = "$version" ] || fail "is not upgraded"
	use "$@"
	if [ "${1:-}" = diverted ]; then
		inside apt-get -qy install --reinstall criu
		use diverted
	fi
	remove --purge
	same_state "after upgrade and purge"
}

run_suite() {
	root=$work/$suite
	mkdir -p "$work"
	if ! fresh_root >"$work/$suite.log" 2>&1; then
		tail -n 5 "$work/$suite.log"
		return 77
	fi
	inside apt-get -q update
	put_packages
	install_needed
	cycle
	# python3-pycriu has crit, where it is not in criu itself.
	inside apt-get -qy install criu
	inside apt-get -qy install python3-pycriu || true
	cycle diverted
	rm -rf "$root"
}

ran=0
for suite in "${suites[@]}"; do
	status=0
	run_suite || status=$?
	case $status in
	0) ran=$((ran + 1)) ;;
	77) echo "$suite: no archive serves it" ;;
	*) exit 1 ;;
	esac
done
[ $ran -gt 0 ] || skip "no archive serves ${suites[*]}"
echo "tested in $ran suites"

#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Builds CRIU, stock and patched: build/bin/criu-VERSION-stock and build/bin/criu-VERSION, and the
# newest (or CRIU_VERSION) as build/bin/criu-stock and build/bin/criu. With CRIU_SRC=DIR|TARBALL
# from one's own source. Each is built again only when what it is made from has changed.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/failed.sh

root=$PWD
known=(4.2.1 4.1.1) # newest first
bin=build/bin
lib=$root/build/libckfast.a
# Of the tree itself, which pkg-config prefers to an installed ckfast.
export PKG_CONFIG_PATH=$root/build/pkgconfig${PKG_CONFIG_PATH:+:$PKG_CONFIG_PATH}
jobs=$(nproc)
# What Debian links its own CRIU with. CRIU's make leaves out what it does not find without an error,
# and a restore by such a CRIU may go wrong in silence: without nftables, locks of the network stay.
libraries=(libnftables gnutls libbsd libnl-3.0 uuid)
linked=(libnftables libgnutls libbsd libnl-3 libnet libprotobuf-c)
pick=${CRIU_VERSION:-}
# CRIU's own make must not see the settings of the make that runs this.
unset MAKEFLAGS MFLAGS MAKELEVEL CRIU_VERSION

die() {
	echo "criu: $*" >&2
	exit 1
}

# make_criu DIR VAR=VALUE…: the program only, with the output shown only if it fails.
make_criu() {
	local dir=$1
	shift
	if ! make -C "$dir" -j"$jobs" "$@" criu >"$dir.log" 2>&1 </dev/null; then
		show_failure criu "$dir.log"
		exit 1
	fi
}

need_libraries() {
	local l missing=()
	for l in "${libraries[@]}"; do
		pkg-config --exists "$l" || missing+=("$l")
	done
	[ ${#missing[@]} = 0 ] ||
		die "CRIU would be built without ${missing[*]}, which Debian's own has: make deps installs them"
}

# check_features PROGRAM: it is linked with what the libraries are for, or, where the patched one loads a library
# only when it needs it, has its name. They are there by these names.
check_features() {
	local l name found
	found=$(ldd "$1" | awk '{ print $1 }'
		LC_ALL=C grep -aoE '\blib(nftables|gnutls)\.so\.[0-9]+\b' "$1" || true)
	for l in "${linked[@]}"; do
		name=$(grep -m 1 "^$l\.so" <<<"$found") || die "$1 was built without $l: the log of the build says why"
		[ -e "$("${CC:-cc}" -print-file-name="$name")" ] || die "$1 would load $name, which is not there"
	done
}

# The archive or directory to build VERSION from.
source_of() {
	if [ -n "${CRIU_SRC:-}" ]; then
		echo "$CRIU_SRC"
	else
		scripts/criu-get.sh "$1"
	fi
}

# unpack SOURCE DIR: a clean copy.
unpack() {
	rm -rf "$2"
	mkdir -p "$2"
	if [ -d "$1" ]; then
		cp -a "$1/." "$2"
		make -C "$2" mrproper >/dev/null 2>&1 || true
	else
		tar -xf "$1" -C "$2" --strip-components=1
	fi
}

# A fingerprint of SOURCE, cheap to compute again and again.
source_id() {
	if [ -d "$1" ]; then
		find "$1" -type f -name '*.[chS]' -printf '%P %s %T@\n' | sort | sha256sum
	else
		sha256sum <"$1"
	fi
}

version_of() {
	awk -F':?=' '/^CRIU_VERSION_(MAJOR|MINOR|SUBLEVEL)/ { gsub(/[ \t]/, "", $2)
		if ($2 != "") v = v (v == "" ? "" : ".") $2 } END { print v }' "$1/Makefile.versions"
}

build_stock() {
	local version=$1 source=$2 dir=build/criu-$1-stock id built
	id="$(source_id "$source") $(pkg-config --modversion "${libraries[@]}" | tr '\n' ' ')"
	built=$(cat "$dir/.built" 2>/dev/null || true)
	if [ "$built" != "$id" ]; then
		echo "criu: building $version, stock"
		if [ "${built%% *}" = "${id%% *}" ]; then
			# The same source with other libraries: what asks for them is compiled again.
			grep -rlE 'CONFIG_(HAS_(NFTABLES|LIBBSD|SELINUX|LIBBPF)|GNUTLS)' "$dir" --include='*.[ch]' |
				xargs touch
			rm -f "$dir/criu/criu"
		else
			unpack "$source" "$dir"
		fi
		make_criu "$dir"
		check_features "$dir/criu/criu"
		echo "$id" >"$dir/.built"
	fi
	install -C -m 755 "$dir/criu/criu" "$bin/criu-$version-stock"
	if [ ! -e "build/lib/criu-$version-stock/cuda_plugin.so" ]; then
		make -C "$dir/plugins/cuda" ARCH=x86 >>"$dir.log" 2>&1 </dev/null || die "CRIU's CUDA plugin: see $dir.log"
		install -D -m 755 "$dir/plugins/cuda/cuda_plugin.so" "build/lib/criu-$version-stock/cuda_plugin.so"
	fi
	build_amdgpu "$version-stock"
}

# build_amdgpu NAME: CRIU's plugin for AMD GPUs, where the headers of libdrm are. In a folder of its own,
# since CRIU loads all that there is in one.
build_amdgpu() {
	local dir=build/criu-$1 out=build/lib/amdgpu-$1 plugin=build/criu-$1/plugins/amdgpu id
	pkg-config --exists libdrm_amdgpu || return 0
	id=$(cat "$plugin"/*.[ch] "$plugin"/*.proto | sha256sum)
	[ "$(cat "$out/.amdgpu" 2>/dev/null)" != "$id" ] || return 0
	rm -f "$plugin/amdgpu_plugin.so"
	make -C "$plugin" ARCH=x86 amdgpu_plugin.so >>"$dir.log" 2>&1 </dev/null ||
		die "CRIU's amdgpu plugin: see $dir.log"
	install -D -m 755 "$plugin/amdgpu_plugin.so" "$out/amdgpu_plugin.so"
	# What is generated on the way must not count the next time.
	rm -f "$plugin"/criu-amdgpu.pb-c.[ch]
	echo "$id" >"$out/.amdgpu"
}

# applies SERIES DIR: each patch of the series, after those before it, to copies of what it changes.
applies() {
	local tmp p bad=0
	tmp=$(mktemp -d)
	sed -n 's,^--- a/,,p' "$1"/*.patch | sort -u |
		(cd "$2" && xargs cp --parents -t "$tmp") 2>/dev/null || bad=1
	for p in "$1"/*.patch; do
		[ $bad = 0 ] || break
		patch -d "$tmp" -p1 -s -f <"$p" >/dev/null || bad=1
	done
	rm -rf "$tmp"
	return $bad
}

# The series for VERSION, unpacked in DIR: its own, or the newest that applies as it is. Fails when
# there is none.
series_of() {
	local series
	if compgen -G "criu-patch/$1/*.patch" >/dev/null; then
		echo "criu-patch/$1"
		return
	fi
	for series in $(printf '%s\n' criu-patch/[0-9]*/ | sort -rV); do
		if applies "${series%/}" "$2"; then
			echo "${series%/}"
			return
		fi
	done
	return 1
}

# The patched tree starts as a copy of the stock one with its objects, so that only what the
# patches touch is compiled.
build_patched() {
	local version=$1 dir=build/criu-$1 stock=build/criu-$1-stock patches id p
	patches=$(series_of "$version" "$stock") || {
		echo "criu: no series of criu-patch/ applies to $version: only stock is built"
		rm -rf "$dir" "$bin/criu-$version" "build/lib/criu-$version"
		return
	}
	[ "${patches##*/}" = "$version" ] || echo "criu: $version gets the series for ${patches##*/}"
	id=$( (cat "$stock/.built" && find "$patches" criu-patch/files -type f -print0 | sort -z |
		xargs -0 sha256sum) | sha256sum)
	if [ "$(cat "$dir/.patched" 2>/dev/null)" != "$id" ]; then
		echo "criu: patching $version"
		rm -rf "$dir"
		cp -a "$stock" "$dir"
		rm -f "$dir/.built"
		for p in "$patches"/*.patch; do
			patch -d "$dir" -p1 --no-backup-if-mismatch -s <"$p" || die "$p does not apply"
		done
		if [ -d criu-patch/files ]; then
			cp -r criu-patch/files/. "$dir"
		fi
		echo "$id" >"$dir/.patched"
	fi
	id=$(cat "$lib" include/*.h build/pkgconfig/*.pc "$dir/.patched" | sha256sum)
	if [ "$(cat "$dir/.built" 2>/dev/null)" != "$id" ]; then
		echo "criu: building $version, patched"
		# What it knows of our headers may be from before one was moved.
		rm -f "$dir/criu/criu" "$dir"/criu/fast-*.[do]
		make_criu "$dir"
		check_features "$dir/criu/criu"
		echo "$id" >"$dir/.built"
	fi
	install -C -m 755 "$dir/criu/criu" "$bin/criu-$version"
}

need_libraries
mkdir -p "$bin"
if [ -n "${CRIU_SRC:-}" ]; then
	[ -e "$CRIU_SRC" ] || die "CRIU_SRC=$CRIU_SRC is not there"
	probe=build/criu-src/probe
	unpack "$CRIU_SRC" "$probe"
	versions=("$(version_of "$probe")")
	rm -rf "$probe"
elif [ -n "$pick" ]; then
	versions=("$pick")
else
	versions=("${known[@]}")
fi

newest=
for version in "${versions[@]}"; do
	source=$(source_of "$version") || {
		echo "criu: the source of $version cannot be had" >&2
		continue
	}
	build_stock "$version" "$source"
	build_patched "$version"
	if [ -e "build/criu-$version/.patched" ]; then
		scripts/criu-plugin.sh "$version"
		build_amdgpu "$version"
	fi
	newest=${newest:-$version}
done
[ -n "$newest" ] || die "no CRIU source can be had; CRIU_SRC=DIR|TARBALL takes one's own"

rm -f "$bin/criu" build/lib/criu
ln -sfn "criu-$newest-stock" "$bin/criu-stock"
ln -sfn "criu-$newest-stock" build/lib/criu-stock
if [ -e "$bin/criu-$newest" ]; then
	ln -sfn "criu-$newest" "$bin/criu"
	ln -sfn "criu-$newest" build/lib/criu
fi

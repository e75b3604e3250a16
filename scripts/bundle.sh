#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Makes build/bundle: CRIU (patched and stock) and ckfast with the shared libraries that they need
# and the dynamic loader, the benchmark's programs, linked statically, and its scripts. It runs
# where it is copied to, on another x86-64 Linux, as root, with nothing installed but python3.
set -euo pipefail
cd "$(dirname "$0")/.."

out=build/bundle
max_mib=40

die() {
	echo "bundle: $*" >&2
	exit 1
}

[ "$(uname -m)" = x86_64 ] || die "only for x86-64"

# The libraries that the dynamic loader finds for a program, the loader itself among them.
libraries_of() {
	ldd "$1" | awk '/=> \// { print $3 } /^[ \t]*\/.*ld-linux/ { print $1 }'
}

# add_program PATH: a program of build/, and a wrapper in bin/ that starts it with these libraries.
add_program() {
	local path=$1 name=${1##*/} lib
	[ -e "$path" ] || die "no $path (make all criu progs)"
	install -m 755 "$(readlink -f "$path")" "$out/libexec/$name"
	strip "$out/libexec/$name"
	for lib in $(libraries_of "$path"); do
		[ -e "$out/lib/${lib##*/}" ] || install -m 755 "$(readlink -f "$lib")" "$out/lib/${lib##*/}"
	done
	cat >"$out/bin/$name" <<-END
		#!/bin/sh
		here=\$(dirname "\$(dirname "\$(readlink -f "\$0")")")
		exec "\$here/lib/ld-linux-x86-64.so.2" --library-path "\$here/lib" "\$here/libexec/$name" "\$@"
	END
	chmod 755 "$out/bin/$name"
}

# add_static SOURCE LIBRARY…: what is dumped must be a file that is there, so nothing is shared.
add_static() {
	local source=$1 name=${1##*/}
	shift
	"${CC:-gcc}" -std=gnu11 -O2 -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 -iquote . -iquote include \
		-Wall -Wextra -static -s -pthread -o "$out/progs/${name%.c}" "$source" "$@"
}

rm -rf "$out"
mkdir -p "$out"/{bin,lib,libexec,progs,bench,gpu}
for name in ckfast criu criu-stock cuda-checkpoint; do
	add_program "build/bin/$name"
done
# What the driver of a GPU needs, too, once one of these programs loads it.
for lib in libm.so.6 libdl.so.2 libpthread.so.0 librt.so.1; do
	install -m 755 "$("${CC:-gcc}" -print-file-name=$lib)" "$out/lib/$lib"
done
[ ! -e build/bin/criu-populate ] || add_program build/bin/criu-populate
# Linked by the Makefile, which knows its sources; the benchmark looks for it among the others.
add_program build/progs/stages
ln -s ../bin/stages "$out/progs/stages"
strip --strip-unneeded "$out"/lib/*
# After strip, which would take from a plugin what CRIU looks up in it.
install -m 755 build/lib/libckfast-cuda.so "$out/lib/"
install -m 755 -D build/lib/criu/ckfast_cuda_plugin.so "$out/lib/criu/ckfast_cuda_plugin.so"
install -m 755 -D build/lib/criu-stock/cuda_plugin.so "$out/lib/criu-stock/cuda_plugin.so"
install -m 755 build/progs/cudaprog build/stub/cushare "$out/progs/"
install -m 644 tests/gpu/*.py "$out/gpu/"
install -m 755 tests/gpu/gpu.sh "$out/gpu.sh"
for name in bench_mem pretouch; do
	add_static "tests/progs/$name.c"
done
add_static tests/bench/bare.c -luring
install -m 644 tests/bench/*.py "$out/bench/"
install -m 644 -D -t "$out/bench/servers" tests/bench/servers/*
install -m 755 tests/bench/bench16.sh "$out/bench16.sh"
install -m 755 tests/bench/convert16.sh "$out/convert16.sh"
install -m 644 LICENSE "$out/LICENSE"
install -m 644 criu-patch/COPYING "$out/COPYING.criu"
git describe --always --dirty >"$out/COMMIT" 2>/dev/null || echo none >"$out/COMMIT"

mib=$(du -sm "$out" | cut -f 1)
[ "$mib" -le $max_mib ] || die "$out has $mib MiB, more than $max_mib"
for name in ckfast criu criu-stock; do
	env -i "$out/bin/$name" --version >/dev/null || die "$out/bin/$name does not run"
done
echo "$out: $mib MiB"

#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Builds build/asan-ubsan/bin/criu: the patched CRIU of build/bin/criu, with the sanitizers in what is ours in it. CRIU's
# own files have none: part of them runs without libc. Built again only when what it is made from has changed.
set -euo pipefail
cd "$(dirname "$0")/.."

root=$PWD
out=build/asan-ubsan
tree=$out/criu
lib=$out/libckfast.a
san=-fsanitize=address,undefined
# CRIU's own make must not see the settings of the make that runs this.
unset MAKEFLAGS MFLAGS MAKELEVEL

[ -e "$lib" ] || { echo "criu-sanitized: no $lib (make D=asan,ubsan)" >&2; exit 1; }
[ -L build/bin/criu ] || { echo "criu-sanitized: no build/bin/criu (make criu)" >&2; exit 1; }
patched=build/$(readlink build/bin/criu)
id=$(cat "$lib" "$patched/.built" "$0" | sha256sum)
if [ "$(cat "$tree/.sanitized" 2>/dev/null)" != "$id" ]; then
	echo "criu: building ${patched##*/}, sanitized"
	rm -rf "$tree"
	# With its objects, so that only the glue is compiled.
	cp -a "$patched" "$tree"
	rm -f "$tree/criu/criu" "$tree/criu/fast-image.o"
	PKG_CONFIG_PATH=$root/$out/pkgconfig make -C "$tree" -j"$(nproc)" GMONLDOPT=$san \
		"CFLAGS_fast-image.o=$san -fno-sanitize-recover=undefined" criu >"$tree.log" 2>&1 </dev/null || {
		tail -n 30 "$tree.log" >&2
		exit 1
	}
	echo "$id" >"$tree/.sanitized"
fi
install -C -m 755 "$tree/criu/criu" "$out/bin/criu"

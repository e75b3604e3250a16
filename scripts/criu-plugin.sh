#!/bin/bash
# SPDX-License-Identifier: MIT
#
# criu-plugin.sh VERSION [KIND]: builds CRIU's plugin for GPUs against that patched CRIU:
# build/lib/criu-VERSION/ckfast_cuda_plugin.so. KIND, as D of make: from the library of that kind,
# in build/KIND/lib. It is built again only when what it is made from has changed.
#
# It is a library that CRIU loads: what it takes from CRIU is in the program, what it takes from
# ckfast it brings along, and keeps to itself.
set -euo pipefail
cd "$(dirname "$0")/.."

dir=build/criu-$1
built=build${2:+/$2}
out=$built/lib/criu-$1
# Of the tree itself, which pkg-config prefers to an installed ckfast.
export PKG_CONFIG_PATH=$PWD/$built/pkgconfig${PKG_CONFIG_PATH:+:$PKG_CONFIG_PATH}
flags=(-O2 -fstack-protector-strong -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=3)
[ "${2:-}" != cov ] || flags=(-O1 --coverage)

id=$(cat "$built/libckfast.a" criu-patch/plugin/*.[ch] include/*.h "$built"/pkgconfig/*.pc "$dir/.patched" "$0" |
	sha256sum)
[ "$(cat "$out/.built" 2>/dev/null)" != "$id" ] || exit 0
echo "criu: building the plugin for $1"
mkdir -p "$out"
# shellcheck disable=SC2046
"${CC:-gcc}" -std=gnu11 -g "${flags[@]}" -Wall -Wextra -Wno-unused-parameter -Wno-sign-compare -Werror \
	-shared -fPIC -D_GNU_SOURCE -Wl,-z,relro,-z,now \
	-iquote "$dir/include" -iquote "$dir/criu/include" -iquote "$dir/criu/arch/x86/include" -iquote "$dir" \
	$("$dir/compel/compel-host" includes) \
	-Wl,--exclude-libs,ALL -Wl,--gc-sections -Wl,--as-needed \
	-o "$out/ckfast_cuda_plugin.so" criu-patch/plugin/*.c \
	$(pkg-config --cflags --libs ckfast)
echo "$id" >"$out/.built"

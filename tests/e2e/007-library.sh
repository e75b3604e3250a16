#!/bin/bash
# SPDX-License-Identifier: MIT
# The library as others use it: what it exports, what make install puts where, and the programs of
# examples/, built from there by pkg-config, static and shared, on the image of a real process.
. "$(dirname "$0")/lib.sh"
need_ckfast
CC=${CC:-gcc}
P=$W/prefix

# The public names, and no other: each one more is a promise.
sed -n 's/^\t\(ckf_[a-z0-9_]*\);$/\1/p' "$ROOT/include/ckfast.map" >names
defined() {
	nm --defined-only "$@" | awk 'NF == 3 && $2 ~ /[A-Z]/ && $2 != "A" { sub("@.*", "", $3); print $3 }' | sort
}
diff names <(defined -D "$BUILD/libckfast.so.0") >&2 || fail "the shared library exports other names than the map"
diff names <(defined -g "$BUILD/libckfast.a") >&2 || fail "the static library has other global names than the map"
readelf -d "$BUILD/libckfast.so.0" | grep -q 'SONAME.*\[libckfast.so.0\]' || fail "not the name libckfast.so.0"

installed() {
	make -s -C "$ROOT" WERROR=1 V= "$@" >make.log 2>&1 || fail "make $*: $(tail make.log)"
}

# Installed elsewhere than where it is to run from, and taken away again.
installed install DESTDIR="$W/dest" PREFIX=/opt
for f in bin/ckfast include/ckfast.h include/ckfast_sink.h lib/libckfast.a lib/libckfast.so.0 lib/libckfast.so \
	lib/libckfast-cuda.so lib/pkgconfig/ckfast.pc share/man/man1/ckfast.1; do
	[ -e "dest/opt/$f" ] || fail "make install: no $f"
done
grep -q '^prefix=/opt$' dest/opt/lib/pkgconfig/ckfast.pc || fail "ckfast.pc knows another prefix"
installed uninstall DESTDIR="$W/dest" PREFIX=/opt
left=$(find dest ! -type d)
[ -z "$left" ] || fail "make uninstall leaves $left"

installed install-library PREFIX="$P"
export PKG_CONFIG_PATH=$P/lib/pkgconfig
[ "$(pkg-config --modversion ckfast)" = "$("$CKFAST" --version | sed 's/^ckfast \([^,]*\),.*/\1/')" ] ||
	fail "pkg-config has version $(pkg-config --modversion ckfast)"

# The header alone, in the strictest C, and in C++.
for header in ckfast.h ckfast_sink.h; do
	echo "#include <$header>" >alone.c
	# shellcheck disable=SC2046
	"$CC" -std=c11 -pedantic -Wall -Wextra -Werror -fsyntax-only $(pkg-config --cflags ckfast) alone.c ||
		fail "$header does not compile alone"
	! command -v g++ >/dev/null ||
		g++ -x c++ -std=c++11 -pedantic -Wall -Wextra -Werror -fsyntax-only $(pkg-config --cflags ckfast) alone.c ||
		fail "$header does not compile as C++"
done

# A linker takes what it finds first.
mkdir static
cp "$P/lib/libckfast.a" static/
for example in list restore; do
	"$CC" -std=c11 -D_DEFAULT_SOURCE -Wall -Wextra -Werror -o $example "$ROOT/examples/$example.c" \
		$(pkg-config --cflags --libs ckfast) || fail "$example is not built"
	"$CC" -std=c11 -D_DEFAULT_SOURCE -Wall -Wextra -Werror -Lstatic -o $example-static "$ROOT/examples/$example.c" \
		$(pkg-config --cflags --libs --static ckfast) || fail "$example is not built with the static library"
	readelf -d $example | grep -q 'NEEDED.*libckfast.so.0' || fail "$example does not need libckfast.so.0"
	! readelf -d $example-static | grep -q 'NEEDED.*libckfast' || fail "$example-static needs libckfast.so.0"
done
export LD_LIBRARY_PATH=$P/lib

# same PROGRAM PID: it prints the pages of the task as they are in the dump.
same() {
	./"$1" "$D/fast" "$2" | cmp - "$D/dump/pages-1.img" || fail "$1: not the memory of the process"
	! ./"$1" "$D/fast" $(($2 + 1)) 2>err || fail "$1: restores a process that is not there"
	grep -q 'no task' err || fail "$1: $(cat err)"
}

examples() {
	local kind
	start_ready "$PROGS/bigproc" . 16 mixed
	dump "$PID" "$D/dump"
	[ -e "$D/dump/pages-1.img" ] || fail "no pages-1.img"
	convert "$D/dump" "$D/fast"
	for kind in "" -static; do
		./list$kind "$D/fast" >"$D/list" || fail "list$kind: exit code $?"
		grep -q "^task $PID: $(($(stat -c %s "$D/dump/pages-1.img"))) bytes in " "$D/list" ||
			fail "list$kind: $(cat "$D/list")"
		same restore$kind "$PID"
	done
}

each_version examples

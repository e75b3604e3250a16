#!/bin/bash
# SPDX-License-Identifier: MIT
# The library as others use it: what it exports, what make install puts where and how that is
# hardened, and the programs of examples/, built from there by pkg-config, static and shared, on the
# image of a real process.
. "$(dirname "$0")/lib.sh"
need_ckfast
CC=${CC:-gcc}
P=$W/prefix

# The public names, and no other: each one more is a promise.
sed -n 's/^\t\(ckf_[a-z0-9_]*\);$/\1/p' "$ROOT/include/ckfast.map" >names
defined() {
	nm --defined-only "$@" | sed -n 's/^[0-9a-f]* [B-Z] \([^@]*\).*/\1/p' | sort
}
diff names <(defined -D "$BUILD/libckfast.so.0") >&2 || fail "the shared library has other names"
diff names <(defined -g "$BUILD/libckfast.a") >&2 || fail "the static library has other names"
readelf -d "$BUILD/libckfast.so.0" | grep -q 'SONAME.*\[libckfast.so.0\]' || fail "another soname"

# A program that was built with the released library works with this one; it would not if a function
# were gone, had another parameter, or if a field were elsewhere.
if command -v abidiff >/dev/null; then
	abi() {
		"$ROOT/scripts/abi.sh" check "$BUILD/libckfast.so.0" "$@" >abi.log 2>&1
	}
	abi || fail "another ABI: $(cat abi.log)"
	for edit in 's/ckf_format_version/ckf_another_name/' \
		"/function-decl name='ckf_error_exit_code'/,/<.function-decl>/s|<parameter.*|&\n&|" \
		"/class-decl name='ckf_op_info'/,/<.class-decl>/s/offset-in-bits='64'/offset-in-bits='72'/"; do
		sed "$edit" "$ROOT/tests/abi/libckfast.so.0.abi" >released
		! cmp -s released "$ROOT/tests/abi/libckfast.so.0.abi" || fail "$edit: nothing to edit"
		! abi "$W/released" || fail "$edit: no difference to the ABI was found"
	done
fi

installed() {
	make -s -C "$ROOT" WERROR=1 V= "$@" >make.log 2>&1 || fail "make $*: $(tail make.log)"
}

# Installed elsewhere than where it is to run from, and taken away again. What others have there stays.
mkdir -p dest/opt/bin dest/opt/lib
touch dest/opt/bin/other dest/opt/lib/other
installed install DESTDIR="$W/dest" PREFIX=/opt
for f in bin/ckfast include/ckfast.h include/ckfast_needs.h include/ckfast_sink.h lib/libckfast.a lib/libckfast.so.0 \
	lib/libckfast.so lib/libckfast-cuda.so lib/pkgconfig/ckfast.pc share/man/man1/ckfast.1 \
	lib/ckfast/ckfast-convert-hook; do
	[ -e "dest/opt/$f" ] || fail "make install: no $f"
done
! grep -rq '@BINDIR@' dest/opt/lib || fail "make install: @BINDIR@ is left"
grep -q '^prefix=/opt$' dest/opt/lib/pkgconfig/ckfast.pc || fail "ckfast.pc knows another prefix"

# hardened FILE: relocations are done and read-only before main(), the stack holds no code and is
# guarded, calls of libc check the sizes of buffers.
hardened() {
	local dynamic segments symbols
	# Not by pipes: grep -q ends at the first match, and what it reads from then fails.
	dynamic=$(readelf -dW "dest/opt/$1")
	segments=$(readelf -lW "dest/opt/$1")
	symbols=$(nm -D --undefined-only "dest/opt/$1")
	grep -q BIND_NOW <<<"$dynamic" || fail "$1: binds lazily"
	grep -q GNU_RELRO <<<"$segments" || fail "$1: no relro"
	grep -Eq 'GNU_STACK.* RW ' <<<"$segments" || fail "$1: an executable stack"
	grep -q __stack_chk_fail <<<"$symbols" || fail "$1: no stack protector"
	grep -Eq '__(snprintf|memcpy)_chk' <<<"$symbols" || fail "$1: no _FORTIFY_SOURCE"
}
for f in bin/ckfast lib/libckfast.so.0 lib/libckfast-cuda.so; do
	hardened $f
done
grep -q 'Flags:.* PIE' <<<"$(readelf -dW dest/opt/bin/ckfast)" || fail "bin/ckfast: no PIE"
grep -q __stack_chk_fail <<<"$(nm --undefined-only dest/opt/lib/libckfast.a)" ||
	fail "libckfast.a: no stack protector"

# gone DIR: nothing of ckfast is left there.
gone() {
	local left
	left=$(find "$1" ! -type d ! -name other -o -path '*ckfast*')
	[ -z "$left" ] || fail "make uninstall leaves $left"
}
installed uninstall DESTDIR="$W/dest" PREFIX=/opt
gone dest/opt
[ -e dest/opt/bin/other ] && [ -e dest/opt/lib/other ] || fail "make uninstall removes what is not its own"

# The same where the folders are those of a distribution, with CRIU.
places=(DESTDIR="$W/dest2" PREFIX=/usr LIBDIR=/usr/lib64 AGENT_DIR=/usr/lib/ckfast
	PLUGIN_DIR=/usr/lib/criu ZSH_COMPLETIONS=/usr/share/zsh/vendor-completions)
installed install "${places[@]}"
[ "$(dest2/usr/bin/ckfast run --env | sed -n 's/^LD_PRELOAD=//p')" = "$W/dest2/usr/lib/ckfast/libckfast-cuda.so" ] ||
	fail "ckfast run does not find the agent"
grep -q '^libdir=/usr/lib64$' dest2/usr/lib64/pkgconfig/ckfast.pc || fail "ckfast.pc knows another libdir"
if [ -x "$BUILD/bin/criu" ]; then
	installed install-criu "${places[@]}"
	dest2/usr/sbin/criu --version | grep -q ckfast || fail "make install-criu: another criu"
	for f in lib/criu/ckfast_cuda_plugin.so lib/ckfast/criu-stock/cuda_plugin.so sbin/criu-ns; do
		[ -e "dest2/usr/$f" ] || fail "make install-criu: no $f"
	done
	! command -v xmlto >/dev/null || [ -s dest2/usr/share/man/man8/criu.8 ] || fail "no criu(8)"
	[ "$(dest2/usr/bin/crit --version)" = "$("$BUILD/bin/criu" --version | sed -n 's/^Version: \([0-9.]*\).*/\1/p')" ] ||
		fail "crit is of version $(dest2/usr/bin/crit --version)"
	installed uninstall-criu "${places[@]}"
fi
installed uninstall "${places[@]}"
gone dest2

# The tree in place of an installed library, also where the tree is a copy of another one.
found=0
for word in $(PKG_CONFIG_PATH=$BUILD/pkgconfig pkg-config --cflags --libs ckfast); do
	if [ "${word#-I}/ckfast.h" -ef "$ROOT/include/ckfast.h" ] || [ "$word" -ef "$BUILD/libckfast.a" ]; then
		found=$((found + 1))
	fi
done
[ $found = 2 ] || fail "pkg-config does not find the library and the headers of the tree"
! grep -qF "$ROOT" "$BUILD/pkgconfig/ckfast-uninstalled.pc" || fail "ckfast-uninstalled.pc names the place of the tree"

installed install-library PREFIX="$P"
export PKG_CONFIG_PATH=$P/lib/pkgconfig
[ "$(pkg-config --modversion ckfast)" = "$("$CKFAST" --version | sed 's/^ckfast \([^,]*\),.*/\1/')" ] ||
	fail "pkg-config has version $(pkg-config --modversion ckfast)"

# The headers alone, in the strictest C, and in C++.
strict=(-pedantic -Wall -Wextra -Werror)
alone() {
	echo "#include <$1>" >alone.c
	"${@:2}" "${strict[@]}" -fsyntax-only $(pkg-config --cflags ckfast) alone.c ||
		fail "$1 does not compile alone by ${*:2}"
}
for header in ckfast.h ckfast_needs.h ckfast_sink.h; do
	alone $header "$CC" -std=c11
	! command -v g++ >/dev/null || alone $header g++ -x c++ -std=c++11
done

# build NAME EXAMPLE OPTIONS…
build() {
	"$CC" -std=c11 -D_DEFAULT_SOURCE "${strict[@]}" -o "$1" "$ROOT/examples/$2.c" "${@:3}" ||
		fail "$1 is not built"
}
# A linker takes what it finds first.
mkdir static
cp "$P/lib/libckfast.a" static/
for example in list restore; do
	build $example $example $(pkg-config --cflags --libs ckfast)
	readelf -d $example | grep -q 'NEEDED.*libckfast.so.0' || fail "$example is not linked to it"
	build $example-static $example -Lstatic $(pkg-config --cflags --libs --static ckfast)
	! readelf -d $example-static | grep -q 'NEEDED.*libckfast' || fail "$example-static is shared"
done
export LD_LIBRARY_PATH=$P/lib

# same PROGRAM PID: it prints the pages of the task as they are in the dump.
same() {
	local args
	./"$1" "$D/fast" "$2" | cmp - "$D/dump/pages-1.img" || fail "$1: not the memory of the process"
	! ./"$1" "$D/fast" $(($2 + 1)) 2>err || fail "$1: restores a process that is not there"
	grep -q 'no task' err || fail "$1: $(cat err)"
	for args in "" "$D/fast" "$D/not-there $2"; do
		! ./"$1" $args 2>err || fail "$1 $args: succeeds"
		grep -q 'want the directory of an image' err || fail "$1 $args: $(cat err)"
	done
	! ./"$1" "$D/fast" "$2" >/dev/full 2>err || fail "$1: a full disk is a success"
	grep -q 'cannot write' err || fail "$1: $(cat err)"
}

examples() {
	local kind
	start_ready "$PROGS/bigproc" . 16 mixed
	dump "$PID" "$D/dump"
	[ -e "$D/dump/pages-1.img" ] || fail "no pages-1.img"
	convert "$D/dump" "$D/fast"
	for kind in "" -static; do
		./list$kind "$D/fast" >"$D/list" || fail "list$kind: exit code $?"
		grep -q "^task $PID: $(stat -c %s "$D/dump/pages-1.img") bytes in " "$D/list" ||
			fail "list$kind: $(cat "$D/list")"
		same restore$kind "$PID"
	done
}

each_version examples

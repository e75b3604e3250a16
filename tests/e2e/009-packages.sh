#!/bin/bash
# SPDX-License-Identifier: MIT
#
# What the descriptions of packages say agrees with the tree, and where packages are built (make deb),
# they are what is described. tests/packages/ installs them.
. "$(dirname "$0")/lib.sh"
DEB=$ROOT/debian

same_lists() {
	diff "$2" "$3" >lists.diff || fail "$1: $(cat lists.diff)"
}

# Versions.
version=$(sed -n 's/^VERSION := //p' "$ROOT/Makefile")
[ "$(sed -n '1s/^ckfast (\(.*\)-1) .*/\1/p' "$DEB/changelog")" = "$version" ] ||
	fail "debian/changelog is not at version $version"
[ "$(sed -n 's/^Version: *//p' "$ROOT/packaging/ckfast.spec")" = "$version" ] ||
	fail "packaging/ckfast.spec is not at version $version"
for f in "$ROOT"/include/*.h; do
	grep -q "^%{_includedir}/${f##*/}$" "$ROOT/packaging/ckfast.spec" ||
		fail "packaging/ckfast.spec leaves out include/${f##*/}"
done
for unit in $(sed -n 's/^UNITS := //p' "$ROOT/Makefile"); do
	grep -q "^%{_prefix}/lib/systemd/system/$unit$" "$ROOT/packaging/ckfast.spec" ||
		fail "packaging/ckfast.spec leaves out $unit"
	grep -q "^debian/ckfast.$unit$" "$DEB/clean" || fail "debian/clean leaves out $unit"
	grep -q " stop .*$unit" "$DEB/ckfast.prerm" || fail "debian/ckfast.prerm does not stop $unit"
	for when in post preun 'postun(_with_restart)?'; do
		grep -qE "^%systemd_$when .*\b$unit\b" "$ROOT/packaging/ckfast.spec" ||
			fail "packaging/ckfast.spec: %systemd_$when leaves out $unit"
	done
done

# Packages are built with what the Makefile and deps.sh name. Left out is what build-essential has.
modules=$(sed -n 's/^\(LIB\|CONVERT\)_PACKAGES := \($(LIB_PACKAGES)\)\?//p' "$ROOT/Makefile")
for module in $modules; do
	grep -q "^BuildRequires:.*pkgconfig($module)" "$ROOT/packaging/ckfast.spec" ||
		fail "packaging/ckfast.spec: BuildRequires leaves out $module"
done
sed -n '/^Build-Depends:/,/^Standards-Version:/s/^\(Build-Depends:\)\? *\([a-z0-9.+-]*\).*/\2/p' "$DEB/control" |
	sort >required
sed -n '/^\(build\|criu\)=(/,/)/p' "$ROOT/scripts/deps.sh" | sed 's/.*=(//; s/)//; s/pkg-config/pkgconf/' |
	xargs -n 1 | grep -vxE 'gcc|make|libc6-dev|patch|xz-utils' | sort >wanted
missing=$(comm -13 required wanted)
[ -z "$missing" ] || fail "debian/control: Build-Depends leaves out $missing"

# Symbols, none of which is newer than the library.
sed -n 's/^\t\(ckf_[a-z0-9_]*\);$/\1/p' "$ROOT/include/ckfast.map" >exported
sed -n 's/^ \(ckf_[a-z0-9_]*\)@CKFAST_0 [0-9.]*$/\1/p' "$DEB/libckfast0.symbols" >symbols
same_lists "debian/libckfast0.symbols is not include/ckfast.map" exported symbols
for since in $(sed -n 's/^ .* //p' "$DEB/libckfast0.symbols" | sort -u); do
	[ "$(printf '%s\n' "$since" "$version" | sort -V | tail -n 1)" = "$version" ] ||
		fail "debian/libckfast0.symbols: $since is newer than $version"
done

# Each package of the control file has its files, and no other has.
sed -n 's/^Package: //p' "$DEB/control" | sort >packages
(cd "$DEB" && printf '%s\n' *.install) | sed 's/\.install$//' | sort >with_files
same_lists "packages and debian/*.install" packages with_files
sed -n 's/^ *dpkg --purge //p' "$ROOT/docs/INSTALL.md" | xargs -n 1 | sort >purged
same_lists "packages and what docs/INSTALL.md removes" packages purged

# The last line that a failed build shows is its first error.
printf '%s\n' 'cc -c a.c' 'a.c:3:1: error: no x' 'b.c:4:1: error: no y' 'make: *** [a.o] Error 1' \
	'dpkg-buildpackage: error: debian/rules binary' >build.log
said=$(. "$ROOT/scripts/failed.sh" && show_failure deb build.log 2>&1 | tail -n 1)
[ "$said" = "deb: failed: a.c:3:1: error: no x" ] || fail "a failed build ends in: $said"
for doc in $(cat "$DEB"/*.docs); do
	[ -e "$ROOT/$doc" ] || fail "debian/*.docs: there is no $doc"
done

built=$BUILD/deb
if [ ! -e "$built/ckfast_$version-1_amd64.deb" ]; then
	echo "no packages of this version in build/deb: only their descriptions were tested"
	exit 0
fi

field() {
	dpkg-deb -f "$built/$1_$version-1_amd64.deb" "$2"
}
for package in $(cat packages); do
	[ "$(field "$package" Package)" = "$package" ] || fail "$package is not built"
	[ "$(field "$package" Version)" = "$version-1" ] || fail "$package: $(field "$package" Version)"
done
field ckfast-criu Provides | grep -qx 'criu (= [0-9.]*)' || fail "ckfast-criu does not provide criu"
field ckfast-cuda Depends | grep -q "ckfast-criu (= $version-1)" || fail "ckfast-cuda does with another CRIU"
field libckfast-dev Depends | grep -q "libckfast0 (= $version-1)" || fail "libckfast-dev does with another library"

# Units that run go on with the new version after an upgrade.
dpkg-deb --ctrl-tarfile "$built/ckfast_$version-1_amd64.deb" | tar -xf - --one-top-level=ckfast
! grep -qs 'deb-systemd-invoke.*stop' ckfast/preinst || fail "an upgrade stops units"
for unit in ckfast-gpud.service ckfast-watch.service; do
	grep -q "deb-systemd-invoke try-restart.*'$unit'" ckfast/postinst ||
		fail "an upgrade does not restart $unit"
done

# ckfast-criu has all diverted that is not in a folder of its own.
dpkg-deb --ctrl-tarfile "$built/ckfast-criu_$version-1_amd64.deb" | tar -xf - ./preinst ./postrm
dpkg-deb -c "$built/ckfast-criu_$version-1_amd64.deb" | sed -n 's|^-.* \./|/|p' |
	grep -vE '^/usr/(lib/ckfast|share/doc/ckfast-criu)/' | sort >shipped
for script in preinst postrm; do
	sed -n 's/.*for file in \(.*\); do/\1/p' $script | tr ' ' '\n' | sort >diverted
	same_lists "$script of ckfast-criu diverts" shipped diverted
done

#!/bin/bash
# SPDX-License-Identifier: MIT
#
# criu-install.sh: installs build/bin/criu below $DESTDIR$PREFIX, with what Debian's build of CRIU has
# beside it: the manual pages, crit with its Python modules, criu-ns, and the script for autofs.
# Also the two plugins for NVIDIA GPUs, of which CRIU may load only one: ours in PLUGIN_DIR, CRIU's
# own in lib/ckfast/criu-stock.
set -euo pipefail
cd "$(dirname "$0")/.."

prefix=${PREFIX:-/usr/local}
to=${DESTDIR:-}$prefix
plugins=${DESTDIR:-}${PLUGIN_DIR:-$prefix/lib/ckfast/criu}
root=$PWD
tree=build/$(readlink build/bin/criu)
pages=(criu.8 crit.1 criu-ns.1)
# CRIU's own make must not see the settings of the make that runs this.
unset MAKEFLAGS MFLAGS MAKELEVEL CRIU_VERSION PREFIX DESTDIR
export PKG_CONFIG_PATH=$root/build/pkgconfig${PKG_CONFIG_PATH:+:$PKG_CONFIG_PATH}

# make_quietly WHAT ARGS…: shows the output only if it fails.
make_quietly() {
	local what=$1
	shift
	make "$@" >"$tree.install.log" 2>&1 </dev/null && return
	tail -n 30 "$tree.install.log" >&2
	echo "criu-install: $what cannot be made; the whole log is $tree.install.log" >&2
	return 1
}

install_program() {
	install -m 755 -D build/bin/criu "$to/sbin/criu"
	install -m 755 -D "$tree/scripts/criu-ns" "$to/sbin/criu-ns"
	# The interpreter of the distribution, which has the modules of its packages.
	sed -i '1s|.*|#!/usr/bin/python3|' "$to/sbin/criu-ns"
	install -m 755 -D "$tree/scripts/systemd-autofs-restart.sh" \
		"$to/libexec/criu/scripts/systemd-autofs-restart.sh"
}

install_plugins() {
	install -m 755 -D build/lib/criu/ckfast_cuda_plugin.so "$plugins/ckfast_cuda_plugin.so"
	install -m 755 -D build/lib/criu-stock/cuda_plugin.so "$to/lib/ckfast/criu-stock/cuda_plugin.so"
}

install_pages() {
	local page
	if ! command -v asciidoc >/dev/null || ! command -v xmlto >/dev/null; then
		echo "criu-install: no asciidoc or no xmlto: without CRIU's manual pages" >&2
		return
	fi
	# asciidoc may start the first python3 in PATH, which has to be the one that it was installed for.
	# What CRIU has xmlto put into pages for better PostScript calls macros that groff does not have.
	PATH=$(dirname "$(command -v asciidoc)"):$PATH \
		make_quietly "CRIU's manual pages" -C "$tree/Documentation" \
		XMLTO="xmlto --stringparam man.output.better.ps.enabled=0" "${pages[@]}"
	for page in "${pages[@]}"; do
		install -m 644 -D "$tree/Documentation/$page" "$to/share/man/man${page##*.}/$page"
	done
}

# The modules lie apart from those of other packages, which may be of another version of CRIU.
install_crit() {
	local modules=$to/lib/ckfast/python file
	make_quietly crit -C "$tree" -j"$(nproc)" crit
	rm -rf "$modules"
	while read -r file; do
		install -m 644 -D "$file" "$modules/${file#"$tree"/*/}"
	done < <(find "$tree/lib/pycriu" "$tree/crit/crit" -name '*.py')
	install -d "$to/bin"
	# With -B, no compiled modules are written that an uninstall would leave.
	cat >"$to/bin/crit" <<-'END'
		#!/usr/bin/python3 -B
		import os
		import sys

		prefix = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
		sys.path.insert(0, os.path.join(prefix, "lib/ckfast/python"))

		from crit.__main__ import main

		sys.exit(main())
	END
	chmod 755 "$to/bin/crit"
}

install_program
install_plugins
install_pages
install_crit

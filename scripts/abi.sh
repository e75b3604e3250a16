#!/bin/bash
# SPDX-License-Identifier: MIT
#
# abi.sh check LIBRARY [BASELINE]: fails where a program that was built with the released libckfast
#	would not work with LIBRARY: a function is gone or takes something else, a field is elsewhere.
#	New functions break nothing, nor do new fields at the end of a struct that begins with its size.
# abi.sh save LIBRARY: at a release, makes what later libraries are compared with
#
# Needs abigail-tools, and a library with debug information.
set -euo pipefail
cd "$(dirname "$0")/.."

baseline=${3:-tests/abi/libckfast.so.0.abi}

if ! command -v abidw >/dev/null; then
	echo "abi: abidw and abidiff are missing (Debian: abigail-tools)" >&2
	exit 77
fi
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

# Only what the public headers show, and nothing of this machine.
abidw --headers-dir include --drop-private-types --drop-undefined-syms --exported-interfaces-only \
	--no-corpus-path --no-comp-dir-path --no-show-locs --no-elf-needed --no-architecture \
	--no-parameter-names --type-id-style hash --out-file "$tmp/now" "$2"

# as_long_as BASELINE NOW: takes from structs with a size what they have grown by.
as_long_as() {
	/usr/bin/python3 - "$@" <<-'END'
		import sys
		import xml.etree.ElementTree as ET

		def members(struct):
		    return struct.findall('data-member')

		old, new = map(ET.parse, sys.argv[1:])
		known = {s.get('name'): s for s in old.iter('class-decl') if members(s)}
		for struct in new.iter('class-decl'):
		    before, now = known.get(struct.get('name')), members(struct)
		    if before is None or not now or now[0].find('var-decl').get('name') != 'size':
		        continue
		    for member in now[len(members(before)):]:
		        struct.remove(member)
		    if int(struct.get('size-in-bits')) > int(before.get('size-in-bits')):
		        struct.set('size-in-bits', before.get('size-in-bits'))
		new.write(sys.argv[2])
	END
}

if [ "$1" = save ]; then
	cp "$tmp/now" "$baseline"
	exit
fi
as_long_as "$baseline" "$tmp/now"
abidiff --no-added-syms "$baseline" "$tmp/now" || {
	echo "abi: programs that use libckfast would break, see above" >&2
	exit 1
}

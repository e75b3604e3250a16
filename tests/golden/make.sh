#!/bin/bash
# SPDX-License-Identifier: MIT
#
# make.sh: makes the golden images that are not there yet, and prints what tests/unit/test_golden.c
# has to expect of them. One image for each version of the format, kept as it is for ever: images of
# that version are out there, and every later ckfast has to read them.
set -euo pipefail
cd "$(dirname "$0")"

for version in 1.0 1.1 1.2 1.3 1.4 1.5 1.6 1.7; do
	if [ -e "v$version" ]; then
		echo "v$version is there already: it is not made again" >&2
	else
		/usr/bin/python3 "v${version/./_}.py" "v$version"
	fi
done

#!/bin/bash
# SPDX-License-Identifier: MIT
#
# source-archive.sh: writes the working tree to stdout as a source archive, .tar.gz, for packages. Without
# debian/, which is an archive of its own in Debian's source packages. The same files give the same
# archive: it has the time of the newest entry of debian/changelog.
set -euo pipefail
cd "$(dirname "$0")/.."

version=$(sed -n 's/^VERSION := //p' Makefile)
when=$(sed -n '/^ -- /{s/.*>  //p;q}' debian/changelog)

# Without what is built. A tree out of an archive has no git.
files() {
	if [ -e .git ]; then
		git ls-files -z --cached --others --exclude-standard
	else
		find . -path ./build -prune -o ! -type d -printf '%P\0'
	fi
}

files | grep -zv '^debian/' | sort -z | while IFS= read -r -d '' file; do
	[ ! -e "$file" ] || printf '%s\0' "$file"
done | tar --create --null --files-from=- --transform="s|^|ckfast-$version/|" --mtime="$when" \
	--owner=0 --group=0 --numeric-owner --mode=go=rX,u+w | gzip -9n

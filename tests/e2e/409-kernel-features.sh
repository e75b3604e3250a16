#!/bin/bash
# SPDX-License-Identifier: MIT
# What CRIU has found out about the kernel is kept in /run, also where that is no tmpfs: then for this boot alone.
# A file that is not of this boot, or not whole, or no file, counts for nothing and is replaced.
. "$(dirname "$0")/lib.sh"

# looks CRIU KEPT|ASKS WHAT: starts it with $D/run in the place of /run; it must have found what was kept, or not.
looks() {
	local found=ASKS
	rm -f "$D/check.log"
	timeout 60 unshare -m bash -c 'mount --bind "$0" /run && exec "$@"' "$D/run" \
		"$1" check -v4 -o "$D/check.log" >/dev/null 2>&1 || [ $? != 124 ] || fail "$3: it hangs"
	[ -s "$D/check.log" ] || fail "$3: it does not start"
	! grep -q 'Loaded kdat cache' "$D/check.log" || found=KEPT
	[ $found = "$2" ] || fail "$3: $found, want $2"
}

# replaced WHAT [FILE]: this is no reason to believe anything; after it all is as it should be, and only FILE is there, too.
replaced() {
	looks "$CRIU" ASKS "$1"
	looks "$CRIU" KEPT "after $1"
	[ "$(stat -c '%F %a' "$D/run/criu.kdat.boot")" = "regular file 600" ] || fail "$1: not replaced"
	[ "$(cd "$D/run" && echo criu*)" = "criu.kdat.boot${2:+ $2}" ] || fail "$1: left: $(ls "$D/run")"
}

keeps() {
	local kept=$D/run/criu.kdat.boot
	mkdir "$D/run"
	[ "$(stat -f -c %T "$D/run")" != tmpfs ] || skip "$D is on a tmpfs"
	replaced "nothing"
	printf 0 | dd of="$kept" conv=notrunc status=none bs=1 seek=14 # the version, which is 4
	replaced "another boot"
	truncate -s 100 "$kept"
	replaced "a part of the file"
	: >"$kept"
	replaced "an empty file"
	mv "$kept" "$D/good"
	ln -s "$D/good" "$kept"
	replaced "a link"
	rm "$kept"
	mkfifo "$kept"
	replaced "a pipe"
	rm "$kept"
	looks "$CRIU_STOCK" ASKS "stock CRIU"
	replaced "what stock CRIU leaves" criu.kdat.tmp
	looks "$CRIU_STOCK" ASKS "stock CRIU, which does not know the file"
}

# The file of a tmpfs is CRIU's own, as it was.
leaves_tmpfs() {
	rm -rf "$D/run"
	mkdir "$D/run"
	mount -t tmpfs -o mode=755 tmpfs "$D/run"
	trap 'umount "$D/run"' EXIT
	looks "$CRIU" ASKS "an empty tmpfs"
	looks "$CRIU" KEPT "a tmpfs"
	looks "$CRIU_STOCK" ASKS "a tmpfs: that of another program"
	looks "$CRIU_STOCK" KEPT "a tmpfs, of its own"
	[ ! -e "$D/run/criu.kdat.boot" ] || fail "a file for this boot on a tmpfs"
}

restores() {
	rm -rf "$D"/*
	keeps
	(leaves_tmpfs)
}

every_version
each_version restores

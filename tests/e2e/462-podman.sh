#!/bin/bash
# SPDX-License-Identifier: MIT
# A container that podman has exported and imports again from the fast archive, with our criu in PATH;
# and from the archive that is made again, with the stock one.
. "$(dirname "$0")/lib.sh"
. "$ROOT/tests/e2e/engine.sh"

need_engine podman runc

count() {
	pod exec "$1" /bin/busybox cat /count || fail "podman exec: $(cat "$D/pod.out")"
	cat "$D/pod.out"
}

# imported NAME ARCHIVE CRIU: runs on, from where it was.
imported() {
	local before
	before=$(cat "$D/counted")
	use "$3"
	need_pod container restore --keep --import "$2" --name "$1"
	wait_for 10 counts_on "$1" "$before" || fail "$1 does not count on from $before"
	# The engine's own limits, when it stops, are not what is tested.
	need_pod rm -t 0 -f "$1"
}

start_podman
use criu-stock
pod container checkpoint --export "$D/x.tar" first ||
	skip "podman container checkpoint: $(tail -n 1 "$D/pod.out")"
need_pod rm -f first
mkdir "$D/rootfs"
case $(head -c 4 "$D/x.tar" | od -An -tx1) in
*"28 b5 2f fd"*) zstd -q -d <"$D/x.tar" >"$D/plain.tar" ;;
*) gzip -d <"$D/x.tar" >"$D/plain.tar" ;;
esac
tar -C "$D/rootfs" -xf "$D/plain.tar" rootfs-diff.tar
tar -C "$D/rootfs" -xf "$D/rootfs/rootfs-diff.tar"
cp "$D/rootfs/count" "$D/counted"

"$CKFAST" convert "$D/x.tar" "$D/y.tar" >"$D/out" 2>&1 || fail "convert: $(cat "$D/out")"
"$CKFAST" verify -q "$D/y.tar"
imported fast "$D/y.tar" criu
"$CKFAST" extract -q "$D/y.tar" "$D/z.tar"
cmp "$D/plain.tar" "$D/z.tar" || fail "not the archive that it was"
imported stock "$D/z.tar" criu-stock

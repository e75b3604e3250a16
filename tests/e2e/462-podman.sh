#!/bin/bash
# SPDX-License-Identifier: MIT
# A container that podman has exported and imports again from the fast archive, with our criu in PATH;
# and from the archive that is made again, with the stock one.
. "$(dirname "$0")/lib.sh"

need_ckfast
for program in podman runc; do
	command -v $program >/dev/null || skip "no $program"
done
busybox=$(command -v busybox) || skip "no busybox"
! ldd "$busybox" >/dev/null 2>&1 || skip "busybox is not static"
[ -x "$BUILD/bin/criu" ] && [ -x "$BUILD/bin/criu-stock" ] || skip "no patched CRIU in build/bin (make criu)"
D=$W
mkdir "$D/bin"
export PATH="$D/bin:$PATH"

pod() {
	podman --root "$D/store" --runroot "$D/run" --tmpdir "$D/tmp" --storage-driver vfs \
		--cgroup-manager cgroupfs --runtime runc --events-backend file "$@" >"$D/pod.out" 2>&1
}

need_pod() {
	pod "$@" || fail "podman $1 $2: $(tail -n 3 "$D/pod.out")"
}

# The program in the container counts the seconds in its own memory, and writes them to /count.
count() {
	pod exec "$1" /bin/busybox cat /count || fail "podman exec: $(cat "$D/pod.out")"
	cat "$D/pod.out"
}

# imported NAME ARCHIVE CRIU: runs on, from where it was.
imported() {
	local before
	before=$(cat "$D/counted")
	ln -sf "$3" "$D/bin/criu"
	need_pod container restore --keep --import "$2" --name "$1"
	wait_for 10 counts_on "$1" "$before" || fail "$1 does not count on from $before"
	# The engine's own limits, when it stops, are not what is tested.
	need_pod rm -t 0 -f "$1"
}

counts_on() {
	local now
	now=$(count "$1")
	[ "$now" -gt "$2" ] && [ "$now" -lt $(($2 + 60)) ]
}

start_container() {
	mkdir -p "$D/root/bin"
	cp "$busybox" "$D/root/bin/busybox"
	ln -s busybox "$D/root/bin/sh"
	tar -C "$D/root" -cf "$D/root.tar" .
	pod import "$D/root.tar" tiny:1 || skip "podman import: $(tail -n 1 "$D/pod.out")"
	# Limits that a caller without CAP_SYS_RESOURCE may set.
	pod run -d --name first --network none --ulimit nofile=1024:1024 --ulimit nproc=1000:1000 \
		--security-opt seccomp=unconfined tiny:1 /bin/sh -c \
		'i=1000; while :; do i=$((i+1)); echo $i >/count; /bin/busybox sleep 0.2; done' ||
		skip "podman run: $(tail -n 1 "$D/pod.out")"
	wait_for 10 pod exec first /bin/busybox test -s /count || skip "the container does not run"
}

start_container
ln -s "$BUILD/bin/criu-stock" "$D/bin/criu"
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
imported fast "$D/y.tar" "$BUILD/bin/criu"
"$CKFAST" extract -q "$D/y.tar" "$D/z.tar"
cmp "$D/plain.tar" "$D/z.tar" || fail "not the archive that it was"
imported stock "$D/z.tar" "$BUILD/bin/criu-stock"

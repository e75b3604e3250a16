#!/bin/bash
# SPDX-License-Identifier: MIT
# A container that containerd has checkpointed into an image: exported, converted, imported and restored with
# our criu in PATH; and, made again from that, with the stock one.
. "$(dirname "$0")/lib.sh"
. "$ROOT/tests/e2e/engine.sh"

need_engine containerd ctr runc
namespace=ckfast-$RANDOM
daemon=

# Its shims keep sockets and cgroups elsewhere.
end_containerd() {
	local status=$? name
	for name in first fast stock; do
		[ -z "$daemon" ] || end_container $name || true
	done
	if [ -n "$daemon" ]; then
		kill "$daemon" 2>/dev/null || true
		wait "$daemon" || true
	fi
	find /sys/fs/cgroup -depth -type d -path "*/$namespace*" -exec rmdir {} + 2>/dev/null || true
	end_engine $status
}
trap end_containerd EXIT

ctr() {
	command ctr -a "$W/sock" -n "$namespace" "$@" >"$D/ctr.out" 2>&1
}

need_ctr() {
	ctr "$@" || fail "ctr $1 $2: $(tail -n 3 "$D/ctr.out")"
}

no_task() {
	! ctr task ls -q || ! grep -qx "$1" "$D/ctr.out"
}

is_stopped() {
	ctr task ls && grep -Eq "^$1 .*STOPPED" "$D/ctr.out"
}

end_container() {
	if ! no_task "$1"; then
		ctr task kill -s 9 "$1" || true
		wait_for 20 is_stopped "$1" || true
		ctr task rm "$1" || true
	fi
	ctr container rm "$1"
}

start_containerd() {
	cat >"$D/config.toml" <<-END
		version = 2
		root = "$W/root-dir"
		state = "$W/state"
		disabled_plugins = ["io.containerd.grpc.v1.cri"]
		[grpc]
		address = "$W/sock"
	END
	containerd -c "$D/config.toml" >"$D/containerd.out" 2>&1 &
	daemon=$!
	wait_for 30 ctr version || skip "containerd does not run here: $(tail -n 1 "$D/containerd.out")"
}

count() {
	ctr task exec --exec-id "e$BASHPID" "$1" /bin/busybox cat /count && cat "$D/ctr.out"
}

# restored NAME ARCHIVE CRIU: the container counts on.
restored() {
	need_ctr image import --no-unpack "$2"
	use "$3"
	need_ctr container restore --live --rw "$1" checkpoint/first:1
	wait_for 20 counts_on "$1" "$before" || fail "$1 does not count on from $before"
	log=$(find "$W/root-dir" -path "*/$1/restore.log")
	cp "$log" "$D/$1.log"
	end_container "$1" || fail "$1 does not end: $(cat "$D/ctr.out")"
	need_ctr image rm checkpoint/first:1
}

make_root
"$PYTHON" "$ROOT/tests/e2e/layout.py" image "$D/image" "$D/root.tar" localhost/tiny:1
tar -C "$D/image" -cf "$D/image.tar" .
start_containerd
need_ctr image import --snapshotter native "$D/image.tar"
ctr run -d --snapshotter native --null-io localhost/tiny:1 first /bin/sh -c "$COUNT" ||
	skip "containerd cannot run a container here: $(tail -n 1 "$D/ctr.out")"
wait_for 20 counts_on first 1002 || fail "the container does not count"
before=$(cat "$D/ctr.out")
use criu-stock
ctr container checkpoint --image --rw --task first checkpoint/first:1 ||
	skip "ctr container checkpoint: $(tail -n 1 "$D/ctr.out")"
need_ctr image export --skip-manifest-json "$D/x.tar" checkpoint/first:1
end_container first || fail "first does not end: $(cat "$D/ctr.out")"
need_ctr image rm checkpoint/first:1

"$CKFAST" convert "$D/x.tar" "$D/y.tar" >"$D/out" 2>&1 || fail "convert: $(cat "$D/out")"
"$CKFAST" verify -q "$D/y.tar"
"$CKFAST" extract -q "$D/y.tar" "$D/z.tar"
for file in x y z; do
	tar -xf "$D/$file.tar" --one-top-level="$D/$file"
	[ -n "$("$PYTHON" "$ROOT/tests/e2e/layout.py" check "$D/$file")" ] || fail "$file.tar: no checkpoint"
done
diff -r "$D/x" "$D/z" || fail "not the layout that it was"
restored fast "$D/y.tar" criu
grep -q fast-image: "$D/fast.log" || fail "not restored from a fast image"
restored stock "$D/z.tar" criu-stock
! grep -q fast-image: "$D/stock.log" || fail "stock CRIU restores a fast image"

#!/bin/bash
# SPDX-License-Identifier: MIT
# A container that podman has checkpointed into an image: saved as a layout, converted, loaded and restored
# with our criu in PATH; and, made again from that, with the stock one.
. "$(dirname "$0")/lib.sh"
. "$ROOT/tests/e2e/engine.sh"

need_engine podman runc

count() {
	pod exec "$1" /bin/busybox cat /count && cat "$D/pod.out"
}

# annotations IMAGE: those of its manifest that tell of the checkpoint.
annotations() {
	need_pod inspect --format '{{json .Annotations}}' "$1"
	"$PYTHON" -c 'import json, sys
for key, value in sorted(json.load(sys.stdin).items()):
    if "checkpoint" in key:
        print(key, value)' <"$D/pod.out"
}

# loaded NAME ARCHIVE CRIU: the image has the annotations that it had, and its container counts on.
loaded() {
	pod rmi -f checkpoint:1 || true
	need_pod load -i "$2"
	annotations checkpoint:1 >"$D/after"
	diff "$D/annotations" "$D/after" || fail "$1: other annotations"
	use "$3"
	need_pod container restore --keep --name "$1" checkpoint:1
	wait_for 20 counts_on "$1" "$before" || fail "$1 does not count on from $before"
	find "$D/store" -name restore.log -exec cat {} + >"$D/$1.log"
	need_pod rm -t 0 -f "$1"
}

start_podman
use criu-stock
wait_for 20 counts_on first 1002 || fail "the container does not count"
before=$(cat "$D/pod.out")
pod container checkpoint --create-image checkpoint:1 first ||
	skip "podman container checkpoint --create-image: $(tail -n 1 "$D/pod.out")"
need_pod rm -f first
annotations checkpoint:1 >"$D/annotations"
grep -q '^io.podman.annotations.checkpoint.name first' "$D/annotations" || fail "podman has no annotations"

need_pod save --format oci-archive -o "$D/x.tar" checkpoint:1
need_pod save --format oci-dir -o "$D/x" checkpoint:1
for form in x x.tar; do
	"$CKFAST" convert "$D/$form" "$D/fast-$form" >"$D/out" 2>&1 || fail "convert: $(cat "$D/out")"
	"$CKFAST" verify -q "$D/fast-$form"
	"$CKFAST" extract -q "$D/fast-$form" "$D/back-$form"
done
for dir in fast-x back-x; do
	[ -n "$("$PYTHON" "$ROOT/tests/e2e/layout.py" check "$D/$dir")" ] || fail "$dir: no checkpoint"
done
# The layers came compressed; the configuration is the same blob again.
mkdir "$D/tar"
tar -C "$D/tar" -xf "$D/back-x.tar"
diff -r "$D/back-x" "$D/tar" || fail "of the archive, another layout than of the directory"
config=$("$PYTHON" -c 'import json, sys
top = sys.argv[1]
blob = lambda d: f"{top}/blobs/sha256/" + d["digest"].split(":")[1]
index = json.load(open(f"{top}/index.json"))
print(json.load(open(blob(index["manifests"][0])))["config"]["digest"].split(":")[1])' "$D/x")
cmp "$D/x/blobs/sha256/$config" "$D/back-x/blobs/sha256/$config" || fail "another configuration"

loaded fast "$D/fast-x.tar" criu
grep -q fast-image: "$D/fast.log" || fail "not restored from a fast image"
loaded stock "$D/back-x.tar" criu-stock
! grep -q fast-image: "$D/stock.log" || fail "stock CRIU restores a fast image"

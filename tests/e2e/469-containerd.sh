#!/bin/bash
# SPDX-License-Identifier: MIT
#
# containerd checkpoints a container into an image of its own. With the hook in CRIU's configuration
# that image holds a fast image, from which `ctr containers restore` restores.
. "$(dirname "$0")/lib.sh"
. "$ROOT/tests/e2e/bundle.sh"

need_programs containerd ctr runc
mkdir work
CGROUP=ckfast-containerd-$RANDOM

end_containerd() {
	local status=$?
	# Takes off what is mounted. The reaper ends all that runs.
	box task rm --force first second || true
	remove_cgroups "$CGROUP"
	at_exit $status
}
trap end_containerd EXIT

box() {
	timeout 60 ctr -a "$W/run/sock" -n test "$@" >ctr.out 2>&1
}

# Neither the directories nor the socket of the system's own.
start_containerd() {
	cat >config.toml <<-END
		version = 2
		root = "$W/root"
		state = "$W/run"
		disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.snapshotter.v1.btrfs",
		    "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.aufs"]
		[grpc]
		  address = "$W/run/sock"
	END
	containerd -c config.toml >containerd.out 2>&1 &
	wait_for 60 box version || fail "containerd does not answer: $(tail -n 3 containerd.out)"
}

# make_image FILE: with the root file system rootfs, as an archive of an OCI layout.
make_image() {
	"$PYTHON" - "$1" <<-'END'
		import hashlib, io, json, sys, tarfile
		out = tarfile.open(sys.argv[1], "w")
		def put(name, data):
		    info = tarfile.TarInfo(name)
		    info.size = len(data)
		    out.addfile(info, io.BytesIO(data))
		def blob(kind, data):
		    digest = hashlib.sha256(data).hexdigest()
		    put("blobs/sha256/" + digest, data)
		    return {"mediaType": "application/vnd.oci.image." + kind, "size": len(data),
		            "digest": "sha256:" + digest}
		def text(value):
		    return json.dumps(value).encode()
		rootfs = io.BytesIO()
		with tarfile.open(fileobj=rootfs, mode="w") as tar:
		    tar.add("rootfs", ".")
		layer = blob("layer.v1.tar", rootfs.getvalue())
		config = blob("config.v1+json", text({"architecture": "amd64", "os": "linux", "config": {},
		              "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]}}))
		manifest = blob("manifest.v1+json", text({"schemaVersion": 2, "config": config, "layers": [layer]}))
		manifest["annotations"] = {"io.containerd.image.name": "localhost/box:1"}
		put("index.json", text({"schemaVersion": 2, "manifests": [manifest]}))
		put("oci-layout", text({"imageLayoutVersion": "1.0.0"}))
		out.close()
	END
}

# pid_of CONTAINER: of its first process.
pid_of() {
	box task ls || fail "task ls: $(cat ctr.out)"
	awk -v name="$1" '$1 == name { print $2 }' ctr.out
}

start_containerd
make_root rootfs traces
make_image image.tar
make_hook
box image import --snapshotter native image.tar || fail "import: $(cat ctr.out)"
box run --detach --null-io --snapshotter native --cgroup "/$CGROUP" --memory-limit $MEMORY_LIMIT \
	--runc-root "$W/runc" --seccomp --annotation "org.criu.config=$W/criu.conf" \
	--mount "type=bind,src=$W/work,dst=/work,options=rbind:rw" \
	localhost/box:1 first /traces /work threads 16 ||
	skip "containerd cannot run a container here: $(tail -n 1 ctr.out)"
PID=$(pid_of first)
wait_for 60 all_wrote work ready "$PID" || fail "the container does not start"
container_facts "$PID" >facts

box container checkpoint --task --image --rw first localhost/checkpoint:1 || fail "checkpoint: $(cat ctr.out)"
box task rm --force first || fail "task rm: $(cat ctr.out)"
is_gone "$PID" || fail "the container is still there"
box container rm first || fail "container rm: $(cat ctr.out)"

box container restore --live --rw second localhost/checkpoint:1 ||
	fail "restore: $(cat ctr.out; find . -name restore.log -exec grep -a Error {} +)"
find . -name restore.log -exec grep -aq fast-image: {} + || fail "not restored from a fast image"
PID=$(pid_of second)
diff facts <(container_facts "$PID") >facts.diff || fail "not as it was: $(cat facts.diff)"
all_answer work "$PID"

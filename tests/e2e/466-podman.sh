#!/bin/bash
# SPDX-License-Identifier: MIT
#
# With the hook in CRIU's configuration, `podman container checkpoint` leaves a fast image, also in an
# archive, and `podman container restore` restores it. By runc: Debian's crun is built without CRIU.
. "$(dirname "$0")/lib.sh"
. "$ROOT/tests/e2e/bundle.sh"
need_programs podman runc

pod() {
	podman --root "$W/storage" --runroot "$W/run" --tmpdir "$W/tmp" --storage-driver vfs \
		--runtime runc --cgroup-manager cgroupfs "$@"
}

cgroups=ckfast-podman-$RANDOM

end_podman() {
	local status=$?
	pod rm -a -f -t 0 >/dev/null 2>&1 || true
	engines_end
	remove_cgroups "$cgroups"
	at_exit $status
}
trap end_podman EXIT

make_image() {
	make_root root bigproc
	tar -C root -c . | pod import - ckfast-test >podman.log 2>&1 ||
		skip "podman cannot import an image here: $(tail -n 1 podman.log)"
}

# runs NAME: the process in that container finds its memory as it was.
runs() {
	local report
	report=$(pod mount "$1")/work/report
	rm -f "$report"
	pod kill -s USR1 "$1" >/dev/null
	wait_for 20 test -e "$report" || fail "$1 does not answer"
	grep -q ^OK "$report" || fail "$1 says: $(cat "$report")"
}

is_ready() {
	[ -e "$(pod mount "$1")/work/ready" ]
}

checkpoint() {
	pod container checkpoint "$@" >podman.log 2>&1 || fail "checkpoint: $(cat podman.log)"
}

restore_container() {
	pod container restore --keep "$@" >podman.log 2>&1 || fail "restore: $(cat podman.log)"
	grep -raq 'fast-image:' storage --include=restore.log || fail "not restored from a fast image"
}

make_hook
make_image
# The limits: podman asks for more than some users may set.
pod run -d --name first --network none --ulimit nofile=1024:1024 --ulimit nproc=1024:1024 \
	--cgroup-parent "/$cgroups" --annotation "org.criu.config=$W/criu.conf" ckfast-test /bigproc /work 4 mixed >podman.log 2>&1 ||
	skip "podman cannot run a container here: $(tail -n 1 podman.log)"
wait_for 30 is_ready first || fail "the container does not start: $(cat podman.log)"

checkpoint first
images=$(echo storage/vfs-containers/*/userdata/checkpoint)
[ -e "$images/ckfast.idx" ] || fail "no fast image: $(ls "$images")"
"$CKFAST" verify -q "$images" || fail "verify"
restore_container first
runs first

checkpoint --export "$W/archive.tar.zst" first
tar -xf archive.tar.zst --one-top-level=archive
"$CKFAST" verify -q archive/checkpoint || fail "the archive has no fast image"
pod rm -f -t 0 first >/dev/null
restore_container --import "$W/archive.tar.zst" --name second
runs second

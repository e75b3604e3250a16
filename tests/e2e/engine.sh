# SPDX-License-Identifier: MIT
#
# What tests with container engines share. The program in the container counts in its own memory,
# five times a second, and writes the count to /count. CRIU is $D/bin/criu, a link that the test sets.
D=$W

end_engine() {
	local status=${1:-$?}
	engines_end
	at_exit $status
}
trap end_engine EXIT

# The engines and CRIU are there, and a busybox that needs nothing else. need_engine PROGRAM…
need_engine() {
	local program
	need_ckfast
	for program in "$@"; do
		command -v "$program" >/dev/null || skip "no $program"
	done
	busybox=$(command -v busybox) || skip "no busybox"
	! ldd "$busybox" >/dev/null 2>&1 || skip "busybox is not static"
	[ -x "$BUILD/bin/criu" ] && [ -x "$BUILD/bin/criu-stock" ] ||
		skip "no patched CRIU in build/bin (make criu)"
	mkdir "$D/bin"
	export PATH="$D/bin:$PATH"
}

COUNT='i=1000; while :; do i=$((i+1)); echo $i >/count; /bin/busybox sleep 0.2; done'

# make_root: the root directory of the container as $D/root.tar.
make_root() {
	mkdir -p "$D/root/bin"
	cp "$busybox" "$D/root/bin/busybox"
	ln -s busybox "$D/root/bin/sh"
	tar -C "$D/root" -cf "$D/root.tar" .
}

use() {
	ln -sfn "$BUILD/bin/$1" "$D/bin/criu"
}

# counts_on NAME BEFORE: NAME counts on from there. The test's count NAME says where it is.
counts_on() {
	local now
	now=$(count "$1") && [ -n "$now" ] && [ "$now" -gt "$2" ] && [ "$now" -lt $(($2 + 1000)) ]
}

pod() {
	podman --root "$D/store" --runroot "$D/run" --tmpdir "$D/tmp" --storage-driver vfs \
		--cgroup-manager cgroupfs --runtime runc --events-backend file "$@" >"$D/pod.out" 2>&1
}

need_pod() {
	pod "$@" || fail "podman $1 $2: $(tail -n 3 "$D/pod.out")"
}

# start_podman: the container first.
start_podman() {
	make_root
	pod import "$D/root.tar" tiny:1 || skip "podman import: $(tail -n 1 "$D/pod.out")"
	# Limits that a caller without CAP_SYS_RESOURCE may set.
	pod run -d --name first --network none --ulimit nofile=1024:1024 --ulimit nproc=1000:1000 \
		--security-opt seccomp=unconfined tiny:1 /bin/sh -c "$COUNT" ||
		skip "podman run: $(tail -n 1 "$D/pod.out")"
	wait_for 10 pod exec first /bin/busybox test -s /count || skip "the container does not run"
}

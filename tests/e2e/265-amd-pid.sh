#!/bin/bash
# SPDX-License-Identifier: MIT
# A tree with a pid namespace of its own has a task whose id there is that of criu in its own: what the plugin cannot
# copy into a GPU of that task ends the restore all the same. On the fake of tests/stub/amd.
. "$(dirname "$0")/lib.sh"
. "$ROOT/tests/e2e/amd.sh"

# restore_as_2: by a criu that has this id, in a pid namespace of its own.
restore_as_2() {
	(
		cd "$D"
		CKF_NO_AMD=1 LD_PRELOAD=$SO unshare -pf --kill-child --mount-proc "$BASH" -c '"$@" & echo $! >criu.pid; wait $!' - \
			"$CRIU" restore -D "$D/fast" --fast-image -d -v4 -o "$D/restore.log" --libdir "$PLUGIN"
	)
}

same_id() {
	local outer
	PLUGIN=$BUILD/lib/amdgpu-$V
	[ -e "$PLUGIN/amdgpu_plugin.so" ] || skip "no $PLUGIN/amdgpu_plugin.so (libdrm-dev, make criu)"
	make_world 26:128:64
	# Without stderr, which unshare uses in the end.
	start unshare -pf setsid "$BASH" -c 'LD_PRELOAD=$1 exec "${@:2}" 2>/dev/null' - "$SO" "$BUILD/stub/rocmprog" . 0 1
	outer=$PID
	wait_for 60 test -s "$D/ready1" || fail "rocmprog does not get ready: $(cat "$D/stderr")"
	PID=$(tree_of "$outer" | sed -n 2p)
	[ "$(cat "$D/ready1")" = 2 ] || fail "the child has the id $(cat "$D/ready1") in its namespace"
	amd dump "$PID" "$D/dump" --libdir "$PLUGIN-stock"
	# No page of the child is one of its parent's.
	head -c 4096 /dev/urandom | dd of="$(find "$D/dump" -name 'amdgpu-pages-*-001a.img' | sort -V | tail -n 1)" bs=1 seek=8 \
		conv=notrunc status=none
	"$CKFAST" convert -q --amd "$D/dump" "$D/fast"
	restore_as_2 || fail "a good image: $(log_errors "$D/restore.log")"
	[ "$(cat "$D/criu.pid")" = 2 ] || fail "criu has the id $(cat "$D/criu.pid")"
	damage_chunk "$D/fast" "t == len(image.targets) - 1" # the child's
	! restore_as_2 || fail "a restore with wrong memory"
	grep -aq 'fast-image: .*corrupt chunks' "$D/restore.log" || fail "another reason: $(log_errors "$D/restore.log")"
	grep -aq 'Restoring FAILED' "$D/restore.log" || fail "CRIU has not ended its tasks"
}

each_version same_id

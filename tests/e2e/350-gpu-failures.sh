#!/bin/bash
# SPDX-License-Identifier: MIT
# Failure is clean. A dump that fails leaves the program as it was, and can be tried again; a restore
# that fails leaves no process and no GPU memory.
. "$(dirname "$0")/gpu.sh"

FAIL=$W/fail
HITS=$W/hits # a line for each call that was made to fail

# The Nth call of a function fails from now on, in gpud and in the program alike.
fail_at() {
	echo "$1" >"$FAIL"
}

no_failure() {
	rm -f "$FAIL"
}

disk_full() {
	local small=$W/small
	mkdir -p "$small"
	mount -t tmpfs -o size=16m none "$small" || skip "no tmpfs can be mounted"
	gpu_dump_fails "$small" "No space"
	umount "$small"
	[ -z "$(find "$small" -name 'ckfast-gpu-*')" ] || fail "a full disk: images are left"
}

# Calls of CUDA that fail while the memory is saved, and in the program while it is taken away.
dump_calls() {
	local call
	mkdir -p "$D/failed"
	# The first goes first: memory that was given back is not exported again.
	for call in cuMemExportToShareableHandle:5 cuMemImportFromShareableHandle:3 cuMemcpyDtoHAsync:2 \
		cuMemUnmap:4 cuMemUnmap:12 cuMemGetAccess:2 cuMemRelease:2 \
		cuCheckpointProcessCheckpoint:1; do
		fail_at "$call"
		rm -f "$HITS"
		# Whether the dump fails is not said: some of these calls only clean up.
		"$CRIU" dump -t "$PID" -D "$D/failed" -v4 -o "$D/dump.log" --leave-running \
			--libdir "$(plugin_of "$CRIU")" || true
		no_failure
		[ -s "$HITS" ] || fail "$call was not reached"
		check "$PID"
	done
}

restore_calls() {
	local call
	for call in cuMemCreate:3 cuMemMap:2 cuMemSetAccess:1 cuMemcpyHtoDAsync:2 cuMemsetD8Async:1 \
		cuMemExportToShareableHandle:4 cuMemImportFromShareableHandle:3 \
		cuCheckpointProcessRestore:1 cuCheckpointProcessUnlock:1; do
		fail_at "$call"
		! restore "$CRIU" "$D/fast" --libdir "$(plugin_of "$CRIU")" ||
			fail "$call failed, but the restore succeeded"
		no_failure
		wait_for 20 is_gone "$PID" || fail "$call: a process is left"
		gpu_idle
	done
}

# One bit of device memory in the pack: the middle, since most of the pack is that.
broken_pack() {
	local pack=$D/fast/ckfast.pack size
	size=$(stat -c %s "$pack")
	cp "$pack" "$D/pack.good"
	printf '\xa5' | dd of="$pack" bs=1 seek=$((size / 2)) conv=notrunc status=none
	cmp -s "$pack" "$D/pack.good" && printf '\x5a' | dd of="$pack" bs=1 seek=$((size / 2)) conv=notrunc status=none
	gpu_restore_fails "$D/fast" "corrupt"
	cp "$D/pack.good" "$pack"
}

no_room() {
	# The GPUs of gpud, not of the program, are what a restore goes to.
	gpud_stop
	CKF_STUB_MIB=16 gpud_start
	gpu_restore_fails "$D/fast" "MiB free"
	gpud_stop
	CKF_STUB_GPUS=0 gpu_restore_fails "$D/fast" NO_DEVICE
}

gpud_dies() {
	gpud_start
	# In the middle of a fill: the client notices, and nothing is left.
	CKF_STUB_DELAY_US=20000 restore "$CRIU" "$D/fast" --libdir "$(plugin_of "$CRIU")" &
	local pid=$!
	sleep 0.1
	kill -9 "$GPUD_PID"
	if wait "$pid"; then
		check "$PID"
		stop "$PID"
	fi
	wait_for 20 is_gone "$PID" || fail "gpud has died: a process is left"
	gpud_stop
	gpu_idle
}

# What the driver could dump but not restore: the agent takes it away.
imported() {
	app_start agent vmm import
	gpu_dump "$D/dump"
	gpu_restore "$D/dump"
	check "$PID"
	check "$PID"
	stop "$PID"
	gpu_idle
	rm -rf "$D/dump"
}

failures() {
	export CKF_STUB_FAIL_FILE=$FAIL CKF_STUB_HIT=$HITS
	no_failure
	app_start agent devices=2 vmm
	gpud_start
	dump_calls
	disk_full
	gpu_dump "$D/dump"
	convert "$D/dump" "$D/fast"
	restore_calls
	broken_pack
	no_room
	gpud_dies
	# After all that it still works.
	gpud_start
	gpu_restore "$D/fast"
	check "$PID"
	stop "$PID"
	gpud_stop
	gpu_idle
	rm -rf "$D/dump" "$D/fast" "$D/failed"
}

each_version failures
each_version imported

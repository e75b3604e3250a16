#!/bin/bash
# SPDX-License-Identifier: MIT
# gpud serves AMD GPUs of the fake of tests/stub/amd, with NVIDIA's beside them and without: a restore lets it
# fill their memory. Without a gpud, or with one that cannot, the restore does it itself. When gpud or a copy
# ends on the way, no task runs. Clients that do not behave get an error, and leave nothing behind.
. "$(dirname "$0")/lib.sh"
. "$ROOT/tests/gpu/lib.sh"
. "$ROOT/tests/e2e/amd.sh"

V=$(readlink "$BUILD/bin/criu")
V=${V#criu-}
use_criu "$BUILD/bin/criu-$V-stock" "$BUILD/bin/criu-$V"
PLUGIN=$BUILD/lib/amdgpu-$V
[ -e "$PLUGIN/amdgpu_plugin.so" ] || skip "no $PLUGIN/amdgpu_plugin.so (libdrm-dev, make criu)"
need_hsakmt
GPUD_VERSION=$(gpud_version)
export GPUD_VERSION CKFAST
METRICS=$("$PYTHON" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')

# gpud_with VARIABLE=VALUE… -- OPTIONS…
gpud_with() {
	local settings=()
	while [ "$1" != -- ]; do
		settings+=("$1")
		shift
	done
	shift
	: >gpud.log
	env "${settings[@]}" LD_PRELOAD="$SO" "$CKFAST" gpud "$@" 2>>gpud.log &
	GPUD=$!
	disown "$GPUD"
	wait_for 20 grep -q 'ready' gpud.log || fail "gpud does not get ready: $(cat gpud.log)"
}

end_gpud() {
	kill "$GPUD"
	wait_for 20 is_gone "$GPUD" || fail "gpud does not end"
}

# Without NVIDIA's driver.
amd_gpud() {
	gpud_with LD_LIBRARY_PATH= "$@"
}

hostile() {
	PYTHONPATH=$ROOT/tests/py timeout 120 "$PYTHON" -B "$ROOT/tests/e2e/amd_gpud.py" "$@"
}

# restores PATTERN: it succeeds, the log says how, and all memory is right.
restores() {
	local i
	amd restore_fast "$W/fast" --libdir "$PLUGIN"
	grep -aq "$1" "$D/restore.log" || fail "the log has no $1: $(grep -a 'amd: ' "$D/restore.log")"
	check "$PID"
	check "$(cat ready1)" report1
	stop "$PID"
}

by_gpud() {
	restores 'lets gpud fill'
	[ "$(grep -ac 'amd: GPU .* filled by gpud' "$D/restore.log")" = 4 ] ||
		fail "not all by gpud: $(grep -a 'amd: ' "$D/restore.log")"
}

# fails PATTERN COMMAND…: a restore that ends with that, before any task runs; the command is run when gpud has begun
# to fill.
fails() {
	local pattern=$1 status=0 restoring
	shift
	amd restore "$CRIU" "$W/fast" --fast-image --libdir "$PLUGIN" &
	restoring=$!
	if [ $# -gt 0 ]; then
		wait_for 20 filling || fail "gpud does not fill: $(cat "$D/restore.log")"
		"$@"
	fi
	wait "$restoring" || status=$?
	[ $status != 0 ] || fail "$pattern: the restore succeeded"
	grep -aq "$pattern" "$D/restore.log" || fail "the log has no $pattern: $(log_errors "$D/restore.log")"
	all_gone "${pids[@]}"
}

filling() {
	[ "$(status "sum(t['done_bytes'] > 0 for t in s['transfers'])")" -gt 0 ] 2>/dev/null
}

idle() {
	[ "$(status "len(s['transfers']), s['amd']['slots']['in_use']")" = '(0, 0)' ]
}

fds_are() {
	[ "$(ls "/proc/$GPUD/fd" | wc -l)" = "$1" ]
}

# metrics_are EXPRESSION WANT
metrics_are() {
	local got
	got=$("$PYTHON" "$ROOT/tests/e2e/metrics.py" "$METRICS" "$1" 2>&1) || fail "metrics: $got"
	[ "$got" = "$2" ] || fail "metrics: $1 is $got, want $2"
}

neither_driver() {
	! LD_LIBRARY_PATH= "$CKFAST" gpud 2>gpud.log || fail "a gpud without any GPU"
	grep -q 'no CUDA driver: .*; no AMD GPUs: there is no /dev/kfd' gpud.log || fail "$(cat gpud.log)"
}

served() {
	amd_gpud -- --metrics "$METRICS" --log json
	status_is "s['devices'], len(s['amd']['devices']), s['amd']['devices'][1]['queues'] > 0" '([], 2, True)'
	by_gpud
	by_gpud
	status_is "s['jobs']['fill-amd']['count'], s['jobs']['fill-amd']['failed']" '(8, 0)'
	status_is "s['jobs']['fill-amd']['bytes'] == 2 * $GPU_BYTES" True
	wait_for 20 idle || fail "not idle: $(cat status.json)"
	sleep 1.1
	metrics_are "m('restores_total'), m('amd_devices'), m('amd_slots') == m('amd_slots_free') > 0" '(8.0, 2.0, True)'
	metrics_are "m('restored_bytes_total') == sum(m('amd_device_bytes_total', device=d) for d in '01') == 2 * $GPU_BYTES" True
	metrics_are "m('failures_total', request='restore_amd', kind='other'), m('requests_in_flight', request='restore_amd')" '(0.0, 0.0)'
	"$CKFAST" gpud --status >status.txt
	grep -q '^AMD 1 .* queues' status.txt || fail "$(cat status.txt)"
	refused 'no CUDA driver' act state $$
	end_gpud
}

both_vendors() {
	mkdir -p cuda out
	gpud_with CKF_STUB_GPUS=2 --
	status_is "len(s['devices']), len(s['amd']['devices'])" '(2, 2)'
	works save cuda 1001 6 2
	by_gpud
	works fill cuda out
	filled 1001
	end_gpud
}

without_gpud() {
	restores 'filled by their engines'
	# One that serves other GPUs only.
	start_gpud
	restores 'filled by their engines'
	status_is "'amd' in s" False
	stop_gpud
	# One of another version.
	"$PYTHON" - "$CKFAST_GPUD_SOCKET" <<-'END' &
		import socket, struct, sys
		s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
		s.bind(sys.argv[1])
		s.listen()
		c = s.accept()[0]
		op, pid, version = struct.unpack_from("<IIQ", c.recv(1000))
		c.send(struct.pack("<IIQ", 18, 0, 95) + bytes(64) + b"gpud speaks version 2".ljust(432, b"\0"))
		c.recv(1000)
	END
	wait_for 20 test -S "$CKFAST_GPUD_SOCKET"
	restores 'Without gpud: .*gpud speaks version 2'
	grep -aq 'filled by their engines' "$D/restore.log" || fail "not by the engines"
	rm "$CKFAST_GPUD_SOCKET"
}

new_world() {
	make_world 26:128:64 48879:129:48
}

# gpud, or an engine, ends while memory is filled; a client does. The engines of a slow GPU stay busy for a while, and a
# new world has others.
ended() {
	amd_gpud AMD_BYTES_PER_S=6000000 -- --slots 1
	fails 'Memory of AMD GPUs was not restored: gpud: ' kill -9 "$GPUD"
	rm "$CKFAST_GPUD_SOCKET"
	new_world
	amd_gpud AMD_BYTES_PER_S=6000000 -- --slots 1
	fails 'was not restored: gpud: gpud was stopped' kill "$GPUD"
	wait_for 20 is_gone "$GPUD" || fail "gpud does not end"
	new_world
	amd_gpud AMD_BYTES_PER_S=6000000 -- --slots 1
	hostile "$W/fast" leave
	wait_for 20 idle || fail "a client that is gone is filled for: $(cat status.json)"
	status_is "s['jobs']['fill-amd']['failed']" 1
	end_gpud
	new_world
	amd_gpud AMD_FAIL=packet:3 --
	fails 'was not restored: gpud: .*an SDMA engine has done nothing'
	wait_for 20 idle || fail "not idle: $(cat status.json)"
	by_gpud
	end_gpud
}

# What fails before anything is written is done by the plugin, but not what gpud forbids.
refusals() {
	amd_gpud AMD_FAIL=dmabuf_import --
	restores 'The plugin copies the memory of GPU .*: cannot import memory of a GPU'
	end_gpud
	amd_gpud -- --client-bytes 1M
	fails 'is not filled: gpud: the image needs .* may have 1 MiB at a time'
	end_gpud
}

hostile_clients() {
	local before
	amd_gpud --
	hostile "$W/fast" good >/dev/null
	wait_for 20 idle || fail "not idle"
	before=$(ls "/proc/$GPUD/fd" | wc -l)
	hostile "$W/fast" >/dev/null
	wait_for 20 idle || fail "slots are left: $(cat status.json)"
	wait_for 5 fds_are "$before" || fail "$(ls -l "/proc/$GPUD/fd"), not $before descriptors"
	by_gpud
	end_gpud
}

neither_driver
new_world
amd start_ready "$BUILD/stub/rocmprog" . 3 1
wait_ready ready1
pids=($(cat ready ready1))
amd dump "$PID" "$W/dump" --libdir "$PLUGIN-stock"
"$CKFAST" convert -q --amd "$W/dump" "$W/fast"
GPU_BYTES=0
for file in "$W"/dump/amdgpu-pages-*; do
	GPU_BYTES=$((GPU_BYTES + $(stat -c %s "$file") - 8))
done
served
both_vendors
without_gpud
ended
refusals
hostile_clients

#!/bin/bash
# SPDX-License-Identifier: MIT
# The fake CUDA driver under CRIU's own CUDA plugin, which knows nothing of it: lock while the process
# runs, checkpoint and restore while all but the restore thread are stopped. What satisfies that
# plugin behaves as NVIDIA's driver does.
. "$(dirname "$0")/lib.sh"

STUB=$BUILD/stub
[ -x "$STUB/cuapp" ] || skip "no $STUB/cuapp (make stub)"
export LD_LIBRARY_PATH=$STUB

# build_plugin SOURCE: CRIU's tree; the plugin and a cuda-checkpoint to call are in $W.
build_plugin() {
	local src=$1
	ln -sf "$BUILD/bin/cuda-checkpoint" "$W/cuda-checkpoint"
	mkdir -p "$W/plugins"
	cc -g -shared -nostartfiles -fPIC $("$src/compel/compel-host" includes) \
		-iquote "$src/include" -iquote "$src/criu/include" -iquote "$src" \
		-iquote "$src/criu/arch/x86/include" \
		"$src/plugins/cuda/cuda_plugin.c" -o "$W/plugins/cuda_plugin.so" ||
		fail "CRIU's plugin does not compile"
}

used() {
	"$STUB/stub-smi" | cut -d' ' -f2
}

with_plugin() {
	local src=$BUILD/criu-$V-stock
	# 4.1 needs CRIU_FAULT for another purpose here.
	[ -z "${CRIU_FAULT:-}" ] || return 0
	[ -x "$src/compel/compel-host" ] && [ "$(uname -m)" = x86_64 ] || return 0
	build_plugin "$src"
	export PATH=$W:$PATH
	export CRIU_FAULT=138 # the plugin does not look for a GPU
	start_ready "$STUB/cuapp" . vmm busy
	"$CRIU_STOCK" dump -R -t "$PID" -D "$D" -L "$W/plugins" -v4 -o leave.log ||
		fail "dump -R: $(log_errors "$D/leave.log")"
	check "$PID"
	dump "$PID" "$D/dump" -L "$W/plugins"
	grep -q 'cuda_plugin: Checkpointing CUDA devices' "$D/dump/dump.log" || fail "the plugin slept"
	[ "$(used)" = 0 ] || fail "dumped: memory is left: $(used)"
	restore_stock "$D/dump" -L "$W/plugins"
	[ "$(used)" != 0 ] || fail "no memory came back"
	check "$PID"
	touch "$D/stop"
	check "$PID"
	wait_for 20 is_gone "$PID" || fail "cuapp does not end"
	[ "$(used)" = 0 ] || fail "end: memory is left: $(used)"
	unset CRIU_FAULT
	tried=$V
}

tried=
every_version
each_version with_plugin
[ -n "$tried" ] || skip "no CRIU of 4.2 or later for x86 in build/ with its source"

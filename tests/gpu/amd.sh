#!/bin/bash
# SPDX-License-Identifier: MIT
#
# amd.sh OUTDIR: checks and measures memory of AMD GPUs on a machine that has them, as root, after make
# all progs criu. Nobody has run it on hardware yet. Writes OUTDIR/table.txt, to send back, and logs.
#
#	AMD_GIB=4		on each GPU
#	AMD_REPS=3		of each restore
#	AMD_PROGRAM="python3 tests/gpu/amdprog.py . GIB"	needs PyTorch for ROCm; writes ready and report
#	AMD_BASE=/var/tmp	where dumps are
#
# 1. amdcopy: all bytes to all GPUs and back, by one queue, by one for each engine, by four.
# 2. The program is dumped by CRIU's plugin and by the patched one: the same files? How long?
# 3. It is restored by CRIU's plugin, by the engines, by stores, by the plugin out of the pack; and
#    checks its memory each time.
# 4. A damaged image: no task may run.
ARGS=("$@")
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
[ ${#ARGS[@]} = 1 ] || fail "usage: amd.sh OUTDIR"
mkdir -p "${ARGS[0]}"
OUT=$(realpath "${ARGS[0]}")
GIB=${AMD_GIB:-4}
REPS=${AMD_REPS:-3}
read -ra PROGRAM <<<"${AMD_PROGRAM:-$PYTHON $ROOT/tests/gpu/amdprog.py . $GIB}"
D=$(mktemp -d "${AMD_BASE:-/var/tmp}/ckfast-amd.XXXXXX")
trap 'rm -rf "$D"' EXIT
V=$(readlink "$BUILD/bin/criu")
V=${V#criu-}
use_criu "$BUILD/bin/criu-$V-stock" "$BUILD/bin/criu-$V"
STOCK_PLUGIN=$BUILD/lib/amdgpu-$V-stock
PLUGIN=$BUILD/lib/amdgpu-$V
[ -e "$PLUGIN/amdgpu_plugin.so" ] || fail "no $PLUGIN/amdgpu_plugin.so (libdrm-dev, make criu)"
: >"$OUT/table.txt"

row() {
	printf '%-28s %-10s %s\n' "$@" | tee -a "$OUT/table.txt"
}

# takes NAME COMMAND…: a row with the seconds that it took; MS is set.
takes() {
	local name=$1 start status=0
	shift
	start=$(date +%s%N)
	"$@" || status=$?
	MS=$((($(date +%s%N) - start) / 1000000))
	[ $status = 0 ] && row "$name" ok "$MS ms" || row "$name" FAILED "exit code $status"
	return $status
}

facts() {
	row kernel - "$(uname -r)"
	row CRIU - "$V"
	row ckfast - "$("$CKFAST" --version | head -n 1)"
	row libhsakmt - "$(ldconfig -p | sed -n 's/.*libhsakmt.so.1 .* => //p' | head -n 1 | xargs -r readlink -f)"
	grep -sl . /sys/class/kfd/kfd/topology/nodes/*/gpu_id | while read -r f; do
		[ "$(cat "$f")" = 0 ] || row "GPU $(cat "$f")" - "$(grep -E \
			'gfx_target_version|num_sdma|drm_render_minor' "${f%gpu_id}properties" | tr '\n' ' ')"
	done
}

copies() {
	local queues log
	for queues in 0 1 4; do
		log=$OUT/amdcopy.$queues
		if "$PROGS/amdcopy" "${AMD_COPY_MIB:-2048}" $queues >"$log" 2>&1; then
			while read -r line; do
				row "amdcopy, $queues queues" ok "$line"
			done <"$log"
		else
			# Other GPUs may have been right.
			row "amdcopy, $queues queues" FAILED "$(grep -v '^{' "$log" | tail -n 1)"
		fi
	done
}

one_dump() {
	"$1" dump -t "$PID" -D "$2" -v4 -o "$2/dump.log" --libdir "$3" --leave-running
}

dumps() {
	local file bad=
	mkdir "$D/dump" "$D/dump2"
	takes "dump, CRIU's plugin" one_dump "$CRIU_STOCK" "$D/dump" "$STOCK_PLUGIN"
	cp "$D/dump/dump.log" "$OUT/dump-stock.log"
	takes "dump, engines" one_dump "$CRIU" "$D/dump2" "$PLUGIN"
	cp "$D/dump2/dump.log" "$OUT/dump-engines.log"
	for file in "$D"/dump/amdgpu-pages-*; do
		cmp -s "$file" "$D/dump2/${file##*/}" || bad+=" ${file##*/}"
	done
	[ -z "$bad" ] && row "the same contents" ok "$(du -ch "$D"/dump/amdgpu-pages-* | tail -n 1 | cut -f1)" ||
		row "the same contents" FAILED "$bad"
	check "$PID" && row "the process runs on" ok ""
	stop "$PID"
}

# one_restore NAME CRIU DIR OPTIONS…
one_restore() {
	local name=$1
	shift
	takes "restore, $name" restore "$@" || return 0
	(check "$PID") && row "its memory, $name" ok "$(grep -a 'amd: GPU' "$D/restore.log" |
		sed 's/.*amd: //' | tr '\n' ';')" || row "its memory, $name" FAILED ""
	cp "$D/restore.log" "$OUT/restore-${name// /-}.log"
	stop "$PID"
}

restores() {
	local rep
	for rep in $(seq "$REPS"); do
		one_restore "CRIU's plugin" "$CRIU_STOCK" "$D/dump" --libdir "$STOCK_PLUGIN"
		one_restore engines "$CRIU" "$D/fast" --fast-image --libdir "$PLUGIN"
		CKF_NO_SDMA=1 one_restore stores "$CRIU" "$D/fast" --fast-image --libdir "$PLUGIN"
		CKF_NO_AMD=1 one_restore "plugin, pack" "$CRIU" "$D/fast" --fast-image --libdir "$PLUGIN"
	done
}

damaged() {
	# The last bytes of the pack are those of a GPU.
	local end
	end=$(stat -c %s "$D/fast/ckfast.pack")
	dd if=/dev/urandom of="$D/fast/ckfast.pack" bs=4096 seek=$((end / 4096 - 64)) count=64 conv=notrunc status=none
	if restore "$CRIU" "$D/fast" --fast-image --libdir "$PLUGIN" >"$OUT/damaged.out" 2>&1; then
		row "a damaged image" FAILED "it was restored"
		stop "$PID"
	else
		row "a damaged image" ok "refused"
	fi
}

facts
copies
start_ready "${PROGRAM[@]}"
PID=$(cat "$D/ready")
dumps
takes convert "$CKFAST" convert -q --amd "$D/dump2" "$D/fast"
row "the pack" - "$(stat -c %s "$D/fast/ckfast.pack") bytes"
restores
damaged
! grep -q FAILED "$OUT/table.txt"

#!/bin/sh
# SPDX-License-Identifier: MIT
#
# gpu.sh [run|group|load] OUTDIR: tests and measures on a machine with NVIDIA GPUs, as root, from a
# bundle (make bundle): one process (run, the default), groups of processes that talk by NCCL
# (group), or processes that never idle (load). See gpu/run.py, group.py and load.py for settings.
here=$(cd "$(dirname "$0")" && pwd) || exit 1
script=run
if [ $# = 2 ]; then
	script=$1
	shift
fi
exec timeout -k 20 "$((${GPU_SECONDS:-560} + 60))" python3 -B "$here/gpu/$script.py" "$@"

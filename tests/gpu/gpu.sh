#!/bin/sh
# SPDX-License-Identifier: MIT
#
# gpu.sh OUTDIR: tests and measures on a machine with an NVIDIA GPU, as root, from a bundle (make
# bundle). See gpu/run.py for its settings.
here=$(cd "$(dirname "$0")" && pwd) || exit 1
exec timeout -k 20 "$((${GPU_SECONDS:-560} + 60))" python3 -B "$here/gpu/run.py" "$@"

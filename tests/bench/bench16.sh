#!/bin/sh
# SPDX-License-Identifier: MIT
#
# bench16.sh OUTDIR: measures on a machine with many CPUs, as root, from a bundle (make bundle). See
# bench/bench16.py for its settings.
here=$(cd "$(dirname "$0")" && pwd) || exit 1
exec timeout -k 20 "$((${BENCH_SECONDS:-510} + 60))" python3 -B "$here/bench/bench16.py" "$@"

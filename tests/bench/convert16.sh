#!/bin/sh
# SPDX-License-Identifier: MIT
#
# convert16.sh OUTDIR: ckfast convert by the number of threads, as root, from a bundle (make bundle).
# See bench/convert16.py for its settings.
here=$(cd "$(dirname "$0")" && pwd) || exit 1
exec timeout -k 20 "$((${CONVERT_SECONDS:-80} + 60))" python3 -B "$here/bench/convert16.py" "$@"

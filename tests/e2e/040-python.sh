#!/bin/bash
# SPDX-License-Identifier: MIT
# A Python program with threads.
. "$(dirname "$0")/lib.sh"

each_version roundtrip "$PYTHON" "$ROOT/tests/progs/pyproc.py" .

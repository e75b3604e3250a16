#!/bin/bash
# SPDX-License-Identifier: MIT
# A dump whose pages are half in a parent dump, made by hand, so that it is tested on every kernel.
# The restored memory is that of the full dump it was made from.
. "$(dirname "$0")/lib.sh"

MEMCMP=$ROOT/tests/e2e/memcmp

parent() {
	start_ready "$PROGS/mixed" .
	dump "$PID" "$D/dump"
	"$PYTHON" "$ROOT/tests/e2e/split.py" "$D/dump" "$D/split"
	"$MEMCMP" --plain --criu "$CRIU_STOCK" "$D/split/dump"
	convert "$D/split/dump" "$D/fast"
	extract_same "$D/fast" "$D/split/dump"
	mv "$D/split/parent" "$D/split/away"
	"$MEMCMP" --criu "$CRIU" --then run "$D/dump" "$D/fast"
	check "$PID"
	stop "$PID"
}

each_version parent

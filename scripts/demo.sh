#!/bin/bash
# SPDX-License-Identifier: MIT
#
# demo.sh: a real process of 1 GiB (DEMO_MIB), dumped once, restored by the stock CRIU from the dump and
# by the patched one from the fast image; one table of both. `make demo` calls it.
DEMO_MIB=${DEMO_MIB:-1024}
. "$(dirname "$0")/../tests/lib.sh"

D=$BUILD/demo
rm -rf "$D"
mkdir -p "$D"
trap 'rm -rf "$D/dump" "$D/fast"' EXIT
use_criu "$BUILD/bin/criu-stock" "$BUILD/bin/criu"

need_mib=$((DEMO_MIB * 5 / 2))
free_mib=$(awk '/^MemAvailable/ { print int($2 / 1024) }' /proc/meminfo)
[ "$free_mib" -ge $need_mib ] || fail "$need_mib MiB of memory needed, $free_mib available; set DEMO_MIB"
disk_mib=$(df --output=avail -m "$D" | tail -n 1)
[ "$disk_mib" -ge $need_mib ] || fail "$need_mib MiB of disk needed, $((disk_mib)) free; set DEMO_MIB"

say() {
	printf '\n== %s\n' "$*"
}

# timed NAME COMMAND…: puts the wall time in nanoseconds into $D/NAME.ns.
timed() {
	local name=$1 start
	shift
	start=$(date +%s%N)
	"$@"
	echo $(($(date +%s%N) - start)) >"$D/$name.ns"
}

say "a process with $DEMO_MIB MiB: two fifths random, the rest zero, repeated or compressible"
start_ready "$PROGS/bigproc" . "$DEMO_MIB" mixed
echo "pid $PID, checksum $(cat "$D/ready")"

say "criu dump (stock)"
timed dump dump "$PID" "$D/dump"

say "ckfast convert"
timed convert "$CKFAST" convert "$D/dump" "$D/fast"

say "criu restore (stock)"
# Both from the page cache: the dump is in there, the image was written past it.
sync
cat "$D/fast/"* >/dev/null
pretouch "$DEMO_MIB"
timed stock restore_stock "$D/dump"
check "$PID"
echo "the process says: $(cat "$D/report")"
cp "$D/restore.log" "$D/restore-stock.log"
stop "$PID"

say "criu restore --fast-image"
pretouch "$DEMO_MIB"
timed fast restore_fast "$D/fast" --fast-stats "$D/stats.json"
check "$PID"
echo "the process says: $(cat "$D/report")"
stop "$PID"

"$PYTHON" "$ROOT/scripts/demo-table.py" "$D" "$("$CRIU" --version | head -n 1)"

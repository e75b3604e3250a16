#!/bin/bash
# SPDX-License-Identifier: MIT
#
# bench.sh: measures, never passes or fails. Prints tables and writes build/bench.json.
#
#	BENCH_MIB=2048		size of the process whose restore is measured
#	BENCH_REPS=5		runs of each kind
#	BENCH_DATA=random	what is in its memory: random or mixed (tests/progs/prog.h)
#	BENCH_CODEC=auto	for its fast image
#	BENCH_FILE_MIB=1024	size of the dump for convert and verify
#
# Stock and fast restores alternate, each after touching free memory, the page cache cold or warm as
# said. convert and verify run on one CPU.
CKF_TEST_SECONDS=${CKF_TEST_SECONDS:-7200}
. "$(dirname "$0")/../lib.sh"

mib=${BENCH_MIB:-2048}
reps=${BENCH_REPS:-5}
data=${BENCH_DATA:-random}
codec=${BENCH_CODEC:-auto}
file_mib=${BENCH_FILE_MIB:-1024}
drop=/proc/sys/vm/drop_caches

D=$BUILD/bench
rm -rf "$D"
mkdir -p "$D"
trap 'rm -rf "$D"' EXIT
use_criu "$BUILD/bin/criu-stock" "$BUILD/bin/criu"
runs=$D/runs.jsonl

# record KIND KEY=VALUE…: one line of JSON; values are numbers, true or false, or words.
record() {
	"$PYTHON" - "$@" >>"$runs" <<-'END'
		import json, sys
		line = {"kind": sys.argv[1]}
		for pair in sys.argv[2:]:
		    key, value = pair.split("=", 1)
		    try:
		        line[key] = json.loads(value)
		    except ValueError:
		        line[key] = value
		print(json.dumps(line))
	END
}

# cache cold|warm DIR: the state of the page cache that a run starts from.
cache() {
	sync
	if [ "$1" = cold ]; then
		echo 3 >$drop
	else
		cat "$2"/* >/dev/null
	fi
}

# restore_run stock|fast cold|warm
restore_run() {
	local who=$1 state=$2 dir=$D/dump start ns fill=null
	[ "$who" = stock ] || dir=$D/fast
	cache "$state" "$dir"
	pretouch "$mib"
	start=$(date +%s%N)
	if [ "$who" = stock ]; then
		restore_stock "$dir"
	else
		restore_fast "$dir" --fast-stats "$D/stats.json"
	fi
	ns=$(($(date +%s%N) - start))
	[ "$who" = stock ] || fill=$(cat "$D/stats.json")
	check "$PID"
	stop "$PID"
	record restore who="$who" cache="$state" ns=$ns stats="$fill"
	printf 'restore %-5s %-4s %8.3f s\n' "$who" "$state" "$(awk -v n=$ns 'BEGIN { print n / 1e9 }')"
}

bench_restore() {
	local rep state states=(warm)
	[ ! -w $drop ] || states=(cold warm)
	start_ready "$PROGS/bigproc" . "$mib" "$data"
	dump "$PID" "$D/dump"
	"$CKFAST" convert --codec "$codec" "$D/dump" "$D/fast"
	for state in "${states[@]}"; do
		for ((rep = 0; rep < reps; rep++)); do
			if [ $((rep % 2)) = 0 ]; then
				restore_run stock "$state"
				restore_run fast "$state"
			else
				restore_run fast "$state"
				restore_run stock "$state"
			fi
		done
	done
	rm -rf "$D/dump" "$D/fast"
}

# on_one_cpu KIND BYTES COMMAND…: reps times, with the page cache warm.
on_one_cpu() {
	local kind=$1 bytes=$2 rep start ns
	shift 2
	for ((rep = 0; rep < reps; rep++)); do
		rm -rf "$D/out"
		sync
		pretouch "$file_mib"
		start=$(date +%s%N)
		taskset -c 0 "$@" >/dev/null
		ns=$(($(date +%s%N) - start))
		record "$kind" bytes="$bytes" ns=$ns
		printf '%-12s %8.3f GB/s\n' "$kind" \
			"$(awk -v n=$ns -v b="$bytes" 'BEGIN { print b / n }')"
	done
}

pages_bytes() {
	stat -c %s "$1"/pages-*.img | awk '{ s += $1 } END { print s }'
}

bench_tools() {
	local c
	start_ready "$PROGS/bigproc" . "$file_mib" mixed
	dump "$PID" "$D/dump"
	for c in lz4 raw auto; do
		cache warm "$D/dump"
		on_one_cpu "convert $c" "$(pages_bytes "$D/dump")" \
			"$CKFAST" convert --codec $c "$D/dump" "$D/out"
	done
	rm -rf "$D/dump" "$D/out"

	start_ready "$PROGS/bigproc" . "$file_mib" random
	dump "$PID" "$D/dump"
	"$CKFAST" convert --codec raw "$D/dump" "$D/fast"
	cache warm "$D/fast"
	on_one_cpu "verify raw" "$(pages_bytes "$D/dump")" "$CKFAST" verify "$D/fast"
}

record facts mib="$mib" reps="$reps" data="$data" codec="$codec" file_mib="$file_mib" \
	commit="$(git -C "$ROOT" describe --always --dirty 2>/dev/null || echo none)" \
	ckfast="$("$CKFAST" --version)" criu="$("$CRIU" --version | head -n 1)" \
	kernel="$(uname -r)" cpus="$(nproc)" \
	cpu="$(sed -n 's/^model name\s*: //p' /proc/cpuinfo | head -n 1)" \
	memory_kib="$(awk '/^MemTotal/ { print $2 }' /proc/meminfo)" \
	filesystem="$(stat -f -c %T "$D")" date="$(date -u +%Y-%m-%dT%H:%M:%SZ)" \
	command="BENCH_MIB=$mib BENCH_REPS=$reps BENCH_DATA=$data BENCH_CODEC=$codec BENCH_FILE_MIB=$file_mib make bench"
bench_restore
bench_tools
"$PYTHON" "$ROOT/tests/bench/table.py" "$runs" "$BUILD/bench.json"

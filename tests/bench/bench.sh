#!/bin/bash
# SPDX-License-Identifier: MIT
#
# bench.sh: measures, never passes or fails. Builds the CRIU that only the benchmark compares with
# (populate-4.2.1.patch), then runs bench.py and dedup.py, which say what can be set.
set -euo pipefail
cd "$(dirname "$0")/../.."

version=4.2.1
stock=build/criu-$version-stock
tree=build/criu-$version-populate
fix=tests/bench/populate-$version.patch

# A copy of the stock tree with its objects, so that only one file is compiled.
build_populate() {
	local id
	id=$(cat "$stock/.built" "$fix" | sha256sum)
	if [ "$(cat "$tree/.populate" 2>/dev/null)" != "$id" ]; then
		echo "bench: building CRIU $version with $fix"
		rm -rf "$tree"
		cp -a "$stock" "$tree"
		patch -d "$tree" -p1 --no-backup-if-mismatch -s <"$fix"
		env -u MAKEFLAGS -u MFLAGS -u MAKELEVEL make -C "$tree" -j"$(nproc)" criu \
			>"$tree.log" 2>&1 </dev/null
		echo "$id" >"$tree/.populate"
	fi
	install -C -m 755 "$tree/criu/criu" build/bin/criu-populate
}

if [ -e "$stock/.built" ]; then
	build_populate || echo "bench: $fix cannot be built, see $tree.log: left out" >&2
fi
/usr/bin/python3 -B tests/bench/bench.py "$@"
if [ -n "${BENCH_QUICK:-}" ]; then
	export DEDUP_MIB=${DEDUP_MIB:-32} DEDUP_REPS=${DEDUP_REPS:-1}
fi
/usr/bin/python3 -B tests/bench/dedup.py "$@"

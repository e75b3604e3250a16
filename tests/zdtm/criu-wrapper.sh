#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Stands in for criu under CRIU's zdtm.py --criu-bin, which calls it as
#
#	criu-wrapper.sh ACTION --images-dir DIR … [--restore-detached]
#
# Without CKZ_FAST it only runs the stock criu. With it, a restore converts DIR into DIR.ck/fast,
# verifies that, extracts it and compares with DIR, and restores from it with the patched criu. No
# step may fail: a test never passes because of a silent step back to the dump.
#
#	CKZ_STOCK, CKZ_CRIU	the stock criu and the patched one
#	CKZ_CKFAST, CKZ_MEMCMP
#	CKZ_PRELOAD		libraries to preload into criu
#	CKZ_RESULTS		where logs of what failed go, and times
#	CKZ_COMPARE		compare memory with the dump by tests/e2e/memcmp
#
# Comparing memory needs processes that stand still: the restore leaves them stopped, and they go on
# afterwards. Their flags and resident size are noted while the dump has them frozen.
set -uo pipefail

self=$(readlink -f "$0")

# criu dump calls this file as its --action-script, too.
if [ "${CRTOOLS_SCRIPT_ACTION:-}" ]; then
	if [ "$CRTOOLS_SCRIPT_ACTION" = post-dump ]; then
		unset LD_PRELOAD
		"$CKZ_MEMCMP" --save "$CKZ_BEFORE" "$CRTOOLS_INIT_PID" ||
			echo "memcmp --save failed for $CKZ_BEFORE" >>"$CKZ_RESULTS/wrapper.log"
	fi
	exit 0
fi

action=$1
args=("$@")
dir=
pidfile=
for ((i = 1; i < ${#args[@]}; i++)); do
	case ${args[i]} in
	--images-dir)
		dir_at=$((i + 1))
		dir=${args[dir_at]}
		;;
	--pidfile) pidfile=${args[i + 1]} ;;
	esac
done

preloaded() {
	LD_PRELOAD=$CKZ_PRELOAD "$@"
}

# zdtm.py shows the errors in this log.
give_up() {
	local kept=$CKZ_RESULTS/failed/${dir//\//_}
	echo "Error (criu-wrapper): $1" | tee -a "$dir/restore.log" >>"$CKZ_RESULTS/wrapper.log"
	mkdir -p "$kept"
	cp "$dir"/*.log "$work"/*.log "$kept" 2>/dev/null
	exit 97
}

# facts DIR: what extract has to give back of each file but the logs.
facts() {
	(
		cd "$1" || exit
		find . -mindepth 1 ! -name restore.log -printf '%P %y %m %U %G %T@ %s %l\n' | sort
		find . -type f ! -name restore.log -print0 | sort -z | xargs -0 -r sha256sum
	)
}

step() {
	local name=$1
	shift
	"$@" >"$work/$name.log" 2>&1 || give_up "$name of $dir: $(tail -n 3 "$work/$name.log")"
}

make_fast() {
	local start
	rm -rf "${work:?}/fast" "$work/extracted"
	start=$(date +%s%N)
	step convert "$CKZ_CKFAST" convert "$dir" "$work/fast"
	echo "converted $dir in $((($(date +%s%N) - start) / 1000000)) ms" >>"$CKZ_RESULTS/wrapper.log"
	step verify "$CKZ_CKFAST" verify "$work/fast"
	step extract "$CKZ_CKFAST" extract "$work/fast" "$work/extracted"
	facts "$dir" >"$work/dump.facts"
	facts "$work/extracted" >"$work/extracted.facts"
	step compare diff "$work/dump.facts" "$work/extracted.facts"
	rm -rf "$work/extracted"
}

wants_memcmp() {
	[ -n "${CKZ_COMPARE:-}" ] && [ -n "$pidfile" ]
}

work=$dir.ck
case $action${CKZ_FAST:+-fast} in
dump-fast)
	if wants_memcmp; then
		mkdir -p "$work"
		export CKZ_BEFORE=$PWD/$work/before
		args+=(--action-script "$self")
	fi
	;;
restore-fast)
	mkdir -p "$work"
	make_fast
	# Logs, statistics and relative names stay where zdtm.py looks for them.
	args[dir_at]=$work/fast
	args+=(--work-dir "$dir" --fast-image)
	if ! wants_memcmp; then
		preloaded "$CKZ_CRIU" "${args[@]}"
		status=$?
	else
		preloaded "$CKZ_CRIU" "${args[@]}" --leave-stopped
		status=$?
		[ $status != 0 ] || step memcmp "$CKZ_MEMCMP" --root "$(cat "$pidfile")" \
			--before "$work/before" --ignore wf "$dir"
	fi
	if [ $status != 0 ]; then
		mkdir -p "$CKZ_RESULTS/failed/${dir//\//_}"
		cp "$dir"/*.log "$CKZ_RESULTS/failed/${dir//\//_}"
	fi
	if [ -f "$work/memcmp.log" ]; then
		echo "$dir: $(tail -n 1 "$work/memcmp.log")" >>"$CKZ_RESULTS/wrapper.log"
	fi
	rm -rf "$work"
	exit $status
	;;
esac
preloaded "$CKZ_STOCK" "${args[@]}"

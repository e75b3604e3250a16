#!/bin/bash
# SPDX-License-Identifier: MIT
# Images that are broken: the restore fails with a clear line, leaves no process, and the good image
# still restores afterwards.
. "$(dirname "$0")/lib.sh"

fresh() {
	rm -rf "$D/bad"
	cp -a "$D/fast" "$D/bad"
}

# refused WHAT PATTERN: restoring $D/bad fails, saying PATTERN.
refused() {
	restore_refused "$D/bad" "$@"
}

# The pack offset of a stored chunk, PERCENT of the way through the pack.
chunk_offset() {
	"$CKFAST" inspect --json --chunks "$D/fast" | "$PYTHON" -c 'import json, sys
chunks = [c for c in json.load(sys.stdin)["image"]["chunk_list"] if c["codec"] != "zero"]
print(chunks[len(chunks) * int(sys.argv[1]) // 100]["pack_offset"])' "$1"
}

bad_packs() {
	local at
	fresh
	truncate -s -4096 "$D/bad/ckfast.pack"
	refused "truncated pack" "pack"
	fresh
	printf x >>"$D/bad/ckfast.pack"
	refused "overlong pack" "pack"
	fresh
	rm "$D/bad/ckfast.pack"
	refused "no pack" "pack"
	fresh
	rm "$D/bad/ckfast.pack"
	mkfifo "$D/bad/ckfast.pack"
	refused "fifo for a pack" "pack"
	fresh
	rm "$D/bad/ckfast.pack"
	ln -s ../fast/ckfast.pack "$D/bad/ckfast.pack"
	refused "link for a pack" "pack"
	for at in 0 50 99; do
		fresh
		flip "$D/bad/ckfast.pack" "$(chunk_offset $at)"
		refused "flipped byte in a chunk, $at %" "chunks|checksum"
	done
}

bad_indexes() {
	local size
	fresh
	cp "$D/other/ckfast.idx" "$D/bad/ckfast.idx"
	refused "index of another image" "pack|image"
	fresh
	cp "$D/other/ckfast.idx" "$D/other/ckfast.pack" "$D/bad"
	refused "index and pack of another image" "files|cannot open"
	fresh
	size=$(stat -c %s "$D/bad/ckfast.idx")
	flip "$D/bad/ckfast.idx" $((size - 5))
	refused "flipped byte in the index" "corrupt"
	fresh
	flip "$D/bad/ckfast.idx" 0
	refused "other magic" "corrupt"
	fresh
	truncate -s 100 "$D/bad/ckfast.idx"
	refused "truncated index" "corrupt"
	fresh
	rm "$D/bad/ckfast.idx"
	mkfifo "$D/bad/ckfast.idx"
	refused "fifo for an index" "."
}

bad_files() {
	local mm
	fresh
	mm=$(cd "$D/bad" && echo mm-*.img)
	flip "$D/bad/${mm%% *}" 40
	refused "flipped byte in mm.img" "files|checksum"
	fresh
	rm "$D/bad/${mm%% *}"
	refused "no mm.img" "mm"
}

# Whole images with one rule broken and everything else as it should be. All that are about plans
# which lead outside of the mappings, and of those that the index shows some, or with CKF_LONG all.
bad_rules() {
	local name rule class section nr=0 mutate=$ROOT/tests/py/mutate.py
	while read -r name rule class section; do
		case $class,$rule in
		restore,*) ;;
		corrupt,R-op | corrupt,R-lane | corrupt,R-huge | corrupt,R-chunk | unsupported,*)
			nr=$((nr + 1))
			[ -n "${CKF_LONG:-}" ] || [ $((nr % 12)) = 1 ] || continue
			;;
		*) continue ;;
		esac
		rm -rf "$D/bad"
		if "$PYTHON" "$mutate" "$name" "$D/fast" "$D/bad"; then
			echo "$V: $name ($rule, $section)"
			refused "$name" "corrupt|unsupported"
		fi
	done < <("$PYTHON" "$mutate" list)
}

bad_images() {
	start_ready "$PROGS/bigproc" . 8 mixed
	dump "$PID" "$D/other-dump"
	convert "$D/other-dump" "$D/other"
	start_ready "$PROGS/mixed" .
	TREE=$(tree_of "$PID")
	dump "$PID" "$D/dump"
	convert "$D/dump" "$D/fast"
	bad_packs
	bad_indexes
	bad_files
	bad_rules
	restore_fast "$D/fast"
	check "$PID"
	stop "$PID"
}

each_version bad_images

# SPDX-License-Identifier: MIT
#
# What the end-to-end tests share. A test sources this first, then works in $W, a directory of its
# own that is kept only if the test fails. It passes with exit code 0 and skips with 77, by skip().
#
# CKFAST, CRIU and CRIU_STOCK choose other programs than those of build/bin.
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

TEST=$(basename "$0" .sh)
W=$BUILD/e2e/$TEST
GIVEN_CRIU=${CRIU:-}
GIVEN_CRIU_STOCK=${CRIU_STOCK:-}

skip() {
	echo "SKIP: $*"
	exit 77
}

# An error in a command that no one checks has a place, too.
on_error() {
	echo "FAIL: ${BASH_SOURCE[1]}:${BASH_LINENO[0]}: ${BASH_COMMAND%%$'\n'*}" >&2
}
trap on_error ERR
trap at_exit EXIT
set -E

at_exit() {
	local status=$?
	trap - ERR
	if [ $status = 0 ] || [ $status = 77 ]; then
		rm -rf "$W"
	else
		show_logs >&2 || true
	fi
	exit $status
}

# The end of CRIU's newest log, which says why it failed.
show_logs() {
	local log
	log=$(find "$W" -name '*.log' -printf '%T@ %p\n' | sort -n | tail -n 1 | cut -d' ' -f2-)
	[ -n "$log" ] || return 0
	echo "--- $log"
	grep -aE 'Error|Warn|fast-image' "$log" | tail -n 15
}

rm -rf "$W"
mkdir -p "$W"
cd "$W"

need_ckfast() {
	[ -x "$CKFAST" ] || skip "no $CKFAST (make all)"
}

# each_version COMMAND…: runs it for each CRIU that is built both ways, with V, CRIU, CRIU_STOCK
# and a directory D.
each_version() {
	local stock versions=()
	need_ckfast
	if [ -n "$GIVEN_CRIU_STOCK" ]; then
		versions=(given)
	else
		for stock in "$BUILD"/bin/criu-*-stock; do
			V=${stock##*/criu-}
			V=${V%-stock}
			[ ! -x "$BUILD/bin/criu-$V" ] || versions+=("$V")
		done
	fi
	[ ${#versions[@]} -gt 0 ] || skip "no patched CRIU in build/bin (make criu)"
	for V in "${versions[@]}"; do
		use_criu "${GIVEN_CRIU_STOCK:-$BUILD/bin/criu-$V-stock}" "${GIVEN_CRIU:-$BUILD/bin/criu-$V}"
		D=$W/$V
		mkdir -p "$D"
		"$@"
	done
}

# snapshot PID FILE: what has to be the same after a restore, of the whole tree; see snapshot.py.
snapshot() {
	"$PYTHON" "$ROOT/tests/e2e/snapshot.py" save "$2" $(tree_of "$1")
}

# same_snapshot ONE OTHER WHAT. Two flags of mappings do not count. CRIU maps the private pages of
# files writable for a while, which makes them accountable (ac) for good; and 4.1 forgets "wipe on
# fork" (wf).
same_snapshot() {
	local ignored=(ac)
	case $V in
	4.1*) ignored+=(wf) ;;
	esac
	"$PYTHON" "$ROOT/tests/e2e/snapshot.py" diff "$1" "$2" "${ignored[@]}" >"$D/snapshot.diff" ||
		fail "$3: the process is not as before: $(head -n 20 "$D/snapshot.diff")"
}

# facts DIR: one line for each entry of a dump: name, type, mode, owner, mtime, link, contents.
facts() {
	local dir=$1 f
	(
		cd "$dir"
		find . -mindepth 1 -printf '%P %y %m %U %G %T@ %s %l\n' | sort
		find . -type f -print0 | sort -z | xargs -0 -r sha256sum
	)
}

# convert DUMP FAST OPTIONS…: and verifies.
convert() {
	"$CKFAST" convert "$@" >"$D/convert.out" 2>&1 || fail "convert: $(cat "$D/convert.out")"
	"$CKFAST" verify "$2" >"$D/verify.out" 2>&1 || fail "verify: $(cat "$D/verify.out")"
}

# extract_same FAST DUMP: extract gives back the dump.
extract_same() {
	rm -rf "$D/extracted"
	"$CKFAST" extract "$1" "$D/extracted" >"$D/extract.out" 2>&1 ||
		fail "extract: $(cat "$D/extract.out")"
	diff <(facts "$2") <(facts "$D/extracted") >"$D/extract.diff" ||
		fail "extract: not the same: $(head "$D/extract.diff")"
	rm -rf "$D/extracted"
}

# compare_memory: restores $D/fast, stopped, and compares each page with $D/dump. $D/memory is from
# memcmp --save.
compare_memory() {
	"$ROOT/tests/e2e/memcmp" --criu "$CRIU" --before "$D/memory" --ignore wf \
		"$D/dump" "$D/fast" >"$D/memcmp.out" 2>&1 || fail "$(cat "$D/memcmp.out")"
}

# restore_refused FAST WHAT PATTERN: restoring FAST, which WHAT is wrong with, fails, saying PATTERN,
# and no process of $TREE is left.
restore_refused() {
	local p
	if restore "$CRIU" "$1" --fast-image; then
		stop "$PID"
		fail "$2: was restored"
	fi
	for p in $TREE; do
		wait_for 5 is_gone "$p" || fail "$2: process $p is left behind"
	done
	grep -aE "Error.*fast-image: .*($3)" "$D/restore.log" >/dev/null ||
		fail "$2: no clear error: $(log_errors "$D/restore.log")"
}

# flip FILE OFFSET: turns all bits of one byte.
flip() {
	"$PYTHON" - "$1" "$2" <<-'END'
		import sys
		with open(sys.argv[1], "r+b") as f:
		    f.seek(int(sys.argv[2]))
		    byte = f.read(1)
		    f.seek(int(sys.argv[2]))
		    f.write(bytes([byte[0] ^ 255]))
	END
}

# roundtrip PROG ARGS…: start, dump, restore with the stock CRIU, convert, extract, restore fast; the
# process is checked and compared each time. Leaves $D/dump and $D/fast. DUMPER may name the CRIU to
# dump with.
roundtrip() {
	start_ready "$@"
	roundtrip_from check
}

# roundtrip_from CHECKER: the same for the process PID, which CHECKER PID checks.
roundtrip_from() {
	local checker=$1
	snapshot "$PID" "$D/before"
	"$ROOT/tests/e2e/memcmp" --save "$D/memory" "$PID"
	dump "$PID" "$D/dump"

	restore_stock "$D/dump"
	$checker "$PID"
	stop "$PID"

	facts "$D/dump" >"$D/dump.facts"
	convert "$D/dump" "$D/fast"
	"$CKFAST" inspect "$D/fast" >"$D/inspect.out" || fail "inspect"
	extract_same "$D/fast" "$D/dump"
	diff "$D/dump.facts" <(facts "$D/dump") >/dev/null || fail "convert changed the dump"
	compare_memory

	restore_fast "$D/fast"
	snapshot "$PID" "$D/after"
	same_snapshot "$D/before" "$D/after" "fast restore"
	$checker "$PID"
	stop "$PID"
}

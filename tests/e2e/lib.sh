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

# at_exit [STATUS]: a test with a trap of its own gives it the status that it began with.
at_exit() {
	local status=${1:-$?}
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

no_engine() {
	! cat /proc/[0-9]*/comm 2>/dev/null | grep -qE '^(conmon|podman|runc|containerd-shim)'
}

# What a container engine starts to clear up after a container writes to $W, and ends when it is done.
engines_end() {
	wait_for 20 no_engine || true
}

need_ckfast() {
	[ -x "$CKFAST" ] || skip "no $CKFAST (make all)"
}

EVERY_VERSION=
# Before each_version, where what is tested depends on CRIU's version.
every_version() {
	EVERY_VERSION=yes
}

# each_version COMMAND…: runs it for the newest CRIU that is built both ways, in long runs and after every_version for
# each of them, with V, CRIU, CRIU_STOCK and a directory D.
each_version() {
	local stock versions=()
	need_ckfast
	if [ -n "$GIVEN_CRIU_STOCK" ]; then
		versions=("$("$GIVEN_CRIU_STOCK" --version | sed -n 's/^Version: //p')")
	else
		for stock in "$BUILD"/bin/criu-*-stock; do
			V=${stock##*/criu-}
			V=${V%-stock}
			[ ! -x "$BUILD/bin/criu-$V" ] || versions+=("$V")
		done
	fi
	[ ${#versions[@]} -gt 0 ] || skip "no patched CRIU in build/bin (make criu)"
	[ -n "${CKF_LONG:-}${EVERY_VERSION:-}" ] || versions=("${versions[-1]}")
	for V in "${versions[@]}"; do
		use_criu "${GIVEN_CRIU_STOCK:-$BUILD/bin/criu-$V-stock}" "${GIVEN_CRIU:-$BUILD/bin/criu-$V}"
		D=$W/$V
		mkdir -p "$D"
		"$@"
	done
}

# snapshot PID FILE: what has to be the same after a restore, of the whole tree; see snapshot.py.
snapshot() {
	"$PYTHON" "$ROOT/tests/e2e/snapshot.py" save "$2" "$PROGS/taskstate" $(tree_of "$1")
}

# stock_snapshot DUMP: what stock CRIU makes of it, in $D/stock; DUMP stays as it is, and nothing is
# left running.
stock_snapshot() {
	restore_stock "$1" -W "$D"
	snapshot "$PID" "$D/stock"
	stop "$PID"
}

# committed_by PID: ends the process and all below it, and sets COMMITTED to what the kernel had
# committed for them, in KiB: by how much Committed_AS falls. What others do in these milliseconds is
# in it, too.
committed_by() {
	local tree
	tree=$(tree_of "$1")
	COMMITTED=$(
		"$PYTHON" - $tree <<-'END'
			import os, select, signal, sys
			meminfo = open("/proc/meminfo", "rb", buffering=0)
			def committed():
			    meminfo.seek(0)
			    return int(meminfo.read().split(b"Committed_AS:")[1].split()[0])
			tree = [os.pidfd_open(int(pid)) for pid in sys.argv[1:]]
			before = committed()
			for fd in tree:
			    signal.pidfd_send_signal(fd, signal.SIGKILL)
			for fd in tree:
			    select.select([fd], [], [])
			print(before - committed())
		END
	)
	all_gone $tree
}

committed_as() {
	awk '/^Committed_AS:/ { print $2 }' /proc/meminfo
}

# same_snapshot WHAT: after a fast restore that WHAT says more of, the process PID and all below it
# are as in $D/before, or as in $D/stock where stock CRIU does not bring something back. The last pid
# is where stock CRIU leaves it, but for one thread that the criu process makes before all tasks.
same_snapshot() {
	snapshot "$PID" "$D/after"
	"$PYTHON" "$ROOT/tests/e2e/snapshot.py" diff "$D/before" "$D/stock" "$D/after" \
		>"$D/snapshot.diff" ||
		fail "$1: not as before, nor as stock CRIU leaves it: $(head -n 20 "$D/snapshot.diff")"
	[ "$LAST_PID_MOVED" -le $((STOCK_LAST_PID_MOVED + 1)) ] ||
		fail "$1: the last pid moves on by $LAST_PID_MOVED, with stock CRIU by $STOCK_LAST_PID_MOVED"
}

# least_for_stock LOW HIGH STEP [ARG…]: the least limit, but for STEP, that the stock CRIU restores in. The
# test's restores_in ARG… LIMIT COMMAND… says whether it does.
least_for_stock() {
	local low=$1 high=$2 step=$3 mid
	shift 3
	while [ $((high - low)) -gt "$step" ]; do
		mid=$(((low + high) / 2))
		if restores_in "$@" $mid "$CRIU_STOCK" restore -D "$D/dump"; then
			high=$mid
		else
			low=$mid
		fi
	done
	echo $high
}

# in_cgroup CONTROLLER FILE1=VALUE FILE2=VALUE: makes G, a cgroup with a limit; the first is the name of
# the file in version 1, the second in version 2.
in_cgroup() {
	local top=/sys/fs/cgroup name=ckfast-test-$RANDOM-${V:-0}-$1 setting
	if [ -e "$top/$1/cgroup.procs" ]; then
		G=$top/$1/$name
		setting=$2
	elif grep -qw "$1" $top/cgroup.subtree_control 2>/dev/null; then
		G=$top/$name
		setting=$3
	else
		return 1
	fi
	mkdir "$G" 2>/dev/null || return 1
	if ! echo "${setting#*=}" >"$G/${setting%%=*}"; then
		rmdir "$G"
		return 1
	fi
}

leave_cgroup() {
	wait_for 20 rmdir "$G" 2>/dev/null || fail "cannot remove $G"
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

# killed_at CALL ARGS…: "ckfast ARGS…", killed before that call, from 1, of those that change a
# directory. Its exit status; what it says is in $D/killed.out.
killed_at() {
	local call=$1
	shift
	# A shell of its own says "Killed", where nobody hears it.
	(
		LD_PRELOAD="$PROGS/killer.so" CKF_TEST_KILL_AT=$call "$CKFAST" "$@"
		exit $?
	) >"$D/killed.out" 2>&1
}

# killed_at_each MOST OLD FROM TO WHOLE ARGS…: "ckfast ARGS…" in $D/place, killed before each call that changes a
# directory, of which there are fewer than MOST. OLD, a file or a directory, is at FROM; it stays so unless FROM
# is TO. At TO is nothing, or OLD, or what the command WHOLE finds right; in the end nothing else is left.
killed_at_each() {
	local most=$1 old=$2 from=$3 to=$4 right=$5 call rc=1 whole=0
	shift 5
	for ((call = 1; rc != 0; call++)); do
		[ $call -lt $most ] || fail "$*: never ends"
		rm -rf "$D/place"
		mkdir "$D/place"
		cp -rp "$old" "$D/place/$from"
		rc=0
		(cd "$D/place" && killed_at $call "$@") || rc=$?
		[ $rc = 0 ] || [ $rc = 137 ] || fail "$*: call $call: $(cat "$D/killed.out")"
		[ "$from" = "$to" ] || diff -r "$old" "$D/place/$from" || fail "$*: call $call: $from changed"
		if [ -e "$D/place/$to" ] && ! diff -rq "$old" "$D/place/$to" >/dev/null; then
			"$right" "$D/place/$to" || fail "$*: call $call: half of it"
			whole=1
		elif [ "$from" = "$to" ]; then
			[ -e "$D/place/$to" ] || fail "$*: call $call: $to is gone"
		fi
		! ls "$D/place" | grep -vxF -e "$from" -e "$to" || fail "$*: call $call: left to see"
	done
	[ $call -gt 4 ] || fail "$*: only $call calls were counted"
	[ $whole = 1 ] || fail "$*: never whole"
	[ -z "$(find "$D/place" -name '.*ckfast*')" ] || fail "$*: something is left"
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

# The version of the protocol between gpud and its clients.
gpud_version() {
	sed -n 's/^#define CKF_GPUD_VERSION //p' "$ROOT/gpu/suspend/ckf_gpud.h"
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
	snapshot "$PID" "$D/stock"
	$checker "$PID"
	stop "$PID"

	facts "$D/dump" >"$D/dump.facts"
	# For which it takes all codecs; by default most chunks stay raw.
	convert "$D/dump" "$D/fast" --profile nvme
	"$CKFAST" inspect "$D/fast" >"$D/inspect.out" || fail "inspect"
	extract_same "$D/fast" "$D/dump"
	diff "$D/dump.facts" <(facts "$D/dump") >/dev/null || fail "convert changed the dump"
	compare_memory

	restore_fast "$D/fast"
	same_snapshot "fast restore"
	$checker "$PID"
	stop "$PID"
}

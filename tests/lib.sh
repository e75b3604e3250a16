# SPDX-License-Identifier: MIT
#
# Starting, dumping, restoring and checking the programs of tests/progs: shared by the end-to-end
# tests, the benchmarks and the demo. The caller has set the directory D that a program works in,
# and sources this with its own arguments: it starts itself again under the reaper.
set -euo pipefail
shopt -s nullglob

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
BUILD=$ROOT/build
PROGS=$BUILD/progs
CKFAST=${CKFAST:-$BUILD/bin/ckfast}
PYTHON=/usr/bin/python3

fail() {
	echo "FAIL: $*" >&2
	exit 1
}

# The reaper becomes the parent of what is restored and ends what is left at the end. In a pid namespace of
# its own, so that the ids to restore are not taken by somebody else in the meantime.
if [ -z "${CKF_REAPER:-}" ]; then
	[ -x "$PROGS/reaper" ] || fail "no $PROGS/reaper (make progs)"
	CKF_REAPER=1 exec unshare --pid --fork --mount-proc "$PROGS/reaper" "${CKF_TEST_SECONDS:-600}" "$BASH" "$0" "$@"
fi

# use_criu STOCK PATCHED
use_criu() {
	CRIU_STOCK=$1
	CRIU=$2
	# 4.1 waits for ever where hardware breakpoints do not work; this makes it do without.
	case $("$CRIU_STOCK" --version) in
	*"Version: 4.1"*) export CRIU_FAULT=130 ;;
	*) unset CRIU_FAULT ;;
	esac
}

# wait_for SECONDS COMMAND…: until it succeeds.
wait_for() {
	local tries=$(($1 * 20))
	shift
	until "$@"; do
		[ $((tries--)) -gt 0 ] || return 1
		sleep 0.05
	done
}

is_gone() {
	[ ! -e "/proc/$1" ]
}

# start PROG ARGS…: in $D, in a session of its own, away from the terminal. Sets PID.
start() {
	(
		cd "$D"
		for fd in /proc/self/fd/*; do
			fd=${fd##*/}
			[ "$fd" -le 2 ] || eval "exec $fd>&-"
		done
		exec setsid "$@" </dev/null >/dev/null 2>"$D/stderr"
	) &
	PID=$!
	disown "$PID" # no word from the shell when it is killed
}

# start_ready PROG ARGS…: and waits until $D/ready is there.
start_ready() {
	rm -f "$D"/ready* "$D"/report*
	start "$@"
	wait_ready ready
}

wait_ready() {
	wait_for 60 test -e "$D/$1" -o ! -d "/proc/$PID" || true
	[ -e "$D/$1" ] || fail "the program did not get ready: $(cat "$D/stderr")"
}

# stop PID: ends a process that this test has started or restored, and its children. Where coverage is
# measured, first by STOP_SIGNAL, which those that are stopped, or know it as another one, survive.
stop() {
	local p tree
	tree=$(tree_of "$1")
	if [ -n "${STOP_SIGNAL:-}" ]; then
		signal_all "$STOP_SIGNAL" $tree
		for p in $tree; do
			wait_for 2 is_gone "$p" || true
		done
	fi
	signal_all KILL $tree
	all_gone $tree
}

# signal_all SIGNAL PID…
signal_all() {
	local p
	for p in "${@:2}"; do
		kill -"$1" "$p" 2>/dev/null || true
	done
}

all_gone() {
	local p
	for p in "$@"; do
		wait_for 20 is_gone "$p" || fail "process $p is still there"
	done
}

# The process and all below it, the root first.
tree_of() {
	local child
	[ -d "/proc/$1" ] || return 0
	echo "$1"
	for child in $(cat "/proc/$1/task"/*/children 2>/dev/null); do
		tree_of "$child"
	done
}

# dump PID DIR OPTIONS…: with the stock CRIU, or the one in DUMPER.
dump() {
	local pid=$1 dir=$2 tree
	shift 2
	tree=$(tree_of "$pid")
	mkdir -p "$dir"
	"${DUMPER:-$CRIU_STOCK}" dump -t "$pid" -D "$dir" -v4 -o dump.log "$@" ||
		fail "dump: $(log_errors "$dir/dump.log")"
	all_gone $tree
}

log_errors() {
	grep -a Error "$1" | tail -n 3
}

# restore CRIU DIR OPTIONS…: the log becomes $D/restore.log. Returns what CRIU returned.
restore() {
	local tries=5
	until restore_once "$@"; do
		# A process is gone from /proc a moment before its id can be had again.
		grep -aq "Can't fork for .*: File exists" "$D/restore.log" || return 1
		[ $((tries--)) -gt 0 ] || return 1
		sleep 0.1
	done
}

# Sets LAST_PID_MOVED: by how much the namespace's last pid is moved on.
restore_once() {
	local criu=$1 dir=$2 before after status=0
	shift 2
	rm -f "$D/restore.log"
	read -r before </proc/sys/kernel/ns_last_pid
	"$criu" restore -D "$dir" -d -v4 -o "$D/restore.log" "$@" || status=$?
	read -r after </proc/sys/kernel/ns_last_pid
	LAST_PID_MOVED=$((after - before))
	return $status
}

restore_stock() {
	restore "$CRIU_STOCK" "$@" || fail "stock restore: $(log_errors "$D/restore.log")"
	STOCK_LAST_PID_MOVED=$LAST_PID_MOVED
}

restore_fast() {
	local dir=$1
	shift
	restore "$CRIU" "$dir" --fast-image "$@" ||
		fail "fast restore: $(log_errors "$D/restore.log")"
	grep -aq 'fast-image:' "$D/restore.log" || fail "the log says nothing of a fast image"
}

# check PID [REPORT]: the process looks at all of its memory and says OK.
check() {
	local name=${2:-report}
	rm -f "$D/$name"
	kill -USR1 "$1"
	wait_for 60 test -e "$D/$name" || fail "process $1 does not answer"
	grep -q ^OK "$D/$name" || fail "process $1 says: $(cat "$D/$name")"
}

# pretouch MIB: makes the memory for a process of that size, and for the page cache beside it, as quick
# to touch for each restore as for the others.
pretouch() {
	local want=$(($1 * 2 + 256)) free
	free=$(awk '/^MemFree/ { print int($2 / 1024 * 9 / 10) }' /proc/meminfo)
	"$PROGS/pretouch" $((want < free ? want : free))
}

# SPDX-License-Identifier: MIT
#
# What the tests of GPU memory share, on top of lib.sh: the driver of tests/stub in place of
# NVIDIA's, so no GPU is needed; gpud; dumps and restores with the plugin.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

STUB=$BUILD/stub
AGENT=${CKFAST%/bin/*}/lib/libckfast-cuda.so # where ckfast run takes it from
export LD_LIBRARY_PATH=$STUB
export CKF_STUB_ID=$TEST # GPUs of our own
export CKF_STUB_GPUS=2
export CKFAST_GPUD_SOCKET=$W/none # where nobody answers: a helper is started
GPUD_PID=

for needed in "$STUB/libcuda.so.1" "$STUB/cuapp"; do
	[ -e "$needed" ] || skip "no $needed (make stub)"
done
[ -e "$AGENT" ] || skip "no $AGENT (make all)"

# gpud_start OPTIONS…: the daemon, which restores and dumps use from here on.
gpud_start() {
	export CKFAST_GPUD_SOCKET=$W/gpud/sock
	mkdir -p "$W/gpud"
	chmod 700 "$W/gpud"
	rm -f "$CKFAST_GPUD_SOCKET"
	"$CKFAST" gpud --socket "$CKFAST_GPUD_SOCKET" --slots 8 "$@" </dev/null >"$W/gpud.out" 2>&1 &
	GPUD_PID=$!
	disown "$GPUD_PID"
	wait_for 20 test -S "$CKFAST_GPUD_SOCKET" || fail "gpud does not start: $(cat "$W/gpud.out")"
}

gpud_stop() {
	[ -n "$GPUD_PID" ] || return 0
	kill "$GPUD_PID" 2>/dev/null || true
	wait_for 20 is_gone "$GPUD_PID" || fail "gpud does not end"
	GPUD_PID=
	export CKFAST_GPUD_SOCKET=$W/none
}

# The plugin of the CRIU that is tested. PLUGINS: where those of another kind are.
plugin_of() {
	echo "${PLUGINS:-$BUILD/lib}/${1##*/}" | sed 's/-stock$//'
}

# app_start [agent] ARGS…: cuapp, with the agent in front of the driver or without. Sets PID.
app_start() {
	if [ "$1" = agent ]; then
		shift
		start_ready "$CKFAST" run -- "$STUB/cuapp" . "$@"
	else
		start_ready "$STUB/cuapp" . "$@"
	fi
}

gpu_dump() {
	local dir=$1
	shift
	rm -rf "$dir"
	DUMPER=$CRIU dump "$PID" "$dir" --libdir "$(plugin_of "$CRIU")" "$@"
}

# gpu_dump_fails DIR WORD OPTIONS…: the dump fails, says WORD, and the program goes on as before.
gpu_dump_fails() {
	local dir=$1 word=$2
	shift 2
	mkdir -p "$dir"
	! "$CRIU" dump -t "$PID" -D "$dir" -v4 -o "$D/dump.log" --libdir "$(plugin_of "$CRIU")" "$@" ||
		fail "this dump must fail: $word"
	grep -a Error "$D/dump.log" | grep -q "$word" ||
		fail "the log does not say $word: $(log_errors "$D/dump.log")"
	check "$PID"
}

# gpu_restore DIR: with the patched CRIU, of a fast image or of a dump.
gpu_restore() {
	restore "$CRIU" "$1" --libdir "$(plugin_of "$CRIU")" ||
		fail "restore of $1: $(log_errors "$D/restore.log")"
}

# gpu_restore_fails DIR WORD: and nothing is left of it: no process, no GPU memory.
gpu_restore_fails() {
	! restore "$CRIU" "$1" --libdir "$(plugin_of "$CRIU")" || fail "this restore must fail: $2"
	grep -a Error "$D/restore.log" | grep -q "$2" ||
		fail "the log does not say $2: $(log_errors "$D/restore.log")"
	wait_for 20 is_gone "$PID" || fail "$2: a process is left"
	gpu_idle
}

gpu_bytes() {
	"$STUB/stub-smi" | awk '{ n += $2 } END { print n + 0 }'
}

gpu_is_idle() {
	[ "$(gpu_bytes)" = 0 ]
}

gpu_idle() {
	wait_for 20 gpu_is_idle || fail "GPU memory is left: $("$STUB/stub-smi")"
}

# pair_start KIND ARGS…: a shell, PID, and two processes with CUDA below it, APPS, in directories of their
# own. KIND: agent, or empty. Calls of each fail by a file of its own, NAME/fail.
APPS=()
pair_start() {
	local run=() name
	[ "$1" != agent ] || run=("$CKFAST" run --)
	shift
	mkdir -p "$D/one" "$D/two"
	rm -f "$D"/{one,two}/{ready,report,fail}
	start "$BASH" -c 'args=$1; shift
		for name in one two; do CKF_STUB_FAIL_FILE=$PWD/$name/fail "$@" $name $args & done; wait' \
		pair "$*" "${run[@]}" "$STUB/cuapp"
	for name in one two; do
		wait_for 60 test -e "$D/$name/ready" || fail "$name does not get ready: $(cat "$D/stderr")"
	done
	mapfile -t APPS < <(tree_of "$PID" | tail -n +2)
	[ ${#APPS[@]} = 2 ] || fail "not two processes: ${APPS[*]}"
}

# pair_check WHEN: both compute on, and their memory is right.
pair_check() {
	local name p
	rm -f "$D"/{one,two}/report
	for p in "${APPS[@]}"; do
		kill -USR1 "$p" || fail "$1: process $p is gone"
	done
	for name in one two; do
		wait_for 60 test -e "$D/$name/report" || fail "$1: $name does not answer"
		grep -q ^OK "$D/$name/report" || fail "$1: $name says $(cat "$D/$name/report")"
	done
}

pair_dump() {
	mkdir -p "$D/failed"
	"$CRIU" dump -t "$PID" -D "$D/failed" -v4 -o "$D/dump.log" --libdir "$(plugin_of "$CRIU")" "$@"
}

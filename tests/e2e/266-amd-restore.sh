#!/bin/bash
# SPDX-License-Identifier: MIT
# The patched amdgpu plugin on the fake of tests/stub/amd, with libhsakmt as Debian has it: memory of
# one, two and four GPUs, of one process and of a tree, is dumped byte for byte as by CRIU's own plugin and
# restored by the engines; by stores, or by the plugin, where the engines cannot be had. When a call
# fails, the restore succeeds in another way, or no task runs.
. "$(dirname "$0")/lib.sh"
. "$ROOT/tests/e2e/amd.sh"

# dump_by CRIU DIR PLUGINS: the tree runs on.
dump_by() {
	mkdir "$2"
	amd "$1" dump -t "$PID" -D "$2" -v4 -o dump.log --libdir "$3" --leave-running ||
		fail "dump: $(log_errors "$2/dump.log")"
}

start_rocm() {
	local i
	amd start_ready "$BUILD/stub/rocmprog" . "$@"
	for i in $(seq "${2:-0}"); do
		wait_ready "ready$i"
	done
	pids=($(cat "$D"/ready*))
}

check_all() {
	local i
	check "$PID"
	for i in $(seq $((${#pids[@]} - 1))); do
		check "$(cat "$D/ready$i")" "report$i"
	done
}

# restores PATTERN VARIABLE=VALUE…: it succeeds, and the log says how.
restores() {
	local pattern=$1
	shift
	(
		[ $# = 0 ] || export "$@"
		amd restore_fast "$D/fast" --libdir "$D/patched"
	)
	grep -aq "$pattern" "$D/restore.log" || fail "$*: the log has no $pattern"
	check_all
	stop "$PID"
}

# A restore in which a call fails: either all is right, or nothing runs.
survives() {
	local status=0
	(
		export "$@"
		amd restore "$CRIU" "$D/fast" --fast-image --libdir "$D/patched" --fast-timeout 3
	) || status=$?
	if [ $status = 0 ]; then
		check_all
		stop "$PID"
	else
		all_gone "${pids[@]}"
	fi
	! grep -aq 'core dumped\|Segmentation' "$D/restore.log" || fail "$*: a crash"
	last_status=$status
}

# round GPUS MIB CHILDREN
round() {
	make_world $1
	start_rocm "$2" "$3"
	rm -rf "$D/dump" "$D/dump2" "$D/fast"
	dump_by "$CRIU_STOCK" "$D/dump" "$D/plugins"
	dump_by "$CRIU" "$D/dump2" "$D/patched"
	! grep -aq 'fast-image: amd:' "$D/dump2/dump.log" ||
		fail "not by the engines: $(grep -a 'fast-image: amd:' "$D/dump2/dump.log")"
	for file in "$D"/dump/amdgpu-*; do
		cmp "$file" "$D/dump2/${file##*/}" || fail "another dump: ${file##*/}"
	done
	check_all
	stop "$PID"
	"$CKFAST" convert -q --amd "$D/dump2" "$D/fast"
	restores 'filled by their engines'
	! grep -aq 'copies the memory' "$D/restore.log" || fail "the plugin copied"
	[ "$(grep -ac 'amd: GPU .* filled' "$D/restore.log")" = $(($(wc -w <<<"$1") * ${#pids[@]})) ] ||
		fail "not all of the GPUs"
}

ways() {
	restores 'filled by stores' CKF_NO_SDMA=1
	restores 'The plugin copies the memory' CKF_NO_SDMA=1 AMD_BAR=0
	restores 'fast-image:' CKF_NO_AMD=1
	! grep -aq 'amd: Process' "$D/restore.log" || fail "CKF_NO_AMD=1 did nothing"
}

failures() {
	local call
	for call in version acquire apertures policy queue map:3 dmabuf_info dmabuf_import packet packet:3; do
		survives AMD_FAIL=$call
		case $call in
		packet*)
			[ $last_status != 0 ] || fail "$call: a restore with an engine that stood still"
			grep -aq 'Memory of AMD GPUs was not restored: .*an SDMA engine has done nothing' \
				"$D/restore.log" || fail "$call: $(log_errors "$D/restore.log")"
			;;
		acquire | apertures | queue | dmabuf_import)
			[ $last_status = 0 ] || fail "$call: $(log_errors "$D/restore.log")"
			;;
		esac
	done
	survives AMD_FAIL=dmabuf_map CKF_NO_SDMA=1
	[ $last_status = 0 ] || fail "dmabuf_map: $(log_errors "$D/restore.log")"
}

# A dump in which copies fail is as good as one by the plugin, or fails; the process runs on.
failed_dumps() {
	local call
	start_rocm 1
	for call in queue dmabuf_import packet; do
		rm -rf "$D/dump3"
		mkdir "$D/dump3"
		if AMD_FAIL=$call amd "$CRIU" dump -t "$PID" -D "$D/dump3" -v4 -o dump.log \
			--libdir "$D/patched" --leave-running; then
			[ $call != packet ] || fail "a dump by an engine that stood still"
			"$CKFAST" convert -q --amd "$D/dump3" "$D/fast3" || fail "$call: a bad dump"
			rm -rf "$D/fast3"
		fi
		check "$PID"
	done
	stop "$PID"
}

# dump_to_odd FILE: a dump in which that is in the place of a file with memory of a GPU.
dump_to_odd() {
	rm -rf "$D/dump3"
	mkdir "$D/dump3"
	ln -s "$1" "$D/dump3/$PAGES"
	amd "$CRIU" dump -t "$PID" -D "$D/dump3" -v4 -o dump.log --libdir "$D/patched" --leave-running
}

# The log says why memory of a GPU cannot be written. A stream gets it from the plugin.
odd_files() {
	local reader
	[ -e /dev/full ] || mknod -m 666 /dev/full c 1 7
	start_rocm 1
	dump_by "$CRIU" "$D/dump4" "$D/patched"
	PAGES=$(cd "$D/dump4" && echo amdgpu-pages-*-001a.img)
	mkfifo "$D/fifo"
	cat "$D/fifo" >"$D/streamed" &
	reader=$!
	dump_to_odd "$D/fifo" || fail "a dump to a stream: $(log_errors "$D/dump3/dump.log")"
	wait $reader
	grep -aq 'The plugin copies memory of AMD GPUs by itself: no place in its file: Illegal seek' \
		"$D/dump3/dump.log" || fail "a stream: $(log_errors "$D/dump3/dump.log")"
	cmp "$D/streamed" "$D/dump4/$PAGES" || fail "another dump by a stream"
	# Last: a dump that fails leaves the fake's process paused, as CRIU's own plugin does.
	! dump_to_odd /dev/full || fail "a dump to a full device"
	grep -aq "Can't write what comes before memory of AMD GPUs: No space left" "$D/dump3/dump.log" ||
		fail "a full device: $(log_errors "$D/dump3/dump.log")"
	rm -rf "$D/dump3" "$D/dump4" "$D/fifo"
	check "$PID"
	stop "$PID"
}

# limited ARGUMENTS…: a restore with these arguments, in the cgroup G if there is one. FILLER is what the log
# says of the process that fills.
limited() {
	(
		[ -z "${G-}" ] || echo "$BASHPID" >"$G/cgroup.procs"
		amd restore "$CRIU" "$D/fast" --fast-image --libdir "$D/patched" "$@"
	) || fail "restore with limits: $(log_errors "$D/restore.log")"
	check_all
	stop "$PID"
	FILLER=$(grep -a 'amd: Process' "$D/restore.log") || FILLER=
}

# No more threads fill at once than --fast-threads and a cgroup allow.
few_threads() {
	limited --fast-threads 2
	[[ $FILLER = *", 2 at once"* ]] || fail "--fast-threads 2: $FILLER"
	in_cgroup pids pids.max=6 pids.max=6 || {
		SKIPPED+=" pids"
		return 0
	}
	limited --fast-threads 8
	[ -z "$FILLER" ] || fail "with hardly a thread left: $FILLER"
	leave_cgroup
	G=
}

# The slots are in the budget: there are fewer where memory is scarce. Not as scarce as can be: what the fake
# has for memory of GPUs is in the cgroup, too.
little_memory() {
	local mib limit fewer=0
	in_cgroup memory memory.limit_in_bytes=-1 memory.max=max || {
		SKIPPED+=" memory"
		return 0
	}
	limit=$(cd "$G" && echo memory.limit_in_bytes*)
	[ -n "$limit" ] || limit=memory.max
	for mib in 512 128 112 104 96 88 80 72 64 56 48; do
		echo $((mib << 20)) >"$G/$limit"
		limited --fast-threads 2
		case $FILLER in
		*"with 8 slots"*) ;;
		*"with "[24]" slots"*)
			fewer=1
			break
			;;
		*) fail "$mib MiB: $FILLER" ;;
		esac
	done
	[ $fewer = 1 ] || fail "never fewer slots"
	leave_cgroup
	G=
}

all() {
	build_plugin "$BUILD/criu-$V-stock" "$D/plugins"
	build_plugin "$BUILD/criu-$V" "$D/patched"
	round 26:128:64 6 0
	round "26:128:64 48879:129:32 3:130:32 4:131:48" 2 0
	round "26:128:64 48879:129:32" 3 0
	ways
	if [ "$(readlink "$BUILD/bin/criu")" = "criu-$V" ]; then
		few_threads
		little_memory
		failures
		failed_dumps
		odd_files
	fi
	round "26:128:64 48879:129:32" 2 2
}

need_hsakmt
LIBDRM_CFLAGS=${LIBDRM_CFLAGS-$(pkg-config --cflags libdrm 2>/dev/null)} ||
	skip "no headers of libdrm (libdrm-dev)"
SKIPPED=
each_version all
[ -z "$SKIPPED" ] || skip "no cgroup controllers for limits here:$SKIPPED"

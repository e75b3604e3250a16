#!/bin/bash
# SPDX-License-Identifier: MIT
# Contents of an unlinked file are checked while CRIU copies them, and no process runs before that is done.
. "$(dirname "$0")/lib.sh"

MIB=32
FILE_MIB=16

# last_pid_after RESTORE: in a pid namespace where nothing else runs.
last_pid_after() {
	unshare --pid --fork --mount-proc --kill-child "$PROGS/reaper" 60 "$BASH" -c \
		"echo 100 >/proc/sys/kernel/ns_last_pid; $1 -d >/dev/null 2>&1 || echo failed
		cat /proc/sys/kernel/ns_last_pid"
}

beside() {
	grep -aq 'fast-image: Process .* checks the contents' "$D/restore.log"
}

# Where no id may be had besides those of the tree, it is done in the criu process.
no_process() {
	restore_fast "$D/fast" --fast-threads 4
	beside || fail "the contents were not checked by a process"
	check "$PID"
	stop "$PID"
	CKF_GROUP=$(mktemp -d -p /sys/fs/cgroup/pids ckfast-test-XXXXXX 2>/dev/null) || return 0
	echo 3 >"$CKF_GROUP/pids.max"
	(
		echo "$BASHPID" >"$CKF_GROUP/cgroup.procs"
		rm -f "$D/restore.log"
		exec "$CRIU" restore -D "$D/fast" -d -v4 -o "$D/restore.log" --fast-image
	) || fail "restore where three processes are allowed: $(log_errors "$D/restore.log")"
	! beside || fail "a process checked the contents where there was no room for one"
	check "$PID"
	stop "$PID"
	wait_for 20 rmdir "$CKF_GROUP" || fail "cannot remove $CKF_GROUP"
}

same_last_pid() {
	local dump fast
	dump=$(last_pid_after "$CRIU restore -D $D/dump -o $D/stock.log")
	fast=$(last_pid_after "$CRIU restore -D $D/fast -o $D/restore.log")
	[ "$fast" = "$dump" ] || fail "last pid $fast, $dump from the dump"
}

# damaged OFFSET: the file's contents, which CRIU itself would not look at.
damaged() {
	local ghost
	ghost=$(echo "$D"/fast/ghost-file-*.img)
	flip "$ghost" "$1"
	restore_refused "$D/fast" "a ghost file that is damaged at $1" "wrong checksum of ghost-file-.*\.img"
	beside || fail "the contents were not checked by a process"
	[ ! -e "$D/report" ] || fail "the process ran"
	flip "$ghost" "$1"
}

ghost_files() {
	start_ready "$PROGS/ghost" . $MIB $FILE_MIB
	TREE=$PID
	dump "$PID" "$D/dump" --ghost-limit $((FILE_MIB + 1))M
	convert "$D/dump" "$D/fast"
	same_last_pid
	no_process
	rm -f "$D/report"
	damaged $((8 << 20))
	damaged $(((FILE_MIB << 20) - 1))
	restore_fast "$D/fast"
	check "$PID"
	stop "$PID"
}

each_version ghost_files

#!/bin/bash
# SPDX-License-Identifier: MIT
# Filters of system calls: what the restore does without where the stock CRIU needs it not, a fast restore does without, too.
. "$(dirname "$0")/lib.sh"

# x86-64. io_uring_setup, _enter, _register; userfaultfd; process_vm_writev; unshare; close_range; madvise;
# sched_getaffinity; cachestat; fstatfs; tgkill; flock; ioctl of userfaultfd is open to all
CALLS=(425 426 427 323 311 272 272,436 28 204 451 138 234 73 425,426,427,323,311,272,436,451,204)
EPERM=1
ENOSYS=38

# with WHICH ERRNO CALLS: restores with these denied.
with() {
	local which=$1 dir=fast criu=$CRIU
	[ "$which" = fast ] || { dir=dump; criu=$CRIU_STOCK; }
	rm -f "$D/restore.log"
	"$PROGS/deny" "$2" "$3" "$criu" restore -D "$D/$dir" -d -v4 -o "$D/restore.log" >/dev/null 2>&1
}

filters() {
	local calls error
	start_ready "$PROGS/mixed" .
	dump "$PID" "$D/dump"
	convert "$D/dump" "$D/fast"
	for calls in "${CALLS[@]}"; do
		for error in $EPERM $ENOSYS; do
			if ! with stock $error $calls; then
				all_gone "$PID"
				echo "$V: the stock CRIU needs $calls"
				continue
			fi
			stop "$PID"
			sync "$D/fast/ckfast.pack"
			dd if="$D/fast/ckfast.pack" iflag=nocache count=0 status=none
			with fast $error $calls || fail "$calls answer $error: $(log_errors "$D/restore.log")"
			check "$PID"
			stop "$PID"
		done
	done
}

each_version filters

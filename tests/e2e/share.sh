# SPDX-License-Identifier: MIT
#
# For tests of device memory that processes share: cushare, which is a tree of such processes.

RANKS=() # their pids, the root, PID, first

# share_start KIND ARGS…: cushare with these arguments. KIND: agent, with the agent in front of the
# driver, or empty.
share_start() {
	local run=() rank
	[ "$1" != agent ] || run=("$CKFAST" run --)
	shift
	RANKS=()
	rm -f "$D"/ready* "$D"/report* "$D"/pid*
	start "${run[@]}" "$STUB/cushare" . "$@"
	for rank in $(share_ranks "$@"); do
		wait_ready "ready$rank"
		RANKS+=("$(cat "$D/pid$rank")")
	done
}

# The numbers of the processes that procs=N makes.
share_ranks() {
	local arg nr=2
	for arg in "$@"; do
		[[ $arg != procs=* ]] || nr=${arg#procs=}
	done
	seq 0 $((nr - 1))
}

# share_round: each process finds all of its memory as it should be, and changes its part.
share_round() {
	local rank
	for rank in "${!RANKS[@]}"; do
		check "${RANKS[rank]}" "report$rank"
	done
}

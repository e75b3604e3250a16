#!/bin/bash
# SPDX-License-Identifier: MIT
# Mappings with every kind of advice that leaves a flag; guard pages where kernel and CRIU know them.
. "$(dirname "$0")/lib.sh"

# CRIU dumps guard pages from 4.2 on.
knows_guards() {
	case $("$CRIU_STOCK" --version) in
	*"Version: 4.1"*) return 1 ;;
	esac
	start "$PROGS/madv" "$D" guard
	wait_for 60 test -e "$D/ready" -o ! -d "/proc/$PID" || true
	stop "$PID"
	[ -e "$D/ready" ]
}

advice() {
	if knows_guards; then
		roundtrip "$PROGS/madv" . guard
	else
		roundtrip "$PROGS/madv" .
	fi
}

each_version advice

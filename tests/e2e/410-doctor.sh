#!/bin/bash
# SPDX-License-Identifier: MIT
# ckfast doctor on this machine, and with an image of a real process: whose id is taken, whose program
# is gone, whose base is missing, and which does not fit a memory cgroup.
. "$(dirname "$0")/lib.sh"

MIB=64
# Not below this tree: who owns that may not be trusted by who runs the test.
BIN=$(mktemp -d /tmp/ckfast-doctor-XXXXXX)
trap 'status=$?; rm -rf "$BIN"; at_exit $status' EXIT
FILTER=() # what ckfast doctor is run by

# doctor ARGS…: leaves the report in $D/report.json, and its exit code in STATUS. It is JSON, and the
# exit code is that of its state.
doctor() {
	local broken
	STATUS=0
	PATH=$BIN:$PATH "${FILTER[@]}" "$CKFAST" doctor --json "$@" >"$D/report.json" 2>"$D/err" || STATUS=$?
	"$PYTHON" -m json.tool "$D/report.json" >/dev/null || fail "doctor $*: no JSON"
	[ ! -s "$D/err" ] || fail "doctor $*: $(cat "$D/err")"
	broken=$(report 'int(r["state"] == "broken")')
	[ "$STATUS" = "$broken" ] || fail "doctor $*: exit code $STATUS, state $(report 'r["state"]')"
	[ "$(report 'r["version"]')" = 1 ] || fail "doctor $*: another version of JSON"
}

# report EXPRESSION: of r, the report, and checks(NAME): those of the image with that name.
report() {
	"$PYTHON" -c 'import json, sys
r = json.load(open(sys.argv[1]))
about = "image" if "image" in r else "machine"
def checks(name):
    return [c for c in r["checks"] if c["name"] == name and c["about"] == about]
print(eval(sys.argv[2]))' "$D/report.json" "$1"
}

# states NAME STATE: all checks with that name, of which there are some, have that state.
states() {
	[ "$(report "set(c['state'] for c in checks('$1'))")" = "{'$2'}" ] ||
		fail "$1 is not $2: $(report "checks('$1')")"
}

# alone NAME: of the image, nothing else is broken.
alone() {
	local got
	got=$(report 'sorted(set(c["name"] for c in r["checks"] if c["about"] == "image" and c["state"] == "broken"))')
	[ "$got" = "['$1']" ] || fail "broken is $got, want $1: $(cat "$D/report.json")"
}

machine() {
	local name
	doctor
	for name in criu rights process_ids io_uring userfaultfd huge_pages memory threads gpu; do
		[ "$(report "len(checks('$name'))")" -ge 1 ] || fail "nothing about $name"
	done
	states criu ok
	states process_ids ok
	PATH=/nowhere "$CKFAST" doctor >"$D/text" || true
	grep -qE '^criu +' "$D/text" || fail "no line about criu: $(cat "$D/text")"
	STATUS=0
	PATH=$BIN:$PATH "$CKFAST" doctor --strict >"$D/text" || STATUS=$?
	[ $STATUS = "$(report 'int(r["state"] != "ok")')" ] || fail "--strict: exit code $STATUS"
	doctor --pid $$
	states process ok
	doctor --pid 999999
	states process broken
}

# A criu that hangs does not hang the report.
hanging() {
	mkdir "$BIN/hang"
	printf '#!/bin/sh\nexec sleep 1000\n' >"$BIN/hang/criu"
	chmod 755 "$BIN/hang/criu"
	PATH=$BIN/hang:$PATH timeout 60 "$CKFAST" doctor >"$D/text" && fail "a criu that hangs is well"
	grep -q "hang/criu does not tell its version" "$D/text" || fail "$(cat "$D/text")"
	rm -rf "$BIN/hang"
}

# Filters of system calls: the numbers are those of x86-64.
filtered() {
	local io_uring_setup=425 userfaultfd=323 clone3=435
	FILTER=("$PROGS/deny" 1 $io_uring_setup,$userfaultfd)
	doctor
	states io_uring degraded
	states userfaultfd degraded
	report "checks('io_uring')" | grep -q 'seccomp filter' || fail "the filter is not named"
	# What clone3() lacks, ns_last_pid may have.
	FILTER=("$PROGS/deny" 38 $clone3)
	doctor
	report "checks('process_ids')" | grep -q 'Function not implemented' || fail "$(cat "$D/report.json")"
	FILTER=("$PROGS/deny" kill $io_uring_setup)
	doctor
	states io_uring broken
	FILTER=()
}

small_cgroup() {
	in_cgroup memory memory.limit_in_bytes=$((32 << 20)) memory.max=$((32 << 20)) || {
		echo "no memory cgroup"
		return 0
	}
	# Without swap, which would make up for the memory that is missing.
	echo 0 2>/dev/null >"$G/memory.swap.max" ||
		echo $((32 << 20)) 2>/dev/null >"$G/memory.memsw.limit_in_bytes" || true
	(
		echo "$BASHPID" >"$G/cgroup.procs"
		doctor
		states memory degraded
		doctor "$D/fast"
		states memory broken
		alone memory
	)
	leave_cgroup
}

image() {
	cp -L "$CRIU" "$BIN/criu"
	machine
	hanging
	filtered
	cp "$PROGS/bench_mem" "$D/program"
	start "$D/program" . anon $MIB random
	wait_ready ready.0
	dump "$PID" "$D/dump"
	convert "$D/dump" "$D/fast"
	doctor "$D/fast"
	[ "$(report '[c for c in r["checks"] if c["about"] == "image" and c["state"] != "ok"]')" = "[]" ] ||
		fail "not all is well: $(cat "$D/report.json")"
	[ "$(report 'r["image"]')" = "$D/fast" ] || fail "another image"
	small_cgroup

	restore_fast "$D/fast"
	doctor "$D/fast"
	alone process_ids
	stop "$PID"

	mv "$D/program" "$D/moved"
	doctor "$D/fast"
	alone programs
	report "checks('programs')" | grep -q "$D/program" || fail "the program has no name"
	PATH=$BIN:$PATH "$CKFAST" doctor "$D/fast" >"$D/text" && fail "exit code 0"
	grep -qE '^programs +broken ' "$D/text" || fail "$(cat "$D/text")"
	! grep -qE '^huge_pages +ok' "$D/text" || fail "what is well of the machine is shown, too"
	echo more >>"$D/moved"
	mv "$D/moved" "$D/program"
	doctor "$D/fast"
	alone programs
	report "checks('programs')" | grep -q 'of another size' || fail "the size is not looked at"
	cp "$PROGS/bench_mem" "$D/program"

	"$CKFAST" convert --base "$D/fast" "$D/dump" "$D/second" >/dev/null
	doctor "$D/second"
	states base ok
	mv "$D/fast" "$D/base"
	doctor "$D/second"
	alone base
	doctor --base "$D/base" "$D/second"
	states base ok

	flip "$D/base/ckfast.idx" 100
	doctor "$D/base"
	alone image
	rm -rf "$D/dump" "$D/base" "$D/second"
}

each_version image

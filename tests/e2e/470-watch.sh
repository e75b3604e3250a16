#!/bin/bash
# SPDX-License-Identifier: MIT
#
# ckfast watch converts what turns up, when it is complete, and nothing makes it stop: neither names
# and links that lead elsewhere, nor dumps that cannot be converted, nor converters that are killed.
. "$(dirname "$0")/lib.sh"
need_ckfast
D=$W

# new_dumps SEED NAME…: equal dumps, of one seed.
new_dumps() {
	local seed=$1 name
	shift
	rm -rf made
	"$PYTHON" "$ROOT/tests/py/gendump.py" "$seed" made levels=1 meta=0 unknown=0 >/dev/null ||
		fail "gendump"
	for name in "$@"; do
		cp -a made/0 "$name"
	done
}

# new_place: an empty directory to watch.
new_place() {
	rm -rf in metrics state log
	mkdir in
}

once() {
	"$CKFAST" watch --once --settle 0 --json "$@" in >log 2>err
}

# count EVENT [PATTERN]: the lines of the log with that event, and that path.
count() {
	grep "\"event\": \"$1\"" log | grep -c "\"path\": \"${2:-}" || true
}

told() {
	[ "$(count "$1" "$2")" -ge "${3:-1}" ]
}

# daemon PROGRAM OPTION…: sets DAEMON.
daemon() {
	"$1" watch --json --settle 1 "${@:2}" in >log 2>err &
	DAEMON=$!
}

end_daemon() {
	local status=0 begin=$SECONDS
	kill -TERM "$DAEMON"
	wait "$DAEMON" || status=$?
	[ $status = 0 ] || fail "the daemon ended with $status: $(cat err)"
	[ $((SECONDS - begin)) -lt 15 ] || fail "the daemon did not end its converters"
	[ -z "$(find in -name '.*.ckfast-*')" ] || fail "something is left: $(ls -A in)"
}

metric() {
	sed -n "s/^ckfast_watch_$1 //p" metrics
}

is_ascii() {
	! LC_ALL=C grep -qv '^[ -~]*$' "$1"
}

all_at_once() {
	new_place
	new_dumps 3 in/a in/b "$(printf 'in/\033[2J\n\377"c')" in/.hidden in/sub
	mkdir in/deep
	mv in/sub in/deep/sub
	echo text >in/checkpoint-1.tar
	echo text >in/notes.txt
	! once --metrics metrics || fail "a failure is no failure"
	[ "$(count converted)" = 3 ] || fail "not converted: $(cat log)"
	is_ascii log || fail "unprintable names in the log"
	ln -s nowhere "$(printf 'in/\033\303\274.tar')"
	"$CKFAST" watch --once --settle 0 in >text || true
	grep -q 'x1b.xc3.xbc.tar: ignored' text && is_ascii text || fail "unprintable names: $(cat -v text)"
	"$CKFAST" verify -q in/a || fail "in/a"
	[ ! -e in/.hidden/ckfast.idx ] && [ ! -e in/deep/sub/ckfast.idx ] || fail "more than it should"
	told failed in/checkpoint-1.tar || fail "what is no archive did not fail: $(cat log)"
	[ "$(metric converted_total) $(metric failed_total) $(metric queue_length)" = "3 1 0" ] ||
		fail "other numbers: $(cat metrics)"
	[ "$(metric in_bytes_total)" -gt "$(metric out_bytes_total)" ] || fail "bytes: $(cat metrics)"
	[ "$(metric last_success_timestamp_seconds)" -gt 1700000000 ] || fail "time: $(cat metrics)"
	"$PYTHON" -c 'import json, sys
for line in open("log"):
    event = json.loads(line)
    assert event["version"] == 1, line
    if event["event"] == "converted":
        assert event["bytes_before"] > event["bytes_after"] > 0 <= event["seconds"], line' ||
		fail "the log is no JSON: $(cat log)"
	rm in/checkpoint-1.tar
	once --recursive || fail "recursive: $(cat log)"
	[ "$(count found)" = 1 ] && told converted in/deep/sub || fail "recursive: $(cat log)"
}

# What a hostile user may put there: nothing outside is read, and nothing waits.
hostile() {
	new_place
	new_dumps 4 outside in/link in/parent in/abs
	cp outside/pstree.img secret
	facts outside >outside.facts
	ln -s ../outside in/dump
	ln -s ../outside/pages-1.img in/a.tar
	mkfifo in/b.tar.gz
	rm in/link/pstree.img in/link/inventory.img
	cp outside/inventory.img in/link/
	cp outside/pstree.img in/link/
	ln -s ../../secret in/link/core-99.img
	ln -s ../../outside in/parent/parent
	ln -s "$W/in/abs" in/abs/parent
	mkdir in/odd in/odd/inventory.img in/odd/pstree.img
	! once || fail "no failure"
	[ "$(count converted)" = 0 ] || fail "converted: $(cat log)"
	[ "$(grep -c 'leads out of' log)" = 3 ] || fail "links: $(cat log)"
	told ignored in/a.tar && told ignored in/b.tar.gz || fail "not ignored: $(cat log)"
	diff outside.facts <(facts outside) || fail "changed outside"
}

failures_are_kept() {
	new_place
	echo text >in/x.tar
	new_dumps 5 in/bad
	: >in/bad/pstree.img
	! once --state state || fail "no failure"
	[ "$(count failed)" = 2 ] || fail "failures: $(cat log)"
	once --state state || fail "tried again: $(cat log)"
	[ "$(count converting)" = 0 ] || fail "tried again: $(cat log)"
	cp made/0/pstree.img in/bad/
	once --state state || fail "not tried again after a change: $(cat log)"
	told converted in/bad || fail "not tried again after a change: $(cat log)"
}

# What is in an archive does not show: one that is converted is not given to the next converter.
archives() {
	new_place
	fake 'echo "$5" >>calls; echo converted >"$5"'
	sed -i "s|>>calls|>>$W/calls|" bin/ckfast
	rm -f calls
	echo text | tee in/-a.tar in/b.tar.gz in/c.tar.zst in/d.zip >/dev/null
	real/ckfast watch --once --settle 0 --json --state state in >log 2>err || fail "$(cat log)"
	[ "$(sort calls | tr '\n' ' ')" = "-a.tar b.tar.gz c.tar.zst " ] || fail "archives: $(cat calls)"
	real/ckfast watch --once --settle 0 --json --state state in >log 2>err || fail "$(cat log)"
	[ "$(wc -l <calls)" = 3 ] || fail "tried again: $(cat calls)"
	echo changed >in/b.tar.gz
	real/ckfast watch --once --settle 0 --json --state state in >log 2>err || fail "$(cat log)"
	[ "$(wc -l <calls)" = 4 ] || fail "not tried after a change: $(cat calls)"
	printf '#!/bin/sh\necho "ckfast convert: $5: this is a fast image already" >&2\nexit 1\n' >bin/ckfast
	echo text >in/e.tar
	real/ckfast watch --once --settle 0 --json --state state in >log 2>err || fail "$(cat log)"
	told ignored in/e.tar || fail "no fast image: $(cat log)"
}

# An archive of a kubelet becomes a fast one, is one afterwards, and gives the old one back.
real_archives() {
	new_place
	new_dumps 5 checkpoint
	tar -cf in/checkpoint-pod.tar checkpoint
	cp in/checkpoint-pod.tar before.tar
	once || fail "$(cat err)"
	told converted in/checkpoint-pod.tar || fail "an archive: $(cat log)"
	"$CKFAST" verify -q in/checkpoint-pod.tar || fail "an archive that was converted"
	once || fail "$(cat err)"
	told ignored in/checkpoint-pod.tar || fail "an archive that was converted before: $(cat log)"
	"$CKFAST" extract -q in/checkpoint-pod.tar after.tar
	cmp before.tar after.tar || fail "another archive came back"
}

# A dump is converted before the one that it leaves pages to, whatever their names.
parents_last() {
	local names
	for names in "a b" "b a"; do
		set -- $names
		new_place
		rm -rf made
		"$PYTHON" "$ROOT/tests/py/gendump.py" 6 made levels=2 meta=0 unknown=0 >/dev/null
		cp -a made/0 "in/$1"
		cp -a made/1 "in/$2"
		ln -sfn "../$1" "in/$2/parent"
		once || fail "parents: $(cat log)"
		[ "$(count converted)" = 2 ] || fail "parents: $(cat log)"
	done
	new_place
	new_dumps 7 in/a in/b
	ln -s ../b in/a/parent
	ln -s ../a in/b/parent
	timeout 20 "$CKFAST" watch --once --settle 0 in >log 2>&1 || [ $? = 1 ] || fail "each other's parents"
}

written_slowly() {
	new_place
	new_dumps 8 slow moved
	daemon "$CKFAST"
	mkdir in/slow
	exec 8>in/slow/dump.log
	cp -a slow/* in/slow/
	wait_for 20 told found in/slow || fail "not found: $(cat log)"
	sleep 2.5
	told converting in/slow && fail "converted while it was written"
	mv moved in/
	wait_for 20 told converted in/moved || fail "moved in: $(cat log)"
	exec 8>&-
	wait_for 20 told converted in/slow || fail "not converted: $(cat log)"
	end_daemon
}

# More events than the kernel keeps, the last of which is lost.
overflow() {
	new_place
	new_dumps 9 late
	daemon "$CKFAST"
	sleep 0.5
	kill -STOP "$DAEMON"
	"$PYTHON" -c 'import os
for i in range(int(open("/proc/sys/fs/inotify/max_queued_events").read())):
    name = "in/x%d" % (i % 2)
    os.close(os.open(name, os.O_CREAT | os.O_WRONLY))
    os.unlink(name)'
	mv late in/
	kill -CONT "$DAEMON"
	wait_for 20 told converted in/late || fail "not found after an overflow: $(cat log)"
	end_daemon
}

# fake SCRIPT: a converter of that kind, which the daemon at real/ckfast takes for its own.
fake() {
	mkdir -p bin real
	cp "$CKFAST" real/ckfast
	printf '#!/bin/sh\n%s\n' "$1" >bin/ckfast
	chmod 755 bin/ckfast
}

converters() {
	local pid
	new_place
	new_dumps 10 in/a in/b in/c

	fake 'name=$(basename "$(readlink "$5")")
mkdir "in/.$name.ckfast-abcdef" "in/.$name.ckfast-abcdefg"
touch "in/.$name.ckfast-abcdef/ckfast.pack"
kill -9 $$'
	daemon real/ckfast --metrics metrics
	wait_for 20 told failed in/ 3 || fail "killed converters: $(cat log)"
	grep -q 'killed by signal 9' log || fail "does not say how: $(cat log)"
	"$CKFAST" inspect in/a >/dev/null || fail "in/a is no dump any more"
	[ ! -e in/.a.ckfast-abcdef ] || fail "what the converter has left is still there"
	rmdir in/.[abc].ckfast-abcdefg || fail "removed what is not a converter's"
	rm bin/ckfast
	ln -s "$CKFAST" bin/ckfast
	touch in/b/core-1.img
	wait_for 20 told converted in/b || fail "it did not go on: $(cat log)"
	end_daemon
	[ "$(metric failed_total) $(metric converted_total)" = "3 1" ] || fail "$(cat metrics)"

	rm bin/ckfast
	fake 'echo $$ >>pids; exec sleep 100'
	sed -i "s|>>pids|>>$W/pids|" bin/ckfast
	rm -f pids
	daemon real/ckfast --jobs 2 --state state
	two_run() {
		[ -e pids ] && [ "$(wc -l <pids)" = 2 ]
	}
	wait_for 20 two_run || fail "not two at once: $(cat log)"
	for pid in $(cat pids); do
		[ "$(ps -o ni= -p "$pid" | tr -d ' ')" = 19 ] || fail "the priority is not 19"
		[ "$(ionice -p "$pid")" = idle ] || fail "not idle: $(ionice -p "$pid")"
	done
	end_daemon
	for pid in $(cat pids); do
		is_gone "$pid" || fail "converter $pid is still there"
	done
	[ "$(count stopped)" = 2 ] || fail "stopped: $(cat log)"
	[ ! -e state ] || fail "what was stopped has failed"
}

wrong_usage() {
	! "$CKFAST" watch 2>err || fail "no directory"
	! "$CKFAST" watch nowhere 2>err || fail "a directory that is not there"
	grep -q nowhere err || fail "$(cat err)"
	new_place
	if "$PROGS/deny" 38 437 "$CKFAST" watch --once in 2>err; then
		fail "without openat2() nothing would be found"
	fi
	grep -q 'Function not implemented' err || fail "$(cat err)"
}

# Of a real process: dumped there, and restored.
real() {
	(cd "$W" && rm -rf in && mkdir in)
	daemon "$CKFAST"
	start_ready "$PROGS/bigproc" . 4 mixed
	dump "$PID" "$W/in/dump"
	wait_for 30 told converted in/dump || fail "$V: $(cat log)"
	end_daemon
	restore_fast "$W/in/dump"
	check "$PID"
	stop "$PID"
}

wrong_usage
all_at_once
hostile
failures_are_kept
archives
real_archives
parents_last
written_slowly
overflow
converters
each_version real

#!/bin/bash
# SPDX-License-Identifier: MIT
#
# gpud and its clients, on the fake CUDA driver: saved memory comes back byte for byte from the dump
# and from the fast image, who may ask for it, and what is left when somebody dies in the middle:
# nothing.
. "$(dirname "$0")/lib.sh"
. "$ROOT/tests/gpu/lib.sh"

export CKF_STUB_GPUS=2
export CKF_STUB_MIB=240
mkdir dump out

one_at_a_time() {
	start_gpud
	[ "$(stat -c %a run)" = 700 ] || fail "the directory of the socket: $(stat -c %a run)"
	[ "$(stat -c %a "$CKFAST_GPUD_SOCKET")" = 600 ] || fail "the socket: $(stat -c %a run/*)"
	! "$CKFAST" gpud 2>second.log || fail "a second gpud started"
	grep -q 'listens at .* already' second.log || fail "$(cat second.log)"
	status_is "[d['warm'] for d in s['devices']]" '[True, True]'
	status_is "s['slots']['in_use'], s['transfers']" '(0, [])'
	"$CKFAST" doctor --probe gpud >probe.json
	grep -q '"slots"' probe.json || fail "doctor and gpud: $(cat probe.json)"
	"$CKFAST" doctor --probe cuda >probe.json
	[ "$(grep -c '"ckfast stub GPU"' probe.json)" = 2 ] || fail "doctor and the driver: $(cat probe.json)"
	CKF_STUB_FAIL=cuInit:1 "$CKFAST" doctor --probe cuda >probe.json
	grep -q '"message": "cuInit' probe.json || fail "doctor and a driver that fails: $(cat probe.json)"
	stop_gpud

	# A dead one is in nobody's way.
	start_gpud
	kill -9 "$GPUD"
	wait_for 20 is_gone "$GPUD"
	[ -S "$CKFAST_GPUD_SOCKET" ] || fail "the socket is gone"
	"$CKFAST" doctor --probe gpud | grep -q '"errno": 111' || fail "doctor and a dead gpud"
	start_gpud --device 1 --slots 9 --threads 2
	status_is "[d['warm'] for d in s['devices']]" '[False, True]'
	status_is "s['slots']['total']" 9
	"$CKFAST" gpud --status | grep -q 'GPU 0 .* no context' || fail "the status"
	stop_gpud
	echo hello >run/gpud.sock
	! "$CKFAST" gpud 2>second.log || fail "gpud replaced a file"
	grep -q 'is no socket' second.log || fail "$(cat second.log)"
	rm run/gpud.sock
}

# A dump of CRIU, for convert, with the memory of two processes beside it.
saved() {
	[ -x "$BUILD/bin/criu-stock" ] || skip "no patched CRIU in build/bin (make criu)"
	use_criu "$BUILD/bin/criu-stock" "$BUILD/bin/criu"
	start_ready "$PROGS/bigproc" . 8
	FIRST=$PID
	dump "$PID" "$W/dump"
	works save dump "$FIRST" 24 6 2 10
	cmp "dump/ckfast-gpu-pages-$FIRST.img" "expect-$FIRST" || fail "not what was saved"
	[ "$(du -k "dump/ckfast-gpu-pages-$FIRST.img" | cut -f1)" -lt 36000 ] || fail "zeros are stored"
	status_is "s['jobs']['save']['count']" 1
	status_is "s['jobs']['save']['bytes']" $((42 << 20))
}

filled_from() {
	works fill "$1" out
	grep -q "^fill $((42 << 20)) bytes, 1 ready" client.out || fail "$(cat client.out)"
	filled "$FIRST"
	nothing_left "fill from $1"
}

wrong_byte() {
	cp -r fast bad
	"$PYTHON" - bad/ckfast.pack <<-'END'
		import sys
		with open(sys.argv[1], 'r+b') as f:
		    f.seek(-8192, 2)
		    b = f.read(1)
		    f.seek(-8192, 2)
		    f.write(bytes([b[0] ^ 1]))
	END
	refused 'gpud: corrupt chunks' fill bad
	nothing_left "a wrong byte"
	rm -r bad
}

# Two processes, one fill; and the same files in turn by several clients at once.
several() {
	local i pids=()
	mkdir two
	works save two 1001 8 2
	works save two 1002 2 12
	works fill two out
	grep -q ', 2 ready' client.out || fail "$(cat client.out)"
	filled 1001 1002
	for i in 1 2 3 4; do
		mkdir "out$i"
		"$GPUDTEST" fill two "out$i" >"client$i.out" 2>&1 &
		pids+=($!)
	done
	for i in 1 2 3 4; do
		wait "${pids[i - 1]}" || fail "client $i of 4: $(cat "client$i.out")"
		cmp "out$i/1001" expect-1001
		cmp "out$i/1002" expect-1002
		rm -r "out$i"
	done
	nothing_left "4 clients"
	status_is "s['slots']['in_use']" 0
}

# share_first OWNER IMPORTER WORD: the first memory of one process is in another one, too, by an id
# that begins with WORD in the second.
share_first() {
	"$PYTHON" - "$ROOT/tests/py" "$@" <<-'END'
		import sys
		sys.path.insert(0, sys.argv[1])
		import gpuimg
		ident = b"shared memory id"
		owner, importer = int(sys.argv[2]), int(sys.argv[3])
		def rewrite(pid, change):
		    name = "two-shared/" + gpuimg.table_name(pid).decode()
		    devices, allocs = gpuimg.parse(open(name, "rb").read(), pid)
		    open(name, "wb").write(gpuimg.pack(pid, devices, change(allocs)))
		    return allocs
		mine = rewrite(owner, lambda a: [a[0][:3] + (2, 0, ident)] + a[1:])
		rewrite(importer, lambda a: a + [(1 << 62, mine[0][1], 0, 6, 0,
		                                  sys.argv[4].encode() + ident[len(sys.argv[4]):])])
	END
}

# Memory that two processes share is made once, and both get it.
shared() {
	cp -r two two-shared
	share_first 1001 1002 shared
	works fill two-shared out
	grep -q "^fill $((24 << 20)) bytes, 2 ready" client.out || fail "$(cat client.out)"
	cmp out/1001 expect-1001 || fail "the owner's memory"
	cat expect-1002 <(head -c $((8 << 20)) expect-1001) | cmp - out/1002 || fail "the importer's memory"
	nothing_left "shared memory"
	rm -r two-shared out/*
	cp -r two two-shared
	share_first 1001 1002 nobody
	refused 'shared_id, got one that no allocation owns' fill two-shared
	rm -r two-shared
	nothing_left "an import without an owner"
}

# The modes keep others out; where they do not, the credentials do.
only_ours() {
	local other=(setpriv --reuid 65534 --regid 65534 --clear-groups ../client --socket ./gpud.sock)
	cp "$GPUDTEST" client
	chmod 755 client
	chmod 711 run
	! (cd run && "${other[@]}" act state $$) 2>client.err || fail "another user is served"
	grep -q 'Permission denied' client.err || fail "another user: $(cat client.err)"
	chmod 666 "$CKFAST_GPUD_SOCKET"
	! (cd run && "${other[@]}" act state $$) 2>client.err || fail "another user is served"
	grep -q 'serves only the user' client.err || fail "another user: $(cat client.err)"
	chmod 600 "$CKFAST_GPUD_SOCKET"
	chmod 700 run
}

against_the_rules() {
	local name
	client bad list
	cp client.out names
	while read -r name; do
		works bad "$name"
	done <names
	works fill two out
	filled 1001 1002
	refused 'no GPU memory in this image' fill "$W/run"
	cp -r two three
	truncate -s -4096 three/ckfast-gpu-pages-1001.img
	refused 'length of the pages file of process 1001' fill three
	rm three/ckfast-gpu-pages-1001.img
	refused 'ckfast-gpu-pages-1001.img is missing' fill three
	rm -r three
	nothing_left "wrong requests"
}

is_filling() {
	[ "$(status "len(s['transfers'])")" = 1 ]
}

is_idle() {
	[ "$(status "len(s['transfers']), s['slots']['in_use']")" = '(0, 0)' ]
}

# Somebody dies. Copies take long here, so that there is a middle.
deaths() {
	local client
	client --die 1 fill two && fail "the client did not die"
	nothing_left "client died at its first memory"
	client --die 1 save two 1003 4 4 && fail "the client did not die"
	[ ! -e two/ckfast-gpu-1003.img ] && [ ! -e two/ckfast-gpu-pages-1003.img ] ||
		fail "files of a client that died"
	nothing_left "client died while it saved"
	stop_gpud

	export CKF_STUB_DELAY_US=10000
	start_gpud --threads 1 --slots 1
	"$GPUDTEST" fill "$W/dump" >client.out 2>client.err &
	client=$!
	wait_for 20 is_filling || fail "it never fills"
	kill -9 "$client"
	wait "$client" 2>/dev/null || true
	wait_for 20 is_idle || fail "gpud goes on for a client that is dead: $(cat status.json)"
	nothing_left "client died in the middle"
	status_is "s['jobs']['fill']['failed']" 1
	grep -q 'fill for process .*: Operation canceled' gpud.log ||
		fail "gpud noticed it only at the end: $(cat gpud.log)"

	"$GPUDTEST" fill "$W/dump" >client.out 2>client.err &
	client=$!
	wait_for 20 is_filling || fail "it never fills"
	kill "$GPUD"
	! wait "$client" || fail "the client did not see that gpud was stopped"
	grep -q 'gpud: gpud was stopped' client.err || fail "gpud stopped: $(cat client.err)"
	wait_for 20 is_gone "$GPUD" || fail "gpud does not end"
	nothing_left "gpud was stopped in the middle"

	start_gpud --threads 1 --slots 1
	"$GPUDTEST" fill "$W/dump" >client.out 2>client.err &
	client=$!
	wait_for 20 is_filling || fail "it never fills"
	kill -9 "$GPUD"
	! wait "$client" || fail "the client did not see that gpud was killed"
	grep -q 'closed by the other end' client.err || fail "gpud killed: $(cat client.err)"
	nothing_left "gpud was killed in the middle"
	unset CKF_STUB_DELAY_US
	rm "$CKFAST_GPUD_SOCKET"
}

no_helper() {
	! pgrep -x ckfast >/dev/null
}

# Without a gpud one is started for the one connection.
helpers() {
	refused 'cannot connect to gpud' fill two
	refused 'cannot start /no/such/program' --helper /no/such/program fill two
	refused 'false gpud ended at once' --helper /bin/false fill two
	works --helper "$CKFAST" fill two out
	filled 1001 1002
	works --helper "$CKFAST" save two 1003 4
	cmp two/ckfast-gpu-pages-1003.img expect-1003 || fail "saved by a helper"
	rm two/ckfast-gpu-*1003*
	client --helper "$CKFAST" --die 1 fill two && fail "the client did not die"
	wait_for 20 no_helper || fail "a helper lives on"
	nothing_left "helpers"
}

# What does not fit, or has no GPU to go to, is refused before anything is made.
other_machines() {
	local hog like='none like it is left; this machine has: ckfast stub GPU'
	CKF_STUB_UUID_SHIFT=3 works --helper "$CKFAST" fill two out
	grep -q '^pair 00 03$' client.out && grep -q '^pair 01 04$' client.out ||
		fail "pairs: $(cat client.out)"
	filled 1001 1002
	CKF_STUB_UUID_SHIFT=1 works --helper "$CKFAST" fill two out
	grep -q '^pair 00 02$' client.out && grep -q '^pair 01 01$' client.out ||
		fail "pairs: $(cat client.out)"
	filled 1001 1002
	CKF_STUB_GPUS=1 refused "$like" --helper "$CKFAST" fill two
	CKF_STUB_UUID_SHIFT=3 CKF_STUB_MIB=100 refused "$like" --helper "$CKFAST" fill two
	"$GPUDTEST" --helper "$CKFAST" --pause 60000 save two 1005 152 >hog.out 2>&1 &
	hog=$!
	wait_for 20 used_is $((152 << 20)) || fail "no memory in use: $(cat hog.out)"
	refused 'MiB free, the image needs 26 MiB and 64 to spare' --helper "$CKFAST" fill dump
	kill -9 "$hog"
	wait "$hog" 2>/dev/null || true
	nothing_left "too little memory"
	LD_LIBRARY_PATH='' refused 'no CUDA driver' --helper "$CKFAST" fill two
}

full_disk() {
	mkdir small
	mount -t tmpfs -o size=12m tmpfs small 2>/dev/null || return 0
	refused 'cannot write ckfast-gpu-pages-1004.img: No space left' \
		--helper "$CKFAST" save small 1004 64
	[ -z "$(ls small)" ] || fail "a full disk: $(ls small)"
	works --helper "$CKFAST" save small 1004 4
	cmp small/ckfast-gpu-pages-1004.img expect-1004 || fail "saved to tmpfs"
	wait_for 20 no_helper || fail "a helper lives on"
	umount small
	nothing_left "full disk"
}

# uuid N: of GPU N of the fake driver.
uuid() {
	printf 'ckfast stub GPU' | od -An -tx1 | tr -d ' \n'
	printf '%02x' "$1"
}

# A process that has seen GPUs 0 and 1 goes on on GPUs 1 and 2.
moved() {
	works --helper "$CKFAST" act lock "$PID"
	works --helper "$CKFAST" act suspend "$PID"
	CKF_STUB_UUID_SHIFT=1 refused 'cannot resume CUDA' --helper "$CKFAST" act resume "$PID"
	CKF_STUB_UUID_SHIFT=1 works --helper "$CKFAST" act resume "$PID" \
		"$(uuid 0)" "$(uuid 2)" "$(uuid 1)" "$(uuid 1)"
	works --helper "$CKFAST" act unlock "$PID"
}

# The driver's own calls, on a process that uses CUDA and on one that does not.
acts() {
	rm -f stop
	start_ready "$STUB/cuapp" . busy
	for step in 'state 0' 'lock 0' 'state 1' 'suspend 0' 'state 2' 'resume 0' 'state 1' 'unlock 0' 'state 0'; do
		works --helper "$CKFAST" act "${step% *}" "$PID"
		[ "$(cat client.out)" = "${step#* }" ] || fail "$step: $(cat client.out)"
	done
	works --helper "$CKFAST" act tid "$PID"
	[ -d "/proc/$PID/task/$(cat client.out)" ] || fail "thread $(cat client.out)"
	refused 'cannot unlock CUDA of the process' --helper "$CKFAST" act unlock "$PID"
	CKF_STUB_FAIL=cuCheckpointProcessLock:1 refused 'cannot lock CUDA of the process' \
		--helper "$CKFAST" act lock "$PID"
	moved
	touch stop
	check "$PID"
	refused '(3)' --helper "$CKFAST" act state $$
	refused '(3)' --helper "$CKFAST" act tid 999999
	nothing_left "acts"
}

one_at_a_time
start_gpud
saved
filled_from dump
convert dump fast
filled_from fast
wrong_byte
several
shared
only_ours
against_the_rules
deaths
helpers
other_machines
full_disk
acts

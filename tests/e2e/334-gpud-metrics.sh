#!/bin/bash
# SPDX-License-Identifier: MIT
#
# gpud's metrics, in a file and by HTTP: what they say before and after restores, and clients of the
# HTTP server that do not behave. Nothing that goes wrong with metrics touches a restore.
. "$(dirname "$0")/lib.sh"
. "$ROOT/tests/gpu/lib.sh"

export CKF_STUB_GPUS=2
mkdir dump out empty node
METRICS=$ROOT/tests/e2e/metrics.py
PORT=$("$PYTHON" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
VERSION=$("$CKFAST" --version | sed -n 's/^ckfast \([0-9.]*\).*/\1/p')

# metrics_are WHERE EXPRESSION WANT
metrics_are() {
	local got
	got=$("$PYTHON" "$METRICS" "$1" "$2" 2>metrics.err) || fail "metrics: $(cat metrics.err)"
	[ "$got" = "$3" ] || fail "metrics: $2 is $got, want $3"
}

# Metrics are made once a second at most.
fresh() {
	sleep 1.1
}

before_and_after() {
	start_gpud --metrics "$PORT" --slots 9
	metrics_are "$PORT" "m('restores_total'), m('restored_bytes_total'), m('restore_seconds_total'), m('saves_total')" \
		'(0.0, 0.0, 0.0, 0.0)'
	metrics_are "$PORT" "m('slots'), m('slots_free'), m('slots_waiting'), m('slot_bytes')" \
		"(9.0, 9.0, 0.0, $((4 << 20)).0)"
	metrics_are "$PORT" "0 < m('uptime_seconds') < 60, [k for k in samples if k[0] == 'build_info'][0][1][1][1]" \
		"(True, '$VERSION')"
	works save dump 1001 6 2
	works fill dump out
	filled 1001
	works fill dump
	refused 'no GPU memory in this image' fill empty
	refused '(3)' act state $$
	cp -r dump bad
	truncate -s -4096 bad/ckfast-gpu-pages-1001.img
	refused 'length of the pages file' fill bad
	fresh
	metrics_are "$PORT" "m('restores_total'), m('restored_bytes_total'), m('saves_total'), m('saved_bytes_total')" \
		"(2.0, $((16 << 20)).0, 1.0, $((8 << 20)).0)"
	metrics_are "$PORT" "0 < m('restore_seconds_total') < 60 and 0 < m('save_seconds_total') < 60" True
	metrics_are "$PORT" "[m('failures_total', request='restore', kind=k) for k in ('not_found', 'corrupt', 'other')]" \
		'[1.0, 1.0, 0.0]'
	metrics_are "$PORT" "sum(v for k, v in samples.items() if k[0] == 'failures_total')" 2.0
	metrics_are "$PORT" "m('checkpoint_calls_total')" 1.0
	metrics_are "$PORT" "[m('device_bytes_total', device=d, request=r) for d in '01' for r in ('restore', 'save')]" \
		"[$((12 << 20)).0, $((6 << 20)).0, $((4 << 20)).0, $((2 << 20)).0]"
	metrics_are "$PORT" "m('device_memory_bytes', device='0') > m('device_memory_free_bytes', device='0') - 1 > 0" True
	metrics_are "$PORT" "m('requests_in_flight', request='restore'), m('connections')" '(0.0, 0.0)'
	stop_gpud
}

# Two restores share one slot, and copies are slow: there is always one that waits.
in_flight() {
	local clients=()
	mkdir large
	start_gpud
	works save large 1002 64
	stop_gpud
	CKF_STUB_DELAY_US=40000 start_gpud --metrics "$PORT" --slots 1
	"$GPUDTEST" fill large >client1.out 2>&1 &
	clients=($!)
	"$GPUDTEST" fill large >client2.out 2>&1 &
	clients+=($!)
	wait_for 1 seen_waiting || fail "no restore is seen: $(cat metrics.out)"
	wait "${clients[@]}" || fail "restores: $(cat client1.out client2.out)"
	stop_gpud
}

seen_waiting() {
	sleep 0.3
	"$PYTHON" "$METRICS" "$PORT" "m('requests_in_flight', request='restore'), m('slots_free'), m('slots_waiting') > 0, m('connections')" \
		>metrics.out 2>&1
	[ "$(cat metrics.out)" = '(2.0, 0.0, True, 2.0)' ]
}

in_a_file() {
	umask 077
	start_gpud --metrics "$W/node/gpud.prom"
	umask 022
	wait_for 20 test -e node/gpud.prom || fail "no file"
	metrics_are node/gpud.prom "m('restores_total')" 0.0
	[ "$(stat -c %a node/gpud.prom)" = 644 ] || fail "mode: $(stat -c %a node/gpud.prom)"
	works fill dump
	wait_for 20 file_says "m('restores_total')" 1.0 || fail "the file is not made anew"
	[ "$(ls node)" = gpud.prom ] || fail "left behind: $(ls node)"
	stop_gpud
	[ -z "$(ls node)" ] || fail "left behind: $(ls node)"
}

file_says() {
	[ "$("$PYTHON" "$METRICS" node/gpud.prom "$1")" = "$2" ]
}

# No client of the HTTP server holds it up for longer than its deadline, or makes gpud use more.
hostile() {
	start_gpud --metrics "127.0.0.1:$PORT"
	"$PYTHON" - "$PORT" "$GPUD" >hostile.out 2>&1 <<-'END' || fail "hostile clients: $(cat hostile.out)"
		import os, socket, struct, sys, time
		port, pid = int(sys.argv[1]), int(sys.argv[2])
		def connect():
		    return socket.create_connection(("127.0.0.1", port), 30)
		def ask(request):
		    with connect() as s:
		        reply = b""
		        try:
		            s.sendall(request)
		            while piece := s.recv(65536):
		                reply += piece
		        except (ConnectionResetError, BrokenPipeError):
		            pass
		        return reply.split(b"\r\n")[0].decode()
		def fds():
		    return len(os.listdir("/proc/%d/fd" % pid))
		before = fds()
		GOOD = b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n"
		for request, want in [
		    (GOOD, "200 OK"), (b"GET /metrics HTTP/1.0\n\n", "200 OK"),
		    (b"GET / HTTP/1.1\r\n\r\n", "404 Not Found"),
		    (b"GET /metricsandmore HTTP/1.1\r\n\r\n", "404 Not Found"),
		    (b"POST /metrics HTTP/1.1\r\n\r\n", "405 Method Not Allowed"),
		    (b"\r\n\r\n", "400 Bad Request"), (b"GET \r\n\r\n", "400 Bad Request"),
		    (b"\0\xff" * 100 + b"\r\n\r\n", None),
		    (b"A" * 4095, "431 Request Header Fields Too Large"),
		]:
		    got = ask(request)
		    assert want is None or got == "HTTP/1.1 " + want, (request, got)
		ask(b"A" * 1000000)
		# Silent ones, and one that says a byte at a time: each has two seconds.
		silent = [connect() for _ in range(2)]
		start = time.monotonic()
		slow = connect()
		def drip():
		    try:
		        slow.send(b"G")
		    except OSError:
		        pass
		last = connect()
		last.sendall(GOOD)
		last.settimeout(0.2)
		while time.monotonic() - start < 20:
		    drip()
		    try:
		        reply = last.recv(100)
		        break
		    except TimeoutError:
		        pass
		assert reply.startswith(b"HTTP/1.1 200"), reply
		assert time.monotonic() - start < 10, time.monotonic() - start
		for s in silent + [slow, last]:
		    s.close()
		# Gone before the answer.
		for _ in range(50):
		    with connect() as s:
		        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
		        s.sendall(GOOD)
		assert ask(GOOD) == "HTTP/1.1 200 OK"
		for _ in range(50):
		    if fds() == before:
		        break
		    time.sleep(0.1)
		assert fds() == before, (fds(), before)
	END
	# One that is silent does not keep gpud from ending.
	exec 9<>"/dev/tcp/127.0.0.1/$PORT"
	works fill dump
	stop_gpud
	exec 9>&-
}

# What cannot be had of metrics is said, and restores work.
without() {
	start_gpud --metrics "$PORT"
	CKFAST_GPUD_SOCKET=$W/run/second.sock "$CKFAST" gpud --metrics "$PORT" 2>second.log &
	wait_for 20 grep -q ': ready$' second.log || fail "no second gpud: $(cat second.log)"
	grep -q "cannot listen at $PORT: Address already in use" second.log || fail "$(cat second.log)"
	CKFAST_GPUD_SOCKET=$W/run/second.sock works fill dump out
	filled 1001
	kill $!
	stop_gpud
	start_gpud --metrics "$W/no/such/gpud.prom"
	wait_for 20 grep -q 'metrics: cannot write .*: No such file' gpud.log || fail "$(cat gpud.log)"
	works fill dump out
	filled 1001
	stop_gpud
	for where in 0 65536 x:1 :1 1x 1.2.3:4 [::1:4 localhost:80; do
		! "$CKFAST" gpud --metrics "$where" 2>second.log || fail "--metrics $where"
		grep -q 'want a path with a /' second.log || fail "--metrics $where: $(cat second.log)"
	done
}

in_flight
before_and_after
in_a_file
hostile
without

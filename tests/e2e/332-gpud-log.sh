#!/bin/bash
# SPDX-License-Identifier: MIT
#
# gpud --log json: each line that gpud writes is one JSON object, which says of a job what it was.
. "$(dirname "$0")/lib.sh"
. "$ROOT/tests/gpu/lib.sh"

export CKF_STUB_GPUS=2
mkdir dump out empty

# lines EXPRESSION: of the list l of all lines, each of which is checked.
lines() {
	"$PYTHON" - "$1" <<-'END'
		import json, re, sys
		l = []
		for line in open("gpud.log"):
		    o = json.loads(line)
		    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", o["time"]), line
		    assert o["level"] in ("info", "warning", "error"), line
		    assert o["message"] and "\n" not in o["message"], line
		    l.append(o)
		print(eval(sys.argv[1]))
	END
}

lines_are() {
	local got
	got=$(lines "$1") || fail "not a log in JSON: $(cat gpud.log)"
	[ "$got" = "$2" ] || fail "the log: $1 is $got, want $2: $(cat gpud.log)"
}

start_json_gpud() {
	: >gpud.log
	"$CKFAST" gpud --log json "$@" 2>>gpud.log &
	GPUD=$!
	disown "$GPUD"
	wait_for 20 grep -q '"ready"' gpud.log || fail "gpud does not get ready: $(cat gpud.log)"
}

start_json_gpud
lines_are "[o['message'] for o in l]" "['ready']"
works save dump 1001 6 2
works fill dump out
filled 1001
refused 'no GPU memory in this image' fill empty
lines_are "[(o['level'], o.get('bytes'), o.get('devices'), o.get('image')) for o in l[1:]]" \
	"[('info', 8388608, [0, 1], '$W/dump'), ('info', 8388608, [0, 1], '$W/dump'), ('error', None, None, '$W/empty')]"
lines_are "all(o['pid'] > 0 and 0 < o['seconds'] < 60 for o in l[1:])" True
! "$CKFAST" gpud --log json 2>second.log || fail "a second gpud started"
grep -q '"level":"error","message":"a gpud listens at ' second.log || fail "$(cat second.log)"
stop_gpud

# A directory may have any name.
odd=$'odd "\\\n\xff'
mv dump "$odd"
start_json_gpud
works fill "$odd" out
filled 1001
lines_are "'image' in l[1]" True
stop_gpud

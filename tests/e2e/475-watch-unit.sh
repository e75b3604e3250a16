#!/bin/bash
# SPDX-License-Identifier: MIT
#
# The unit of ckfast watch and the DaemonSet call it with options that it has, and are what systemd and
# Kubernetes can read.
. "$(dirname "$0")/lib.sh"
need_ckfast
unit=$ROOT/scripts/ckfast-watch.service
daemonset=$ROOT/docs/kubernetes/ckfast-watch.yaml

"$CKFAST" watch --help >help
for option in $(grep -hE 'ExecStart|^ *- --' "$unit" "$daemonset" | grep -oE -- '--[a-z-]+'); do
	grep -q -- " $option" help || fail "$option is no option of ckfast watch"
done

# The rights over files are the same in both.
of_unit=$(sed -n 's/^CapabilityBoundingSet=//p' "$unit" | sed 's/CAP_//g')
of_daemonset=$(sed -n 's/.*add: \[\(.*\)\]/\1/p' "$daemonset" | tr -d ,)
[ -n "$of_unit" ] && [ "$of_unit" = "$of_daemonset" ] || fail "rights: $of_unit, and $of_daemonset"

# They suffice: a dump of another user is converted, and stays that user's.
"$PYTHON" "$ROOT/tests/py/gendump.py" 11 made levels=1 meta=0 unknown=0 >/dev/null || fail "gendump"
mkdir in
cp -a made/0 in/dump
chown -R 12:34 in/dump
chmod 700 in in/dump
caps=$(for c in $of_unit; do printf '+%s,' "${c,,}"; done)
if command -v setpriv >/dev/null; then
	setpriv --bounding-set="-all,${caps%,}" --inh-caps=-all --no-new-privs \
		"$CKFAST" watch --once --settle 0 in >log 2>&1 || fail "by the unit's rights: $(cat log)"
	[ "$(stat -c %u:%g in/dump in/dump/ckfast.pack | sort -u)" = 12:34 ] ||
		fail "another owner: $(ls -la in/dump)"
fi

if command -v systemd-analyze >/dev/null; then
	sed "s|@BINDIR@|$(dirname "$CKFAST")|" "$unit" >ckfast-watch.service
	systemd-analyze verify --man=no ./ckfast-watch.service >verify.out 2>&1 || true
	! grep ckfast-watch verify.out || fail "the unit"
fi
if "$PYTHON" -c 'import yaml' 2>/dev/null; then
	"$PYTHON" -c 'import sys, yaml
docs = list(yaml.safe_load_all(open(sys.argv[1])))
assert [d["kind"] for d in docs] == ["Namespace", "DaemonSet"], docs
spec = docs[1]["spec"]["template"]["spec"]
mounts = {m["name"] for m in spec["containers"][0]["volumeMounts"]}
assert mounts == {v["name"] for v in spec["volumes"]}, mounts' "$daemonset" || fail "the DaemonSet"
fi

#!/bin/bash
# SPDX-License-Identifier: MIT
#
# The units of gpud: systemd takes them, and what they keep gpud from stays so.
. "$(dirname "$0")/lib.sh"
need_ckfast
command -v systemd-analyze >/dev/null || skip "no systemd-analyze"

MAX_EXPOSURE=30 # tenths, of 100

sed "s|@BINDIR@|${CKFAST%/*}|" "$ROOT/scripts/ckfast-gpud.service" >ckfast-gpud.service
cp "$ROOT/scripts/ckfast-gpud.socket" .
for unit in service socket; do
	systemd-analyze verify --man=no "./ckfast-gpud.$unit" >verify.out 2>&1 || fail "$(cat verify.out)"
	[ ! -s verify.out ] || fail "ckfast-gpud.$unit: $(cat verify.out)"
done
systemd-analyze security --help | grep -q -- --offline || skip "systemd-analyze is too old for --offline"
systemd-analyze security --no-pager --offline=true --threshold=$MAX_EXPOSURE ./ckfast-gpud.service >security.out ||
	fail "$(tail -n 1 security.out)"

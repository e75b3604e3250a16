#!/bin/bash
# SPDX-License-Identifier: MIT
# Tasks of a user namespace open the image as they would open the dump: it has owner and mode of the
# dump, and so has what is extracted and flattened, and the pack of a base.
. "$(dirname "$0")/lib.sh"

# modes DIR FILE…: owner, group and mode of each.
modes() {
	(cd "$1" && shift && stat -c '%u:%g %a %n' "$@")
}

same_modes() {
	local what=$1 got=$2 want=$3
	[ "$got" = "$want" ] || fail "$what: got $got, want $want"
}

# restored_as NAME DIR CRIU OPTIONS…: the process is there, as root of its namespace. CRIU itself opens
# timens-0.img before the ids of the namespace are mapped, now and then, and cannot then.
restored_as() {
	local name=$1 dir=$2 tries=10
	shift 2
	rm -f "$D/pid"
	until "$@" -D "$dir" -d -v4 -W "$D/work" -o "$D/restore.log" --root "$D/root" --pidfile "$D/pid" >/dev/null 2>&1; do
		grep -aq 'Unable to open timens-0.img\|File exists' "$D/restore.log" && [ $((tries--)) -gt 0 ] ||
			fail "$name: $(log_errors "$D/restore.log")"
		rm -f "$D/pid"
		sleep 0.2
	done
	PID=$(cat "$D/pid")
	grep -q '^Uid:.100000.100000' "/proc/$PID/status" || fail "$name: not the right user"
	D=$D/root check "$PID"
	stop "$PID"
}

each_owner() {
	local uid=$1 dir_mode=$2 file_mode=$3
	chown -R "$uid:$uid" "$D/dump"
	chmod "$dir_mode" "$D/dump"
	chmod "$file_mode" "$D"/dump/*
	rm -rf "$D"/fast* "$D/flat" "$D/based" "$D/back"
	restored_as "stock, $*" "$D/dump" "$CRIU_STOCK" restore
	convert "$D/dump" "$D/fast"
	same_modes "the directory, $*" "$(modes "$D/fast" .)" "$(modes "$D/dump" .)"
	same_modes "a small image, $*" "$(modes "$D/fast" pstree.img)" "$(modes "$D/dump" pstree.img)"
	same_modes "the pack, $*" "$(modes "$D/fast" ckfast.pack ckfast.idx)" \
		"$(printf '%s %s ckfast.pack\n%s %s ckfast.idx' "$uid:$uid" "$file_mode" "$uid:$uid" "$file_mode")"
	restored_as "fast, $*" "$D/fast" "$CRIU" restore --fast-image
	convert "$D/dump" "$D/based" --base "$D/fast"
	"$CKFAST" inspect --json "$D/based" | grep -q '"path": "../fast"' || fail "nothing is in the base"
	restored_as "based, $*" "$D/based" "$CRIU" restore --fast-image
	"$CKFAST" flatten "$D/based" "$D/flat" >/dev/null || fail flatten
	same_modes "flat, $*" "$(modes "$D/flat" . ckfast.pack)" "$(modes "$D/fast" . ckfast.pack)"
	restored_as "flat, $*" "$D/flat" "$CRIU" restore --fast-image
	"$CKFAST" extract "$D/fast" "$D/back" >/dev/null || fail extract
	diff <(facts "$D/dump") <(facts "$D/back") >/dev/null || fail "extract: not the same"
	same_modes "extracted, $*" "$(modes "$D/back" .)" "$(modes "$D/dump" .)"
	restored_as "extracted, $*" "$D/back" "$CRIU_STOCK" restore
}

userns() {
	local top=$D
	chmod 755 "$W" "$D"
	mkdir -p "$D/root/proc" "$D/work"
	"${CC:-gcc}" -O1 -static -D_GNU_SOURCE -I"$ROOT/tests/progs" -pthread -o "$D/root/bigproc" \
		"$ROOT/tests/progs/bigproc.c"
	chown -R 100000:100000 "$D/root"
	D=$D/root start "$PROGS/userns" "$top/pid" "$top/root" /bigproc / 16 mixed
	wait_for 20 test -s "$D/pid" || fail "no user namespace: $(cat "$D/root/stderr")"
	PID=$(cat "$D/pid")
	D=$top/root wait_ready ready
	dump "$PID" "$D/dump" --root "$D/root"
	mount --bind "$D/root" "$D/root"
	each_owner 0 755 644
	each_owner 100000 700 600
	umount "$D/root"
}

[ "$(cat /proc/sys/user/max_user_namespaces)" != 0 ] || skip "no user namespaces here"
each_version userns

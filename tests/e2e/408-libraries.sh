#!/bin/bash
# SPDX-License-Identifier: MIT
# CRIU loads libnftables and GnuTLS when it needs them: for a dump, for a network namespace and its rules, for
# --tls. Else a restore does without them. Where one is damaged, what needs it says so, and the process runs on.
. "$(dirname "$0")/lib.sh"

# traced COMMAND…: with a file $D/ld.PID of each process, which says what it loads.
traced() {
	rm -f "$D"/ld.*
	LD_DEBUG=files LD_DEBUG_OUTPUT=$D/ld "$@"
}

# count PATTERN: how often it is in the last trace.
count() {
	cat "$D"/ld.* | grep -c "$1" || true
}

# ends_with LIBRARIES: of these two the last traced command still had those, and no other. To learn about the
# kernel it may have had them before.
ends_with() {
	local lib found=
	[ "$(count "calling init: .*/libc\.so")" -gt 0 ] || fail "no trace of what is loaded"
	for lib in libnftables libgnutls; do
		[ "$(count "calling init: .*/$lib\.so")" = "$(count "/$lib\.so.*destroying link map")" ] || found+="$lib "
	done
	[ "$found" = "${1:+$1 }" ] || fail "it has '$found', want '$1'"
}

# damaged LIBRARY COMMAND…: finds an empty file in its place.
damaged() {
	mkdir -p "$D/damaged"
	: >"$D/damaged/$1"
	shift
	LD_LIBRARY_PATH=$D/damaged "$@"
	rm -r "$D/damaged"
}

# fails COMMAND…
fails() {
	! "$@" 2>/dev/null || fail "did not fail: $*"
}

needs() {
	start_ready "$PYTHON" "$ROOT/tests/progs/pyproc.py" .
	mkdir "$D/dump"
	damaged libnftables.so.1 fails "$CRIU" dump -t "$PID" -D "$D/dump" -o dump.log --network-lock nftables
	grep -aq "Can't load libnftables.so.1, which has to be installed: .*too short" "$D/dump/dump.log" ||
		fail "no clear error: $(log_errors "$D/dump/dump.log")"
	check "$PID"
	DUMPER=$CRIU traced dump "$PID" "$D/dump"
	ends_with libnftables
	convert "$D/dump" "$D/fast"
	traced restore_fast "$D/fast"
	ends_with ""
	check "$PID"
	stop "$PID"
}

rules() {
	nsenter -t "$PID" -n nft list ruleset
}

namespace() {
	start_ready unshare --net "$PYTHON" "$ROOT/tests/progs/pyproc.py" .
	if ! nsenter -t "$PID" -n nft add table inet ckfast_rules 2>/dev/null; then
		stop "$PID"
		echo "$V: no nftables in this kernel: its rules are not tried"
		return
	fi
	DUMPER=$CRIU traced dump "$PID" "$D/dump.net"
	ends_with libnftables
	restore_stock "$D/dump.net"
	rules >"$D/rules.stock"
	stop "$PID"
	convert "$D/dump.net" "$D/fast.net"
	damaged libnftables.so.1 fails restore "$CRIU" "$D/fast.net" --fast-image
	grep -aq "Can't load libnftables.so.1, which" "$D/restore.log" ||
		fail "no clear error: $(log_errors "$D/restore.log")"
	all_gone "$PID"
	traced restore_fast "$D/fast.net"
	ends_with libnftables
	rules >"$D/rules.fast"
	grep -q ckfast_rules "$D/rules.fast" || fail "the rules are gone"
	diff "$D/rules.stock" "$D/rules.fast" || fail "other rules than with the stock CRIU"
	check "$PID"
	stop "$PID"
}

# encrypted COMMAND…: one end of a connection through PORT that both ends prove.
encrypted() {
	"$@" --address 127.0.0.1 --port $PORT --tls --tls-no-cn-verify --tls-cacert "$D/cert.pem" \
		--tls-cert "$D/cert.pem" --tls-key "$D/key.pem"
}

# Those that no dump has connected to.
end_servers() {
	local pid
	for pid in $(cat "$D"/server.[12] 2>/dev/null); do
		! grep -q ^criu "/proc/$pid/comm" 2>/dev/null || kill "$pid"
	done
}

tls() {
	openssl req -x509 -newkey rsa:2048 -nodes -keyout "$D/key.pem" -out "$D/cert.pem" -days 2 \
		-subj /CN=ckfast 2>/dev/null
	PORT=$((20000 + RANDOM % 10000))
	trap 'status=$?; end_servers; at_exit $status' EXIT
	start_ready "$PYTHON" "$ROOT/tests/progs/pyproc.py" .
	mkdir "$D/dump.tls"
	encrypted "$CRIU" page-server -D "$D/dump.tls" -o server.log -d --pidfile "$D/server.1"
	damaged libgnutls.so.30 fails encrypted "$CRIU" dump -t "$PID" -D "$D/dump.tls" -o dump.log --page-server
	grep -aq "Can't load libgnutls.so.30, which" "$D/dump.tls/dump.log" ||
		fail "no clear error: $(log_errors "$D/dump.tls/dump.log")"
	check "$PID"
	PORT=$((PORT + 1))
	encrypted "$CRIU" page-server -D "$D/dump.tls" -o server.log -d --pidfile "$D/server.2"
	DUMPER=$CRIU traced encrypted dump "$PID" "$D/dump.tls" --page-server
	ends_with "libnftables libgnutls"
	wait_for 10 test -e "$D/dump.tls/pagemap-1.img" -o -e "$D/dump.tls/pagemap-$PID.img" || fail "no pages have come"
	convert "$D/dump.tls" "$D/fast.tls"
	restore_fast "$D/fast.tls"
	check "$PID"
	stop "$PID"
}

loads() {
	needs
	namespace
	tls
}

for program in nft nsenter openssl; do
	command -v $program >/dev/null || skip "no $program"
done
each_version loads

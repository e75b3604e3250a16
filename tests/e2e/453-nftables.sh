#!/bin/bash
# SPDX-License-Identifier: MIT
# CRIU is built with what Debian's own has. A connection whose dump locked the network by nftables goes
# on after the restore, from the dump and from the fast image, and no rule is left.
. "$(dirname "$0")/lib.sh"

# features CRIU: what it is linked with, of what Debian links with.
features() {
	ldd "$1" | grep -oE '\blib(nftables|gnutls|bsd|nl-3|net|protobuf-c)\.so' | sort -u | tr '\n' ' '
}

# has_features CRIU LIST
has_features() {
	[ "$(features "$1")" = "$2" ] || fail "$1 has $(features "$1"), want $2"
}

# check_net WHAT: the connection carries bytes, and nothing of the lock is left.
check_net() {
	check "$PID"
	[ -z "$(nft list tables)" ] || fail "$1: rules are left: $(nft list ruleset)"
	stop "$PID"
}

# dump_tcp: a connection and its dump; false where this CRIU and this kernel cannot do it at all.
dump_tcp() {
	rm -rf "$D/dump"
	start_ready "$PYTHON" "$ROOT/tests/progs/tcp.py" .
	mkdir "$D/dump"
	if ! "$CRIU_STOCK" dump -t "$PID" -D "$D/dump" -v4 -o dump.log --tcp-established --network-lock nftables; then
		stop "$PID"
		grep -aq "sockets: Can't get 1:.* opt: Operation not supported" "$D/dump/dump.log" ||
			fail "dump: $(log_errors "$D/dump/dump.log")"
		echo "$V: does not dump TCP sockets of this kernel: not tried"
		return 1
	fi
	all_gone "$PID"
	[ -n "$(nft list tables)" ] || fail "the dump has locked nothing"
}

connection() {
	has_features "$CRIU_STOCK" "libbsd.so libgnutls.so libnet.so libnftables.so libnl-3.so libprotobuf-c.so "
	has_features "$CRIU" "libbsd.so libnet.so libnl-3.so libprotobuf-c.so "
	dump_tcp || return 0
	restore_stock "$D/dump" --tcp-established --network-lock nftables
	check_net stock
	dump_tcp
	convert "$D/dump" "$D/fast"
	# The image says how the network was locked.
	restore_fast "$D/fast" --tcp-established
	check_net fast
}

# A network namespace of its own, for the rules.
if [ -z "${CKF_NETNS:-}" ]; then
	CKF_NETNS=1 exec unshare --net "$ROOT/tests/e2e/$TEST.sh"
fi
command -v nft >/dev/null || skip "no nft (nftables)"
nft add table inet ckfast_probe 2>/dev/null || skip "no nftables in this kernel"
nft delete table inet ckfast_probe
"$PYTHON" - <<'END' || skip "the loopback device does not come up"
import fcntl, socket, struct
s = socket.socket()
fcntl.ioctl(s, 0x8914, struct.pack("16sh14x", b"lo", 0x1 | 0x40))  # SIOCSIFFLAGS: IFF_UP, IFF_RUNNING
END
every_version
each_version connection

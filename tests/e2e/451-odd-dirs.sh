#!/bin/bash
# SPDX-License-Identifier: MIT
# Dump directories as container engines, page servers and scripts leave them: what the stock CRIU
# restores is converted and restored; what is no dump is refused, and nothing is made of it.
. "$(dirname "$0")/lib.sh"

fresh() {
	rm -rf "$D/odd" "$D/fast"
	cp -a "$D/dump" "$D/odd"
}

says() {
	grep -qF -- "$1" "$D/convert.out" || fail "$2: does not say \"$1\": $(cat "$D/convert.out")"
}

# taken WHAT [WARNING]: stock and fast restore it.
taken() {
	restore_stock "$D/odd"
	stop "$PID"
	convert "$D/odd" "$D/fast"
	[ -z "${2:-}" ] || says "$2" "$1"
	"$CKFAST" convert -q --force "$D/odd" "$D/fast" >"$D/quiet.out" 2>&1 || fail "$1: -q"
	[ ! -s "$D/quiet.out" ] || fail "$1: -q is not quiet: $(cat "$D/quiet.out")"
	restore_fast "$D/fast"
	check "$PID"
	stop "$PID"
}

# refused STATUS WHAT MESSAGE: with -q, too, and nothing is left.
refused() {
	local got=0
	"$CKFAST" convert -q "$D/odd" "$D/fast" >"$D/convert.out" 2>&1 || got=$?
	[ "$got" = "$1" ] || fail "$2: exit code $got, want $1: $(cat "$D/convert.out")"
	says "$3" "$2"
	[ ! -e "$D/fast" ] || fail "$2: something was made"
	[ -z "$(find "$D" -maxdepth 1 -name '.fast.*')" ] || fail "$2: something is left"
}

inspected() {
	local got=0
	"$CKFAST" inspect "$D/odd" >"$D/convert.out" 2>&1 || got=$?
	[ "$got" = "$1" ] || fail "$2: inspect: exit code $got, want $1: $(cat "$D/convert.out")"
	says "$3" "$2"
}

odd_entries() {
	fresh
	mkdir "$D/odd/criu.work"
	touch "$D/odd/criu.work/restore.log"
	taken "a folder" "criu.work is a directory: left out"
	fresh
	"$PYTHON" -c 'import socket, sys, os
os.chdir(sys.argv[1])
socket.socket(socket.AF_UNIX).bind("lazy-pages.socket")' "$D/odd"
	mkfifo "$D/odd/fifo"
	ln -s /nowhere "$D/odd/dangling"
	taken "a socket" "lazy-pages.socket is a socket: left out"
	says "fifo is a FIFO: left out" "a FIFO"
	fresh
	mv "$D/odd/pages-1.img" "$D/elsewhere"
	ln -s "$D/elsewhere" "$D/odd/pages-1.img"
	mv "$D/odd/inventory.img" "$D/odd/real"
	ln -s real "$D/odd/inventory.img"
	taken "links" "pages-1.img is a symbolic link"
	fresh
	printf x >>"$D/odd/pages-1.img"
	taken "a byte too much" "pages-1.img ends in 1 bytes that are no page"
	fresh
	touch "$D/odd"/$'new\nline' "$D/odd"/$'\xff' "$D/odd/$(printf 'n%.0s' {1..255})"
	mkdir "$D/odd"/$'dir\nline'
	taken "names" 'dir\x0aline is a directory: left out'
}

# In a directory whose whole path is longer than any call of the kernel takes.
deep() (
	local d i
	d=$(printf 'p%.0s' {1..200})
	for i in {1..25}; do
		mkdir "$d"
		cd "$d" || exit 1
	done
	cp -a "$D/dump" dump
	convert dump fast
	"$CKFAST" inspect fast >/dev/null || fail "deep: inspect"
	extract_same_here
	restore_fast fast
	check "$PID"
	stop "$PID"
)

extract_same_here() {
	"$CKFAST" extract -q fast back || fail "deep: extract"
	diff <(facts dump) <(facts back) >/dev/null || fail "deep: extract: not the same"
}

no_dumps() {
	local f
	rm -rf "$D/odd" "$D/fast"
	mkdir "$D/odd"
	refused 1 "an empty directory" "not a CRIU dump"
	inspected 1 "an empty directory" "neither a fast image nor a CRIU dump"
	printf 'Error\n' >"$D/odd/dump.log"
	refused 3 "nothing but a log" "incomplete dump: there is no inventory.img"
	inspected 3 "nothing but a log" "incomplete dump: there is no inventory.img"
	for f in inventory.img pstree.img "core-$PID.img" "mm-$PID.img" "pagemap-$PID.img"; do
		fresh
		rm "$D/odd/$f"
		refused 3 "no $f" "incomplete dump: there is no $f"
		inspected 0 "no $f" "cannot be restored: incomplete dump: there is no $f"
	done
	fresh
	rm "$D/odd"/pagemap-*.img "$D/odd/pstree.img" "$D/odd"/core-*.img
	refused 3 "no pagemap" "there is no pagemap"
}

odd_dirs() {
	start_ready "$PROGS/bigproc" "$D" 4 mixed
	dump "$PID" "$D/dump"
	odd_entries
	no_dumps
	cd "$D"
	deep
	cd "$W"
}

each_version odd_dirs

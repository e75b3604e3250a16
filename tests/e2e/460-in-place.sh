#!/bin/bash
# SPDX-License-Identifier: MIT
# A dump becomes an image, and an image a dump, in its own place: the directory looks as before, and
# nothing that it had is lost.
. "$(dirname "$0")/lib.sh"

# dir_facts DIR: owner, mode, time and extended attributes of the directory itself.
dir_facts() {
	"$PYTHON" - "$1" <<-'END'
		import os, sys
		st = os.stat(sys.argv[1])
		print(st.st_uid, st.st_gid, oct(st.st_mode), st.st_mtime_ns)
		for name in sorted(os.listxattr(sys.argv[1])):
		    print(name, os.getxattr(sys.argv[1], name))
	END
}

# set_dir_facts DIR: a label, and an access list with a mask, as its own and for what is made in it.
set_dir_facts() {
	chown 12:34 "$1"
	chmod 2750 "$1"
	"$PYTHON" - "$1" <<-'END'
		import os, struct, sys
		def acl(*entries):
		    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *e) for e in entries)
		none = 0xffffffff
		lists = acl((1, 7, none), (2, 5, 77), (4, 5, none), (0x10, 5, none), (0x20, 0, none))
		for name, value in [("user.note", b"a\0b"), ("trusted.empty", b""),
		                    ("system.posix_acl_access", lists), ("system.posix_acl_default", lists)]:
		    try:
		        os.setxattr(sys.argv[1], name, value)
		    except OSError as e:
		        print("without", name, e)
	END
	touch -d '2001-02-03 04:05:06.789 UTC' "$1"
}

in_place() {
	"$CKFAST" "$1" --in-place "$2" >"$D/out" 2>&1 || fail "$1 --in-place: $(cat "$D/out")"
	[ -z "$(find "$D" -maxdepth 1 -name '.*.ckfast-*')" ] || fail "$1 --in-place: something is left"
}

# refused VERB DIR MESSAGE: and the directory is as before.
refused() {
	facts "$2" >"$D/refused.facts"
	if "$CKFAST" "$1" --in-place "$2" >"$D/out" 2>&1; then
		fail "$1 --in-place: not refused: $3"
	fi
	grep -qF -- "$3" "$D/out" || fail "does not say \"$3\": $(cat "$D/out")"
	diff "$D/refused.facts" <(facts "$2") || fail "$1 --in-place: refused, but $2 has changed"
	[ -z "$(find "$D" -maxdepth 1 -name '.*.ckfast-*')" ] || fail "$3: something is left"
}

there_and_back() {
	start_ready "$PROGS/bigproc" . 4 mixed
	dump "$PID" "$D/real"
	cp -a "$D/real" "$D/copy"
	ln -s real "$D/link"
	set_dir_facts "$D/real"
	facts "$D/real" >"$D/real.facts"
	dir_facts "$D/real" >"$D/dir.facts"

	in_place convert "$D/link"
	[ -L "$D/link" ] || fail "the link is gone"
	diff "$D/dir.facts" <(dir_facts "$D/real") || fail "convert: the directory is another"
	[ -z "$(getfattr_acl "$D/real/ckfast.pack")" ] || fail "the pack got an access list"
	refused convert "$D/real" "is a fast image already"
	restore_fast "$D/real"
	check "$PID"
	stop "$PID"

	echo kept >"$D/real/restore.log"
	ln "$D/real/restore.log" "$D/log"
	touch -r "$D/copy" "$D/real"
	in_place extract "$D/real"
	[ "$D/real/restore.log" -ef "$D/log" ] || fail "extract: restore.log is lost"
	[ -e "$D/real/stats-restore" ] || fail "extract: stats-restore is lost"
	rm "$D/real/restore.log" "$D/real/stats-restore"
	diff "$D/real.facts" <(facts "$D/real") || fail "extract: not the dump"
	restore_stock "$D/real"
	check "$PID"
	stop "$PID"

	# From within.
	(cd "$D/real" && "$CKFAST" convert -q --in-place .) || fail "convert --in-place ."
	"$CKFAST" verify -q "$D/real" || fail "converted from within"
}

getfattr_acl() {
	"$PYTHON" -c 'import os, sys
print(*[n for n in os.listxattr(sys.argv[1]) if "acl" in n])' "$1"
}

refusals() {
	mkdir "$D/copy/folder"
	refused convert "$D/copy" "cannot be in a fast image"
	rmdir "$D/copy/folder"
	printf x >>"$D/copy/pages-1.img"
	refused convert "$D/copy" "cannot be in a fast image"
	truncate -s -1 "$D/copy/pages-1.img"
	mkdir "$D/mount"
	mount --bind "$D/copy" "$D/mount"
	refused convert "$D/mount" "ckfast convert: $D/mount: is a mount point"
	umount "$D/mount"
	mount -t tmpfs none "$D/mount"
	if "$CKFAST" extract "$D/real" "$D/mount" >"$D/out" 2>&1; then
		fail "onto a mount point"
	fi
	grep -qF "ckfast extract: $D/mount: is a mount point" "$D/out" || fail "does not say: $(cat "$D/out")"
	umount "$D/mount"
	exec 9<"$D/copy"
	flock 9
	refused convert "$D/copy" "another process is replacing"
	exec 9<&-
	cp "$D/copy/pages-1.img" "$D/real/"
	refused extract "$D/real" "a newer dump was written into this directory"
	rm "$D/real/pages-1.img"
	mkdir "$D/real/folder"
	refused extract "$D/real" "folder is a directory"
	rmdir "$D/real/folder"
	! "$CKFAST" flatten --in-place "$D/real" 2>"$D/out" || fail "flatten --in-place"
	! "$CKFAST" convert --in-place --force "$D/copy" 2>"$D/out" || fail "--in-place --force"
	! "$CKFAST" convert --in-place "$D/copy" "$D/new" 2>"$D/out" || fail "--in-place with two"
	[ ! -e "$D/new" ] || fail "made a second one"
}

each_version there_and_back
each_version refusals

#!/bin/bash
# SPDX-License-Identifier: MIT
# OCI image layouts, made by hand as podman and containerd make them: their checkpoints are converted, all
# digests are right, everything else is as it was, and extract gives the layout back; hostile ones are refused.
. "$(dirname "$0")/lib.sh"

quiet() {
	"$@" >"$D/out" 2>&1 || fail "$*: $(cat "$D/out")"
}

layout() {
	"$PYTHON" "$ROOT/tests/e2e/layout.py" "$@"
}

# refused TEXT ARGS…: fails and says TEXT, and nothing is left or changed.
refused() {
	local text=$1
	shift
	find "$D" | sort >"$W/names"
	if "$CKFAST" "$@" >"$W/out" 2>&1; then
		fail "ckfast $*: not refused"
	fi
	grep -qF -- "$text" "$W/out" || fail "ckfast $*: does not say \"$text\": $(cat "$W/out")"
	diff "$W/names" <(find "$D" | sort) || fail "ckfast $*: something is left"
}

modes() {
	stat -c %a "$1" "$1/blobs" "$1/blobs/sha256"
}

make_archives() {
	start_ready "$PROGS/bigproc" . 1 mixed
	dump "$PID" "$D/stage/checkpoint"
	echo '{}' >"$D/stage/config.dump"
	tar -C "$D/stage" --sort=name -cf "$D/checkpoint.tar" checkpoint config.dump
	tar -C "$D/stage/checkpoint" --sort=name -cf "$D/criu.tar" $(ls "$D/stage/checkpoint")
}

# fast_blobs LAYOUT [N]: each checkpoint in it is a fast image; they are two, or N.
fast_blobs() {
	local blob blobs
	blobs=$(layout check "$1") || fail "$1: see above"
	[ "$(wc -w <<<"$blobs")" = "${2:-2}" ] || fail "$1: checkpoints: $blobs"
	for blob in $blobs; do
		quiet "$CKFAST" verify "$1/blobs/sha256/$blob"
	done
}

there_and_back() {
	make_archives
	layout make "$D/in" "$D/checkpoint.tar" "$D/criu.tar"
	layout check "$D/in" >"$D/out"
	chmod 750 "$D/in/blobs"
	chmod 711 "$D/in/blobs/sha256"
	quiet "$CKFAST" convert "$D/in" "$D/fast"
	fast_blobs "$D/fast"
	cmp "$D/in/oci-layout" "$D/fast/oci-layout"
	refused "2 checkpoints" verify "$D/fast"
	refused "fast images already" convert "$D/fast" "$D/again"
	refused "no checkpoint of the layout is a fast image" extract "$D/in" "$D/again"
	refused "exists already: --force replaces it" convert "$D/in" "$D/fast"
	cp -r "$D/fast" "$D/fast2"
	quiet "$CKFAST" convert --force --codec zstd "$D/in" "$D/fast2"
	fast_blobs "$D/fast2"
	! diff -rq "$D/fast" "$D/fast2" >/dev/null || fail "--force: not replaced"
	rm -r "$D/fast2"
	quiet "$CKFAST" extract "$D/fast" "$D/back"
	diff -r "$D/in" "$D/back" || fail "not the layout that it was"
	rm -rf "$D/back"
	[ "$(modes "$D/in")" = "$(modes "$D/fast")" ] || fail "other modes"
}

as_archive() {
	local form
	tar -C "$D/in" --sort=name -cf "$D/in.tar" .
	quiet "$CKFAST" convert "$D/in.tar" "$D/fast.tar"
	mkdir "$D/unpacked"
	tar -C "$D/unpacked" -xpf "$D/fast.tar" 2>"$D/out" || fail "tar: $(cat "$D/out")"
	[ ! -s "$D/out" ] || fail "tar has to say: $(cat "$D/out")"
	fast_blobs "$D/unpacked"
	quiet "$CKFAST" extract "$D/fast.tar" "$D/back.tar"
	mkdir "$D/back"
	tar -C "$D/back" -xpf "$D/back.tar"
	diff -r "$D/in" "$D/back" || fail "not the layout that it was"
	rm -rf "$D/back" "$D/back.tar" "$D/unpacked"
	gzip -1 <"$D/in.tar" >"$D/in.tgz"
	quiet "$CKFAST" convert "$D/in.tgz" "$D/fast2.tar"
	cmp "$D/fast.tar" "$D/fast2.tar" || fail "of a compressed archive, another layout"
	rm "$D/in.tgz" "$D/fast2.tar"
}

# --force replaces no directory that has something else in it than a layout.
only_layouts_are_replaced() {
	local other
	for other in precious/deep blobs/precious blobs/sha256/precious blobs/sha512 blobs.old; do
		cp -r "$D/fast" "$D/other"
		mkdir -p "$D/other/$other"
		echo precious >"$D/other/$other/file"
		refused "and --force would not replace it: it holds more than an OCI image layout does" convert --force "$D/in" "$D/other"
		[ -s "$D/other/$other/file" ] || fail "$other is gone"
		rm -r "$D/other"
	done
	cp -r "$D/fast" "$D/other"
	echo precious >"$D/other/blobs/file"
	refused "and --force would not replace it: it holds more than an OCI image layout does" convert --force "$D/in" "$D/other"
	rm "$D/other/blobs/file"
	ln -s . "$D/other/blobs/sha256/link"
	refused "and --force would not replace it: it holds more than an OCI image layout does" convert --force "$D/in" "$D/other"
	rm -r "$D/other"
	mkdir "$D/other"
	echo precious >"$D/other/oci-layout"
	quiet "$CKFAST" convert --force "$D/in" "$D/other"
	fast_blobs "$D/other"
	rm -r "$D/other"
}

# compressed PROGRAM: the layer comes back as it is when it is not compressed, with its type.
compressed() {
	layout make "$D/packed" "$D/checkpoint.tar" "$D/criu.tar" "$1"
	quiet "$CKFAST" convert "$D/packed" "$D/packed-fast"
	fast_blobs "$D/packed-fast"
	quiet "$CKFAST" extract "$D/packed-fast" "$D/back"
	grep -q "was compressed with $1" "$D/out" || fail "does not say: $(cat "$D/out")"
	layout check "$D/back" >"$D/out" || fail "$1: $(cat "$D/out")"
	cmp "$D/back/blobs/sha256/$(sha256sum <"$D/checkpoint.tar" | cut -d' ' -f1)" "$D/checkpoint.tar" ||
		fail "$1: not the layer that it was"
	rm -rf "$D/packed" "$D/packed-fast" "$D/back"
}

# What containerd does: it unpacks its blob and restores from there.
restored() {
	local blob
	for blob in $(layout check "$D/fast"); do
		tar -C "$D" -xf "$D/fast/blobs/sha256/$blob" --one-top-level="r-$blob"
		[ -e "$D/r-$blob/inventory.img" ] || continue
		restore_fast "$D/r-$blob"
		check "$PID"
		stop "$PID"
		return
	done
	fail "no checkpoint of containerd"
}

# With one checkpoint, the layout is looked at like an archive.
one() {
	local index=$D/one/index.json
	cp -r "$D/in" "$D/one"
	"$PYTHON" - "$index" <<-'END'
		import json, sys
		index = json.load(open(sys.argv[1]))
		index["manifests"] = index["manifests"][1:2]
		json.dump(index, open(sys.argv[1], "w"))
	END
	quiet "$CKFAST" inspect "$D/one"
	grep -q bigproc "$D/out" || fail "inspect of a layout: $(cat "$D/out")"
	quiet "$CKFAST" convert --json "$D/one" "$D/one-fast"
	"$PYTHON" -c 'import json, sys; assert json.load(open(sys.argv[1]))["tasks"] == 1' "$D/out" ||
		fail "convert --json: $(cat "$D/out")"
	quiet "$CKFAST" verify --json "$D/one-fast"
	quiet "$CKFAST" inspect --json "$D/one-fast"
	tar -C "$D/one-fast" -cf "$D/one.tar" .
	quiet "$CKFAST" verify "$D/one.tar"
	rm -rf "$D/one" "$D/one-fast" "$D/one.tar"
}

# The same checkpoint three times: plain, a fast image already, which that becomes, and compressed, which
# becomes another one: it knows what it was.
merged() {
	layout make "$D/packed" "$D/checkpoint.tar" "$D/criu.tar" gzip
	layout merge "$D/packed" "$D/fast"
	layout merge "$D/packed" "$D/in"
	tar -C "$D/packed" -cf "$D/packed.tar" .
	quiet "$CKFAST" convert "$D/packed" "$D/packed-fast"
	fast_blobs "$D/packed-fast" 3
	quiet "$CKFAST" convert "$D/packed.tar" "$D/packed-fast.tar"
	mkdir "$D/unpacked"
	tar -C "$D/unpacked" -xpf "$D/packed-fast.tar"
	[ -z "$(tar -tf "$D/packed-fast.tar" | sort | uniq -d)" ] || fail "a blob is there twice"
	diff -r "$D/packed-fast" "$D/unpacked" || fail "of the archive, another layout than of the directory"
	rm -r "$D"/packed* "$D/unpacked"
}

hostile() {
	local name text
	for name in $(layout bad); do
		text=$(layout bad "$name" "$D/in" "$D/bad")
		refused "$text" convert "$D/bad" "$D/no"
		tar -C "$D/bad" -cf "$D/bad.tar" .
		refused "$text" convert --in-place "$D/bad"
		tar -C "$D/bad" -df "$D/bad.tar" || fail "$name: in place, it is not as it was"
		case $name in
		# In a tar archive, it is not a file.
		layer_is_a_link) ;;
		*) refused "$text" convert "$D/bad.tar" "$D/no" ;;
		esac
		rm "$D/bad.tar"
	done
	rm -rf "$D/bad"
}

in_place() {
	cp -rp "$D/in" "$D/here"
	quiet "$CKFAST" convert --in-place "$D/here"
	fast_blobs "$D/here"
	quiet "$CKFAST" extract --in-place "$D/here"
	diff -r "$D/in" "$D/here" || fail "in place: not the layout that it was"
	rm -rf "$D/here"
	cp -p "$D/in.tar" "$D/here.tar"
	quiet "$CKFAST" convert --in-place "$D/here.tar"
	cmp "$D/here.tar" "$D/fast.tar" || fail "in place: not the archive that it is elsewhere"
	rm "$D/here.tar"
}

no_room() {
	mkdir "$D/small"
	mount -t tmpfs -o size=1M none "$D/small"
	refused "No space left" convert "$D/in" "$D/small/fast"
	refused "No space left" convert "$D/in.tar" "$D/small/fast.tar"
	[ -z "$(ls -A "$D/small")" ] || fail "no room: something is left"
	umount "$D/small"
}

need_ckfast
each_version there_and_back
only_layouts_are_replaced
as_archive
for form in gzip zstd; do
	! command -v $form >/dev/null || compressed $form
done
restored
one
merged
hostile
in_place
no_room
killed_at_each 200 "$D/in" in out fast_blobs convert in out
killed_at_each 200 "$D/in" in in fast_blobs convert --in-place in

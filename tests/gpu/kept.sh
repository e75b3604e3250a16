# SPDX-License-Identifier: MIT
#
# What the tests of images that gpud keeps share. Sourced after tests/gpu/lib.sh.
[ -x "$BUILD/bin/criu-stock" ] || skip "no patched CRIU in build/bin (make criu)"
mkdir out

# A dump to make images of, of the process FIRST; gpud, which gives them their device memory, is started.
images_begin() {
	use_criu "$BUILD/bin/criu-stock" "$BUILD/bin/criu"
	start_ready "$PROGS/bigproc" . 8
	FIRST=$PID
	dump "$PID" "$W/dump"
	start_gpud
}

# image NAME MIB…: a fast image with such memory of one process, whose pid is always the same; its dump is
# dump-NAME, and its bytes are expect-NAME.
image() {
	local name=$1
	shift
	cp -r dump "dump-$name"
	works save "dump-$name" "$FIRST" "$@"
	mv "expect-$FIRST" "expect-$name"
	"$CKFAST" convert "dump-$name" "$name" >convert.log 2>&1 || fail "convert $name: $(cat convert.log)"
}

images_end() {
	stop_gpud
	settle
}

# What was just written is not kept.
settle() {
	sleep 1
}

kept() {
	[ "$(status "s['kept']['count']")" = "$1" ]
}

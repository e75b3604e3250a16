# SPDX-License-Identifier: MIT
# Sourced by tests with AMD GPUs, after lib.sh: the fake of tests/stub/amd, and CRIU's plugin.

SO=$BUILD/stub/libamd.so
[ -e "$SO" ] || skip "no $SO (make stub)"

# libhsakmt looks at the caches of each CPU of the first node, which not all virtual machines show.
show_caches() {
	local node=/sys/devices/system/node/node0 cpu nr
	for cpu in "$node"/cpu[0-9]*; do
		[ ! -e "$cpu/cache" ] || return 0
	done
	mkdir -p "$W/node"
	mount -t tmpfs none "$W/node"
	for cpu in "$node"/cpu[0-9]*; do
		nr=${cpu##*/cpu}
		cpu=$W/node/cpu$nr/cache/index0
		mkdir -p "$cpu"
		echo 1 >"$cpu/level"
		echo 32K >"$cpu/size"
		echo Data >"$cpu/type"
		echo 64 >"$cpu/coherency_line_size"
		echo 8 >"$cpu/ways_of_associativity"
		echo 1 >"$cpu/physical_line_partition"
		echo "$nr" >"$cpu/shared_cpu_list"
	done
	mount --move "$W/node" "$node"
}

# make_world GPU_ID:MINOR:MIB…: over /dev and /sys/class, in the mount namespace of this test. Where
# there is one already, it is replaced.
make_world() {
	while [ -e /sys/class/kfd/fake ]; do
		umount -l /sys/devices/virtual /sys/class /dev
	done
	mkdir -p "$W/dev" "$W/sys"
	mount -t tmpfs none "$W/dev"
	mount -t tmpfs none "$W/sys"
	"$BUILD/stub/amd-world" "$W/dev" "$W/sys" "$@"
	: >"$W/sys/kfd/fake"
	mknod -m 666 "$W/dev/null" c 1 3
	mknod -m 666 "$W/dev/zero" c 1 5
	mknod -m 666 "$W/dev/urandom" c 1 9
	mknod -m 666 "$W/dev/ptmx" c 5 2
	mkdir "$W/dev/shm" "$W/dev/pts"
	mount -t devpts -o ptmxmode=666 none "$W/dev/pts"
	mount --move "$W/dev" /dev
	mount --move "$W/sys" /sys/class
	# Where libhsakmt looks.
	mount --bind /sys/class /sys/devices/virtual
	show_caches
}

# build_plugin SOURCE DIR: the plugin of that CRIU; libdrm itself is the fake's.
build_plugin() {
	local src=$1 out=$2 dir
	mkdir -p "$out" "$D/src"
	cp "$src"/plugins/amdgpu/*.[ch] "$src/plugins/amdgpu/criu-amdgpu.proto" "$D/src"
	(
		cd "$D/src"
		protoc-c --proto_path=. --c_out=. criu-amdgpu.proto
		set --
		for dir in include criu/include criu/arch/x86/include .; do
			set -- "$@" -iquote "$src/$dir"
		done
		gcc -w -g -D_GNU_SOURCE -shared -nostartfiles -fPIC -iquote . "$@" \
			-I"$src/compel/include/uapi" $LIBDRM_CFLAGS amdgpu_*.c criu-amdgpu.pb-c.c \
			-o "$out/amdgpu_plugin.so"
	)
	rm -rf "$D/src"
}

# damage_chunk IMAGE WANTED: one that of AMD GPUs only those targets have for whose number t WANTED, in Python, is true.
damage_chunk() {
	local off
	off=$("$PYTHON" - "$ROOT/tests/py" "$1" "$2" <<-'END'
		import sys
		sys.path.insert(0, sys.argv[1])
		sys.dont_write_bytecode = True
		import ckread
		image = ckread.Image(sys.argv[2])
		image.check()
		chunks = {True: set(), False: set()}
		for t, target in enumerate(image.targets):
		    if target[6] == 3:
		        chunks[eval(sys.argv[3])].update(
		            op[1] for op in image.ops[target[2]:target[2] + target[3]])
		print(max(image.chunks[chunk][0] for chunk in chunks[True] - chunks[False]))
	END
	)
	printf 'wrong' | dd of="$1/ckfast.pack" bs=1 seek="$off" conv=notrunc status=none
}

need_hsakmt() {
	case $(ldconfig -p) in
	*libhsakmt.so.1*) ;;
	*) skip "no libhsakmt (libhsakmt1)" ;;
	esac
}

# amd COMMAND…: with the fake.
amd() {
	LD_PRELOAD=$SO "$@"
}

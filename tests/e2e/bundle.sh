# SPDX-License-Identifier: MIT
#
# What the tests of container runtimes share: a root file system, a bundle, and what has to be the
# same in a restored container. They source it after lib.sh. CRIU may name another one than that
# of build/bin.

CRIU=${CRIU:-$BUILD/bin/criu}

# need_programs NAME…: of this system, and the patched CRIU, which is the first criu in PATH.
need_programs() {
	local program
	need_ckfast
	for program in "$@"; do
		command -v "$program" >/dev/null || skip "no $program"
	done
	[ -x "$CRIU" ] || skip "no patched CRIU in build/bin (make criu)"
	mkdir -p "$W/bin"
	ln -sf "$CRIU" "$W/bin/criu"
	export PATH=$W/bin:$PATH
}

# make_hook: $W/criu.conf, a configuration of CRIU with the hook that converts each dump.
make_hook() {
	sed "s|@BINDIR@|$(dirname "$CKFAST")|" "$ROOT/scripts/ckfast-convert-hook" >"$W/hook"
	chmod 755 "$W/hook"
	echo "action-script $W/hook" >"$W/criu.conf"
}

# make_root DIR PROGRAM…: a root file system of those programs of tests/progs, and what they are
# linked with. They write to /work.
make_root() {
	local root=$1 program file
	shift
	mkdir -p "$root/work" "$root/proc"
	for program in "$@"; do
		cp "$PROGS/$program" "$root/"
		for file in $(ldd "$PROGS/$program" | grep -o '/[^ ]*'); do
			mkdir -p "$root$(dirname "$file")"
			cp -Lu "$file" "$root$file"
		done
	done
}

MEMORY_LIMIT=$((192 << 20))
PIDS_LIMIT=77

# make_network: a network namespace at $W/netns, as engines make them. make_config takes it.
make_network() {
	: >netns
	unshare --net="$W/netns" true || skip "no network namespace here"
}

# make_config SPEC CONFIG CGROUP ARG…: the configuration of a container that runs ARG…, from what the
# runtime proposes. It has limits, a filter of system calls, a network of its own or that of make_network, and
# may change its group. With NOTHING_MASKED it sees all of /proc and /sys.
make_config() {
	"$PYTHON" - "$MEMORY_LIMIT" "$PIDS_LIMIT" "$W/criu.conf" "$@" <<-'END'
		import json, os, sys
		memory, pids, criu, spec, config, cgroup, *args = sys.argv[1:]
		c = json.load(open(spec))
		process, linux = c["process"], c["linux"]
		process.update(args=args, terminal=False)
		process.pop("rlimits", None)  # more than a caller without CAP_SYS_RESOURCE may set
		for rights in process["capabilities"].values():
		    rights.append("CAP_SETGID")
		c["root"]["readonly"] = False
		c["annotations"] = {"org.criu.config": criu}
		linux["cgroupsPath"] = cgroup
		linux["resources"].update(memory={"limit": int(memory)}, pids={"limit": int(pids)})
		linux["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
		    {"names": ["bpf", "kexec_load", "userfaultfd"], "action": "SCMP_ACT_ERRNO"}]}
		if os.environ.get("NOTHING_MASKED"):
		    linux.pop("maskedPaths")
		if os.path.exists("netns"):
		    for namespace in linux["namespaces"]:
		        if namespace["type"] == "network":
		            namespace["path"] = os.path.abspath("netns")
		json.dump(c, open(config, "w"))
	END
}

# limit_of PID CONTROLLER FILE1 FILE2: of its cgroup; the names of the file in versions 1 and 2.
limit_of() {
	local at
	at=$(sed -n "s/^[0-9]*:$2://p" "/proc/$1/cgroup")
	if [ -n "$at" ]; then
		cat "/sys/fs/cgroup/$2$at/$3"
	else
		cat "/sys/fs/cgroup$(sed -n 's/^0:://p' "/proc/$1/cgroup")/$4"
	fi
}

# container_facts PID: what has to be the same in a restored container, of its first process and of
# how many there are.
container_facts() {
	local ns
	grep -E '^(Uid|Gid|Groups|NSpid|Threads|NoNewPrivs|Seccomp|Cap...):' "/proc/$1/status" |
		sed 's/^NSpid:.*\t/NSpid: /'
	echo "memory $(limit_of "$1" memory memory.limit_in_bytes memory.max)"
	echo "pids $(limit_of "$1" pids pids.max pids.max)"
	echo "processes $(tree_of "$1" | wc -l)"
	sed -n 's/^ *\([^ ]*:\).*/interface \1/p' "/proc/$1/net/dev"
	[ ! -e netns ] || [ "$(stat -Lc %i "/proc/$1/ns/net")" != "$(stat -c %i netns)" ] || echo "given net"
	for ns in net pid mnt ipc uts; do
		[ "$(readlink "/proc/$1/ns/$ns")" = "$(readlink /proc/self/ns/$ns)" ] || echo "own $ns"
	done
}

# all_wrote WORK NAME PID: each process of the program has written that file; only tree has several.
all_wrote() {
	local files
	files=$(ls "$1" | grep -cE "^$2(\\.[0-9]+)?$" || true)
	[ "$files" -gt 0 ] && [ "$files" = "$(tree_of "$3" | wc -l)" ]
}

# all_answer WORK PID: each process looks at all of its memory and says OK.
all_answer() {
	local pid
	rm -f "$1"/report*
	for pid in $(tree_of "$2"); do
		kill -USR1 "$pid"
	done
	wait_for 60 all_wrote "$1" report "$2" || fail "not all processes answer: $(ls "$1")"
	! grep -v ^OK "$1"/report* || fail "not the memory that it was"
}

# remove_cgroups NAME: what a runtime leaves of them.
remove_cgroups() {
	find /sys/fs/cgroup -depth -type d -path "*/$1*" -exec rmdir {} + 2>/dev/null || true
}

# The runtime, with a state of its own. What it starts inherits its output.
runtime() {
	"$RUNTIME" --root "$W/state" --log "$W/runtime.out" "$@" </dev/null >/dev/null 2>&1
}

runtime_errors() {
	tail -n 1 runtime.out
	[ ! -e "work/$1.log" ] || log_errors "work/$1.log"
}

# pid_of_box: of the container "box".
pid_of_box() {
	"$RUNTIME" --root "$W/state" state box | sed -n 's/.*"pid": *\([0-9]*\).*/\1/p'
}

# checkpoint_box: into images/. The container is gone afterwards.
checkpoint_box() {
	local tree
	tree=$(tree_of "$PID")
	runtime checkpoint "${RUNTIME_OPTIONS[@]}" --image-path "$W/images" --work-path "$W/work" box ||
		fail "checkpoint: $(runtime_errors dump)"
	all_gone $tree
	runtime delete --force box || true
}

# restore_box: from images/, which is a fast image; it is as it was. Sets PID.
restore_box() {
	"$CKFAST" verify -q images || fail "no fast image: $(grep -a "^ckfast " work/dump.log)"
	rm -f work/restore.log
	runtime restore "${RUNTIME_OPTIONS[@]}" --detach --bundle "$W/bundle" --image-path "$W/images" \
		--work-path "$W/work" box ||
		fail "restore: $(runtime_errors restore)"
	grep -aq fast-image: work/restore.log || fail "not restored from a fast image"
	PID=$(pid_of_box)
	diff facts <(container_facts "$PID") >facts.diff || fail "not as it was: $(cat facts.diff)"
	all_answer bundle/rootfs/work "$PID"
}

# run_box ARG…: a container that runs ARG…. Sets PID.
run_box() {
	rm -rf bundle images work
	mkdir -p bundle images work
	make_root bundle/rootfs "${1#/}"
	(cd bundle && "$RUNTIME" spec && mv config.json spec.json)
	make_config bundle/spec.json bundle/config.json "/$CGROUP" "$@"
	: >criu.conf
	runtime run --detach --bundle "$W/bundle" box ||
		skip "$RUNTIME cannot run a container here: $(tail -n 1 runtime.out)"
	PID=$(pid_of_box)
	wait_for 60 all_wrote bundle/rootfs/work ready "$PID" || fail "the container does not start"
	container_facts "$PID" >facts
}

# Threads that change their group. Not before a dump: CRIU could not read the limits of another group's
# task without CAP_SYS_RESOURCE.
changing_groups() {
	run_box /traces /work threads 16
	checkpoint_box
	"$CKFAST" convert --in-place -q images || fail "convert"
	restore_box
	all_answer bundle/rootfs/work "$PID"
	runtime delete --force box
}

# Several processes in a network that stays. The second time, the hook converts.
several_processes() {
	make_network
	run_box /tree /work
	all_answer bundle/rootfs/work "$PID"
	checkpoint_box
	"$CKFAST" convert --in-place -q images || fail "convert"
	restore_box
	make_hook
	rm -r images
	mkdir images
	checkpoint_box
	restore_box
	runtime delete --force box
}

# test_runtime RUNTIME OPTION…: the options are for checkpoints and restores.
test_runtime() {
	RUNTIME=$1
	RUNTIME_OPTIONS=("${@:2}")
	CGROUP=ckfast-$1-$RANDOM
	trap end_runtime EXIT
	changing_groups
	several_processes
}

end_runtime() {
	local status=$?
	runtime delete --force box || true
	umount netns 2>/dev/null || true
	remove_cgroups "$CGROUP"
	at_exit $status
}

# SPDX-License-Identifier: MIT
"""The state of processes, before a dump and after restores.

    snapshot.py save FILE TASKSTATE PID...   everything about these processes that a restore has to
                                             bring back; TASKSTATE is build/progs/taskstate
    snapshot.py diff BEFORE STOCK FAST       one line for each thing that a fast restore has left
                                             different; exit code 1 if there is one

Stock CRIU is the measure: what FAST has must be what BEFORE or STOCK has. Flags of mappings are
compared one by one; the sizes of those with ac are what private memory adds to Committed_AS, a
number of the whole machine, which tests/e2e/401-reserve.sh compares. Pages are not compared here,
see memcmp.
"""

import ctypes
import json
import os
import re
import subprocess
import sys

HEAD = re.compile(r"([0-9a-f]+)-([0-9a-f]+) (\S+) (\S+) (\S+) (\d+) *(.*)")
OBJECT = re.compile(r"^(pipe|socket|mnt|net|ipc|uts|pid|pid_for_children|user|cgroup|time|"
                    r"time_for_children):\[(\d+)\]$")
SYS_IOPRIO_GET, SYS_SCHED_GETATTR, IOPRIO_WHO_PROCESS = 252, 315, 1

# Lines of /proc/PID/status: those of each thread, and those that all threads have in common. SigBlk
# is not read here: while a thread waits in sigwaitinfo(), it lacks the signals that it waits for.
OF_THREAD = ("Uid", "Gid", "Groups", "NSpid", "NStgid", "NSpgid", "NSsid", "SigPnd", "CapInh",
             "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "Seccomp_filters",
             "Speculation_Store_Bypass", "SpeculationIndirectBranch", "Cpus_allowed",
             "Mems_allowed", "x86_Thread_features", "x86_Thread_features_locked")
OF_PROCESS = ("Umask", "PPid", "TracerPid", "ShdPnd", "SigIgn", "SigCgt", "THP_enabled", "VmLck",
              "VmPin", "VmSize", "HugetlbPages", "untag_mask")
# Fields of /proc/PID/stat, counted as in proc_pid_stat(5).
STAT_OF_THREAD = {"nice": 19, "exit signal": 38, "rt priority": 40, "policy": 41}
STAT_OF_PROCESS = {"pgid": 5, "sid": 6, "tty": 7, "start of code": 26, "end of code": 27,
                   "start of stack": 28, "start of data": 45, "end of data": 46,
                   "start of heap": 47, "start of arguments": 48, "end of arguments": 49,
                   "start of environment": 50, "end of environment": 51}
FILES = ("cgroup", "personality", "oom_score_adj", "coredump_filter", "cmdline", "environ", "auxv",
         "timers", "uid_map", "gid_map", "projid_map", "setgroups", "loginuid", "sessionid",
         "attr/current")
# Lines of fdinfo that name objects of the kernel by numbers that are new after each restore, or
# that count on.
FDINFO_SKIPPED = ("mnt_id", "ino", "eventfd-id", "ticks", "it_value", "Pid", "NSpid")


def text(path):
    """None where the kernel has no such file, or does not let it be read."""
    try:
        with open(path, "rb") as f:
            return f.read().decode("utf-8", "backslashreplace").rstrip("\n\0")
    except OSError:
        return None


class Objects:
    """Gives pipes, sockets and namespaces names that do not change with their inode numbers, so
    that it shows which are the same. Namespaces that are the reader's own have their own name."""

    def __init__(self):
        self.names = {}

    def name(self, link):
        match = OBJECT.match(link)
        if not match:
            return link
        kind = match.group(1).replace("_for_children", "")
        try:
            if os.readlink(f"/proc/self/ns/{kind}") == f"{kind}:[{match.group(2)}]":
                return f"{kind}:own"
        except OSError:
            pass
        nr = sum(key[0] == kind for key in self.names)
        return self.names.setdefault((kind, match.group(2)), f"{kind}:#{nr}")


def numbers(directory):
    return sorted(int(n) for n in os.listdir(directory))


def read_status(path):
    return dict(line.split(":", 1) for line in text(path).split("\n") if ":" in line)


def read_fd(pid, fd, objects):
    link = objects.name(os.readlink(f"/proc/{pid}/fd/{fd}"))
    lines = []
    for line in text(f"/proc/{pid}/fdinfo/{fd}").split("\n"):
        line = re.sub(r"\b(ino|pos|sdev):[0-9a-f]+", "", line) if line.startswith("tfd") else line
        line = re.sub(r"\b(ino|fhandle[a-z-]*|sdev|wd):[0-9a-f]+", "", line) \
            if line.startswith("inotify") else line
        if line.split(":")[0] not in FDINFO_SKIPPED:
            lines.append(" ".join(line.split()))
    return f"{link} {', '.join(lines)}"


def read_sched(tid):
    attr = ctypes.create_string_buffer(56)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(SYS_SCHED_GETATTR, tid, attr, len(attr), 0):
        return None
    return attr.raw.hex()


def thread_facts(tid):
    base = f"/proc/{tid}"
    status = read_status(f"{base}/status")
    stat = text(f"{base}/stat").rpartition(")")[2].split()
    facts = {key: " ".join(status[key].split()) for key in OF_THREAD if key in status}
    facts.update((key, stat[field - 3]) for key, field in STAT_OF_THREAD.items())
    facts["comm"] = text(f"{base}/comm")
    facts["timer slack"] = text(f"{base}/timerslack_ns")
    facts["scheduling"] = read_sched(tid)
    facts["I/O priority"] = ctypes.CDLL(None).syscall(SYS_IOPRIO_GET, IOPRIO_WHO_PROCESS, tid)
    return facts


def process_facts(pid, objects):
    base = f"/proc/{pid}"
    status = read_status(f"{base}/status")
    stat = text(f"{base}/stat").rpartition(")")[2].split()
    facts = {key: " ".join(status[key].split()) for key in OF_PROCESS if key in status}
    facts.update((key, stat[field - 3]) for key, field in STAT_OF_PROCESS.items())
    facts.update((name, text(f"{base}/{name}")) for name in FILES)
    facts["autogroup's nice"] = (text(f"{base}/autogroup") or "").rpartition(" ")[2]
    facts["threads"] = str(numbers(f"{base}/task"))
    facts["children"] = str(sorted(int(child) for tid in numbers(f"{base}/task")
                                   for child in text(f"{base}/task/{tid}/children").split()))
    for name in ("cwd", "root", "exe"):
        facts[name] = os.readlink(f"{base}/{name}")
    for name in sorted(os.listdir(f"{base}/ns")):
        facts[f"namespace {name}"] = objects.name(os.readlink(f"{base}/ns/{name}"))
    for fd in numbers(f"{base}/fd"):
        facts[f"descriptor {fd}"] = read_fd(pid, fd, objects)
    for line in text(f"{base}/limits").split("\n")[1:]:
        name, *values = re.split(r"  +", line)
        facts[name] = " ".join(values)
    return facts


def asked_facts(taskstate, pids):
    """What only a task itself can ask for: {thread: {what: value}}."""
    asked = {}
    out = subprocess.run([taskstate, *map(str, pids)], check=True, stdout=subprocess.PIPE)
    for line in out.stdout.decode().splitlines():
        tid, what, value = line.split(" ", 2)
        asked.setdefault(int(tid), {})[what.replace("-", " ")] = value
    return asked


def read_maps(pid):
    maps = []
    for line in text(f"/proc/{pid}/smaps").split("\n"):
        head = HEAD.match(line)
        if head:
            start, end, perms, off, _, inode, name = head.groups()
            attributes = {"mapped": "yes", "permissions": perms, "name": name or "none"}
            if inode != "0":
                # Where the file's first byte would be: what does not change within the mapping.
                attributes["file at"] = f"{int(start, 16) - int(off, 16):x}"
        elif line.startswith(("KernelPageSize:", "ProtectionKey:")):
            attributes[line.split(":")[0]] = " ".join(line.split()[1:])
        elif line.startswith("VmFlags:") and name != "[vsyscall]":
            attributes.update((f"flag {flag}", "set") for flag in line.split()[1:])
            maps.append([int(start, 16), int(end, 16), attributes])
    return maps


def save(path, taskstate, pids):
    objects = Objects()
    snapshot = {"facts": {}, "maps": {}}
    asked = asked_facts(taskstate, pids)
    for pid in pids:
        snapshot["facts"][f"process {pid}"] = process_facts(pid, objects)
        snapshot["maps"][f"process {pid}"] = read_maps(pid)
        for tid in numbers(f"/proc/{pid}/task"):
            snapshot["facts"][f"thread {tid}"] = {**thread_facts(tid), **asked.get(tid, {})}
    with open(path, "w", encoding="utf-8") as out:
        json.dump(snapshot, out)


def is_right(before, stock, fast):
    return fast in (before, stock)


def different_facts(snapshots):
    for who in sorted(set().union(*(s["facts"] for s in snapshots))):
        three = [s["facts"].get(who, {}) for s in snapshots]
        for what in sorted(set().union(*three)):
            values = [facts.get(what) for facts in three]
            if not is_right(*values):
                yield who, what, values


def pieces(three):
    """Addresses between which no mapping of the three begins or ends, with the attributes that each
    has there."""
    bounds = sorted({at for maps in three for start, end, _ in maps for at in (start, end)})
    rest = [list(maps) for maps in three]
    for start, end in zip(bounds, bounds[1:]):
        found = []
        for maps in rest:
            while maps and maps[0][1] <= start:
                maps.pop(0)
            found.append(maps[0][2] if maps and maps[0][0] <= start else {})
        yield start, end, found


def different_maps(snapshots):
    """Neighbours that differ in the same way are one: the kernel may or may not have merged
    them."""
    for who in sorted(set().union(*(s["maps"] for s in snapshots))):
        last = {}
        for start, end, found in pieces([s["maps"].get(who, []) for s in snapshots]):
            for what in sorted(set().union(*found)):
                values = [attributes.get(what) for attributes in found]
                if is_right(*values):
                    continue
                run = last.get(what)
                if run and run[1] == start and run[2] == values:
                    run[1] = end
                    continue
                if run:
                    yield who, f"{run[0]:x}-{run[1]:x}: {what}", run[2]
                last[what] = [start, end, values]
        for what, (start, end, values) in last.items():
            yield who, f"{start:x}-{end:x}: {what}", values


def shown(value):
    return "none" if value is None else value


def diff(paths):
    snapshots = []
    for path in paths:
        with open(path, encoding="utf-8") as f:
            snapshots.append(json.load(f))
    bad = 0
    for differences in (different_facts, different_maps):
        for who, what, (before, stock, fast) in differences(snapshots):
            print(f"{who}, {what}: before {shown(before)}, stock {shown(stock)}, "
                  f"fast {shown(fast)}")
            bad = 1
    return bad


def main(verb, path, *rest):
    if verb == "save":
        save(path, rest[0], sorted(map(int, rest[1:])))
        return 0
    return diff([path, *rest])


sys.exit(main(*sys.argv[1:]))

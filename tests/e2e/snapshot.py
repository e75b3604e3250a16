# SPDX-License-Identifier: MIT
"""What has to be the same of a process before the dump and after the restore.

    snapshot.py save FILE PID...        threads, open files, the state of transparent huge pages,
                                        and the mappings with their permissions and flags
    snapshot.py diff FILE FILE [FLAG...]  prints what differs, apart from these flags of mappings;
                                        exit code 1 if something does

Neighbours that differ in nothing count as one mapping: the kernel may or may not have merged them.
"""

import difflib
import json
import os
import re
import sys

HEAD = re.compile(r"([0-9a-f]+)-([0-9a-f]+) (\S+) (\S+) (\S+) (\d+) *(.*)")


def read_maps(pid):
    maps = []
    with open(f"/proc/{pid}/smaps", encoding="utf-8") as smaps:
        for line in smaps:
            head = HEAD.match(line)
            if head:
                start, end, perms, off, _, inode, name = head.groups()
            elif line.startswith("VmFlags:") and name != "[vsyscall]":
                maps.append({"start": int(start, 16), "end": int(end, 16), "perms": perms,
                             "off": int(off, 16), "file": inode != "0",
                             "flags": line.split()[1:]})
    return maps


def numbers(pid, directory):
    return sorted(int(n) for n in os.listdir(f"/proc/{pid}/{directory}"))


def read_process(pid):
    with open(f"/proc/{pid}/status", encoding="utf-8") as status:
        thp = [line.split()[1] for line in status if line.startswith("THP_enabled")]
    return {"pid": pid, "threads": numbers(pid, "task"), "fds": numbers(pid, "fd"), "thp": thp,
            "maps": read_maps(pid)}


def merged(maps, ignored):
    out = []
    for m in maps:
        m = dict(m, flags=[f for f in m["flags"] if f not in ignored])
        last = out[-1] if out else None
        if last and last["end"] == m["start"] and all(
                last[key] == m[key] for key in ("perms", "file", "flags")) and (
                not m["file"] or last["off"] + m["start"] - last["start"] == m["off"]):
            last["end"] = m["end"]
        else:
            out.append(m)
    return out


def lines(path, ignored):
    with open(path, encoding="utf-8") as f:
        for p in json.load(f):
            for key in ("threads", "fds", "thp"):
                yield f"process {p['pid']} {key} {p[key]}"
            for m in merged(p["maps"], ignored):
                off = m["off"] if m["file"] else 0
                yield (f"process {p['pid']} {m['start']:x}-{m['end']:x} {m['perms']} {off:x} "
                       f"{' '.join(m['flags'])}")


def main(verb, path, *rest):
    if verb == "save":
        with open(path, "w", encoding="utf-8") as out:
            json.dump([read_process(pid) for pid in sorted(map(int, rest))], out)
        return 0
    other, *ignored = rest
    different = list(difflib.unified_diff(list(lines(path, ignored)), list(lines(other, ignored)),
                                          path, other, lineterm="", n=0))
    print("\n".join(different))
    return 1 if different else 0


sys.exit(main(*sys.argv[1:]))

# SPDX-License-Identifier: MIT
"""convert16.py OUTDIR: how ckfast convert scales with --jobs, from and to tmpfs. For each dump and
codec, GB of pages per second by the number of jobs, and against one job.

    CONVERT_MIB=2048        size of each dump
    CONVERT_REPS=5          runs of each kind, in turns
    CONVERT_SECONDS=80      no run starts after that
    CONVERT_DUMPS=WORDS     only these of: server random tree
    CONVERT_CODECS=WORDS    only these of: raw auto zstd; auto is for NVMe storage
    CONVERT_DIR=/dev/shm    where the dumps and the images are

Writes OUTDIR/convert16.txt and convert16.jsonl.
"""

import os
import shutil
import statistics
import sys
import time

from harness import Bench, Failure, fresh_runs, run, words

DUMPS = {"server": ("anon", "server", 1), "random": ("anon", "random", 1),
         "tree": ("equal", "weights", 4)}
CODECS = {"raw": ["--codec", "raw"], "auto": ["--codec", "auto", "--profile", "nvme"],
          "zstd": ["--codec", "zstd"]}
MIB = int(os.environ.get("CONVERT_MIB", "2048"))
REPS = int(os.environ.get("CONVERT_REPS", "5"))
SECONDS = int(os.environ.get("CONVERT_SECONDS", "80"))
WORK = os.path.join(os.environ.get("CONVERT_DIR", "/dev/shm"), "ckfast-convert16")
JOBS = [n for n in (1, 2, 4, 8, 16) if n <= len(os.sched_getaffinity(0))]


def make_dump(bench, name):
    kind, data, procs = DUMPS[name]
    path = bench.path(name)
    program = bench.program(procs)
    program.start(kind, MIB // procs, data)
    bench.dump(program, path)
    return path, sum(os.stat(os.path.join(path, n)).st_size for n in os.listdir(path)
                     if n.startswith("pages-"))


def convert(bench, dump, codec, jobs):
    """Nanoseconds. What a run before has left is removed first, and its memory touched."""
    fast = bench.path("fast")
    shutil.rmtree(fast, ignore_errors=True)
    bench.pretouch(MIB + 512)
    return run([*bench.tools.command("ckfast"), "convert", "-q", *CODECS[codec], "--jobs",
                str(jobs), dump, fast], log=bench.log)


def table(found, page_bytes):
    lines = [f"{'dump':8} {'codec':6} {'jobs':>4} {'GB/s':>7} {'min':>7} {'max':>7} {'times 1':>8} "
             f"{'runs':>4}"]
    for (dump, codec, jobs), took in found.items():
        speeds = [page_bytes[dump] / ns for ns in took]
        speed = statistics.median(speeds)
        if jobs == 1:
            one = speed
        lines.append(f"{dump:8} {codec:6} {jobs:4} {speed:7.2f} {min(speeds):7.2f} "
                     f"{max(speeds):7.2f} {speed / one:8.2f} {len(took):4}")
    return "\n".join(lines) + "\n"


def main():
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    out = sys.argv[1]
    runs = fresh_runs(out, "convert16.jsonl")
    bench = Bench(WORK, runs, time.monotonic() + SECONDS)
    bench.facts(mib=MIB, reps=REPS)
    found, page_bytes, dumps = {}, {}, {}
    try:
        for name in words("CONVERT_DUMPS", ["server", "random"]):
            dumps[name], page_bytes[name] = make_dump(bench, name)
        for _ in range(REPS):
            for name, path in dumps.items():
                for codec in words("CONVERT_CODECS", ["raw", "auto"]):
                    for jobs in JOBS:
                        if bench.late():
                            continue
                        ns = convert(bench, path, codec, jobs)
                        bench.record("convert", dump=name, codec=codec, jobs=jobs, ns=ns)
                        found.setdefault((name, codec, jobs), []).append(ns)
    except (Failure, OSError, KeyboardInterrupt) as e:
        bench.complain("convert", e)
    text = (f"convert16.py, {MIB} MiB, commit {bench.tools.commit()}, "
            f"{len(os.sched_getaffinity(0))} CPUs, Linux {os.uname().release}\n" + table(found, page_bytes))
    bench.close()
    with open(os.path.join(out, "convert16.txt"), "w", encoding="utf-8") as f:
        f.write(text)
    print(text)
    return 1 if bench.failures else 0


if __name__ == "__main__":
    sys.exit(main())

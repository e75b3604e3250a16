# SPDX-License-Identifier: MIT
"""bench16.py OUTDIR: a machine with many CPUs and much memory: one large anonymous process, its
image in tmpfs and on the disk, by the number of threads; and a small process.

    BENCH_MIB=8192      size of the process
    BENCH_REPS=5        runs of each kind
    BENCH_SECONDS=510   no run starts that would not end by then
    BENCH_SHM=/dev/shm  tmpfs that the image is in
    BENCH_DISK=/var/tmp directory on the disk
    BENCH_CRIU=WORDS    more options for criu dump and criu restore

Writes OUTDIR/bench16.json, bench16.txt and runs.jsonl. A run that fails is left out, its log is
printed, and the others go on.
"""

import os
import shutil
import signal
import sys
import time
import traceback

import table
from contest import Contest
from harness import Bench, copy_dir, fresh_runs

MIB = int(os.environ.get("BENCH_MIB", "8192"))
REPS = int(os.environ.get("BENCH_REPS", "5"))
SECONDS = int(os.environ.get("BENCH_SECONDS", "510"))
SHM = os.path.join(os.environ.get("BENCH_SHM", "/dev/shm"), "ckfast-bench16")
DISK = os.path.join(os.environ.get("BENCH_DISK", "/var/tmp"), "ckfast-bench16")
THREADS = [n for n in (1, 2, 4, 8, 16, 32) if n <= len(os.sched_getaffinity(0))]


def contenders(contest):
    found = {"stock": contest.stock, "fast": contest.fast, "bare": contest.bare}
    if contest.bench.tools.has("criu-populate"):
        found["populate"] = contest.populate
    return found


def small(bench):
    contest = Contest(bench, "small", kind="anon", mib=5, base=SHM, touch_mib=64)
    contest.set_up()
    contest.run({"stock": contest.stock, "fast": contest.fast}, ["tmpfs"], REPS * 3)
    contest.clean()


def threads(contest):
    """One after the other in each round, so that all see the same moods of the machine."""
    for _ in range(max(REPS * 3 // 5, 1)):
        for n in THREADS:
            contest.run_one("fast", lambda state, n=n: contest.fast(state, n), "tmpfs", None,
                            threads=n)
            contest.run_one("bare", lambda state, n=n: contest.bare(state, n), "tmpfs", None,
                            threads=n)


def on_disk(contest):
    if contest.bench.late(60):
        contest.bench.say("no time left for the disk")
        return
    for name in ("dump", "fast"):
        copy_dir(os.path.join(SHM, name), os.path.join(DISK, name))
        shutil.rmtree(os.path.join(SHM, name))
    contest.dump_dir = os.path.join(DISK, "dump")
    contest.fast_dir = os.path.join(DISK, "fast")
    contest.run(contenders(contest), ["cold", "warm"], REPS)


def large(bench):
    contest = Contest(bench, "anon", kind="anon", mib=MIB, base=SHM, touch_mib=MIB + 512)
    contest.set_up()
    contest.run(contenders(contest), ["tmpfs"], REPS)
    contest.case = "threads"
    threads(contest)
    contest.case = "anon"
    on_disk(contest)


def on_signal(signum, _frame):
    raise KeyboardInterrupt(signum)


def main():
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    out = sys.argv[1]
    runs = fresh_runs(out, "runs.jsonl")
    for signum in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(signum, on_signal)
    bench = Bench(os.path.join(DISK, "work"), runs, time.monotonic() + SECONDS)
    bench.facts(mib=MIB, reps=REPS, command=f"BENCH_MIB={MIB} BENCH_REPS={REPS} ./bench16.sh")
    try:
        for step in (small, large):
            try:
                step(bench)
            except Exception as e:  # the other step and the tables are wanted all the same
                traceback.print_exc()
                bench.complain(step.__name__, e)
    except KeyboardInterrupt:
        bench.say("stopped: what was measured so far")
    bench.close()
    for directory in (SHM, DISK):
        shutil.rmtree(directory, ignore_errors=True)
    table.write(runs, os.path.join(out, "bench16.json"), os.path.join(out, "bench16.txt"))
    return 1 if bench.failures else 0


sys.exit(main())

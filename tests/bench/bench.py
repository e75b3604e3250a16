# SPDX-License-Identifier: MIT
"""bench.py: stock and fast restores of the same processes in turn, a bare program beside them, what
else people do with a dump, and ckfast's own commands. Writes build/bench.json and build/bench.svg.

    BENCH_MIB=2048      size of the large process; the other cases follow it
    BENCH_REPS=5        runs of each kind (of the small process three times as many)
    BENCH_QUICK=1       an eighth of the size, two runs, cache warm: to see that it works
    BENCH_SECONDS=1500  no run starts that would not end by then
    BENCH_CASES=WORDS   only these of: anon2g tasks8 shm frag small mixed tools
                        forked8 can be had too
    BENCH_STATES=WORDS  only these states of the page cache of: cold warm
    BENCH_PEERS=WORDS   only these peers of: tar.zst erofs populate (or none)
    BENCH_PEER_STATES=cold  states that the peers are timed in
    BENCH_CODEC=auto    for the fast images
    BENCH_CRIU=WORDS    more options for criu dump and criu restore
    BENCH_WORK=DIR      where the images are (build/bench)
"""

import os
import shutil
import signal
import sys
import time

import chart
import table
from contest import Contest, ErofsPeer, TarPeer
from harness import DROP_CACHES, Bench, Failure, dir_bytes, fresh_runs, run, words

# In this order, so that what has a target is measured first.
CASES = ["anon2g", "tasks8", "shm", "frag", "small", "mixed", "tools"]
PEERED = {"anon2g", "mixed"}


class Settings:
    """What the environment asks for."""

    def __init__(self):
        self.quick = os.environ.get("BENCH_QUICK", "0") != "0"
        self.mib = int(os.environ.get("BENCH_MIB", "256" if self.quick else "2048"))
        self.reps = int(os.environ.get("BENCH_REPS", "2" if self.quick else "5"))
        self.seconds = int(os.environ.get("BENCH_SECONDS", "1500"))
        self.cases = words("BENCH_CASES", CASES)
        self.states = words("BENCH_STATES", ["warm"] if self.quick else ["cold", "warm"])
        self.peers = words("BENCH_PEERS", ["tar.zst", "erofs", "populate"])
        self.peer_states = words("BENCH_PEER_STATES", ["warm"] if self.quick else ["cold"])
        self.codec = os.environ.get("BENCH_CODEC", "auto")
        if "cold" in self.states + self.peer_states and not os.access(DROP_CACHES, os.W_OK):
            self.states = self.peer_states = ["warm"]

    def command(self):
        return (f"BENCH_MIB={self.mib} BENCH_REPS={self.reps} BENCH_STATES='{' '.join(self.states)}' "
                f"BENCH_PEER_STATES='{' '.join(self.peer_states)}' BENCH_CODEC={self.codec} "
                f"BENCH_CASES='{' '.join(self.cases)}' make bench")

    def spec(self, case):
        mib = self.mib
        return {
            "anon2g": {"kind": "anon", "mib": mib},
            "mixed": {"kind": "anon", "mib": mib, "data": "mixed"},
            "tasks8": {"kind": "tasks", "mib": max(mib // 8, 1), "procs": 8},
            "forked8": {"kind": "forked", "mib": max(mib // 8, 1), "procs": 8},
            "shm": {"kind": "shm", "mib": max(mib // 2, 1), "procs": 4},
            "frag": {"kind": "frag", "mib": mib},
            "small": {"kind": "anon", "mib": 5, "touch_mib": 256},
        }[case]


def add_peers(settings, contest, contenders):
    """The peers that can be had here; the others with a word why not."""
    bench = contest.bench
    closing = []
    if "populate" in settings.peers:
        if bench.tools.has("criu-populate"):
            contenders["populate"] = contest.populate
        else:
            bench.say("populate: not built")
    for name, peer in (("tar.zst", TarPeer), ("erofs", ErofsPeer)):
        if name not in settings.peers:
            continue
        try:
            contenders[name] = peer(contest)
            closing.append(contenders[name])
        except (Failure, OSError) as e:
            bench.complain(f"{contest.case} {name}: left out", e)
    return closing


def run_case(bench, settings, case):
    contest = Contest(bench, case, codec=settings.codec, **settings.spec(case))
    contest.set_up()
    contenders = {"stock": contest.stock, "fast": contest.fast}
    reps = settings.reps
    if case == "small":
        reps *= 3
    else:
        contenders["bare"] = contest.bare
    plain = dict(contenders)
    closing = []
    with_peers = case in PEERED and settings.peer_states
    if with_peers:
        closing = add_peers(settings, contest, contenders)
    try:
        for state in settings.states:
            wide = with_peers and state in settings.peer_states
            contest.run(contenders if wide else plain, [state], reps)
    finally:
        for peer in closing:
            peer.close()
        contest.clean()


def on_one_cpu(bench, settings, what, nr_bytes, argv):
    """With the page cache warm; argv may write to the directory out."""
    for _ in range(settings.reps):
        shutil.rmtree(bench.path("out"), ignore_errors=True)
        os.sync()
        bench.pretouch(settings.mib)
        ns = run(["taskset", "-c", "0"] + argv, log=bench.log)
        bench.record("tool", what=what, bytes=nr_bytes, ns=ns)
        bench.say(f"{what:30} {nr_bytes / ns:9.3f} GB/s")


def tools_case(bench, settings):
    bench.say("== ckfast on one CPU")
    ckfast = bench.tools.command("ckfast")
    dump, out = bench.path("dump"), bench.path("out")
    for data, commands in (("mixed", ["lz4", "raw", "auto"]), ("random", ["verify"])):
        program = bench.program()
        program.start("anon", settings.mib // 2, data)
        bench.dump(program, dump)
        nr_bytes = dir_bytes(dump)
        bench.prepare("warm", dump, settings.mib)
        for c in commands:
            if c != "verify":
                on_one_cpu(bench, settings, f"convert --codec {c}", nr_bytes,
                           ckfast + ["convert", "--codec", c, dump, out])
                continue
            fast = bench.path("fast")
            bench.convert(dump, fast, "raw")
            on_one_cpu(bench, settings, "verify, raw", nr_bytes, ckfast + ["verify", fast])
            shutil.rmtree(fast)
        shutil.rmtree(dump)
        shutil.rmtree(out, ignore_errors=True)


def on_signal(signum, _frame):
    raise KeyboardInterrupt(signum)


def main():
    if len(sys.argv) > 1:
        print(__doc__)
        return 2
    settings = Settings()
    build = os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(
        os.path.abspath(__file__)))), "build")
    work = os.environ.get("BENCH_WORK", os.path.join(build, "bench"))
    runs = fresh_runs(build, "bench.jsonl")
    for signum in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, on_signal)
    start = time.monotonic()
    bench = Bench(work, runs, start + settings.seconds)
    bench.facts(mib=settings.mib, reps=settings.reps, command=settings.command())
    try:
        for case in settings.cases:
            try:
                if case == "tools":
                    tools_case(bench, settings)
                else:
                    run_case(bench, settings, case)
            except (Failure, OSError) as e:
                bench.complain(case, e)
    except KeyboardInterrupt:
        bench.say("stopped: what was measured so far")
    bench.close()
    result = table.write(runs, os.path.join(build, "bench.json"), os.path.join(build, "bench.txt"))
    chart.write(result, os.path.join(build, "bench.svg"))
    bench.say(f"{time.monotonic() - start:.0f} s; {build}/bench.json, bench.txt, bench.svg")
    return 0


if __name__ == "__main__":
    sys.exit(main())

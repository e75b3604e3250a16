# SPDX-License-Identifier: MIT
"""stages.py: ckfast convert against what each of its stages does alone (tests/bench/stages.c).

    STAGES_MIB=512          size of each dump
    STAGES_REPS=5           runs of each kind, in turns
    STAGES_JOBS="1 2"       numbers of threads
    STAGES_DUMPS=WORDS      only these of: server zeros tree random
    STAGES_CODECS=WORDS     only these of: raw auto
    STAGES_PLACES=WORDS     only these of: tmpfs disk (dump and image; the disk with a cold page cache)
    STAGES_SECONDS=900      no round starts after that

Writes stages.txt, and the runs, to build/ or to STAGES_OUT. All figures are GB of the dump's pages
per second. `shared` is what there would be at most, since stages share what they need: their CPU
time, over the CPUs that there are, and reads and writes of one disk one after the other.
"""

import json
import os
import shutil
import statistics
import sys
import time

from convert16 import CODECS
from harness import Bench, Tools, drop_caches, output, words

SIZE = int(os.environ.get("STAGES_MIB", "512"))
REPS = int(os.environ.get("STAGES_REPS", "5"))
DUMPS = {"server": ("anon", "server", 1), "zeros": ("anon", "random", 1),
         "tree": ("equal", "weights", 4), "random": ("anon", "random", 1)}
OUT = os.environ.get("STAGES_OUT", os.path.join(Tools().root, "build"))
JOBS = [int(n) for n in os.environ.get("STAGES_JOBS", "1 2").split()]
STAGES = ["read", "hash", "again", "encode", "write"]


def pages_files(dump):
    return sorted(os.path.join(dump, n) for n in os.listdir(dump) if n.startswith("pages-"))


def zero_half(path):
    """Every other 64 KiB."""
    with open(path, "r+b") as f:
        for off in range(0, os.stat(path).st_size, 128 << 10):
            f.seek(off)
            f.write(bytes(min(64 << 10, os.stat(path).st_size - off)))


def make_dump(bench, name):
    kind, data, procs = DUMPS[name]
    program = bench.program(procs)
    program.start(kind, SIZE // procs, data)
    bench.dump(program, bench.path(name))
    if name == "zeros":
        for path in pages_files(bench.path(name)):
            zero_half(path)
    os.sync()
    return bench.path(name)


class Case:
    """A dump, a codec, and how many threads."""

    def __init__(self, bench, place, dump, codec, threads):
        self.bench, self.dump, self.codec, self.threads = bench, dump, codec, threads
        self.cold = place == "disk"
        self.label = f"{place:6} {os.path.basename(dump):7} {codec:5} {threads:4}"
        self.bytes = sum(os.stat(p).st_size for p in pages_files(dump))
        self.took = {name: [] for name in [*STAGES, "convert", "cpu"]}

    def prepare(self):
        shutil.rmtree(self.bench.path("fast"), ignore_errors=True)
        if self.cold:
            drop_caches()
        self.bench.pretouch(2 * SIZE + 512)

    def convert(self):
        self.prepare()
        argv = [*self.bench.tools.command("ckfast"), "convert", "--json", "-q", *CODECS[self.codec],
                "--jobs", str(self.threads), self.dump, self.bench.path("fast")]
        start = time.perf_counter_ns()
        got = json.loads(output(argv))
        self.took["convert"].append(time.perf_counter_ns() - start)
        return got

    def stages(self, got):
        self.prepare()
        again = got["dup_bytes"]
        encoded = got["page_bytes"] - got["zero_bytes"] - again
        fast = self.bench.path("fast")
        os.mkdir(fast)
        text = output([self.bench.tools.prog("stages"), str(self.threads),
                       "direct" if self.cold else "buffered", self.codec, str(encoded),
                       str(got["pack_bytes"]), str(again), os.path.join(fast, "pack"),
                       *pages_files(self.dump)])
        cpu = 0
        for line in text.splitlines():
            name, ns, cpu_ns = line.split()
            self.took[name].append(max(int(ns), 1))
            cpu += int(cpu_ns)
        self.took["cpu"].append(cpu / len(os.sched_getaffinity(0)))

    def row(self):
        speed = {n: self.bytes / statistics.median(t) for n, t in self.took.items()}
        slowest = min(STAGES, key=lambda n: speed[n])
        shared = min(speed["cpu"], speed[slowest])
        if self.cold:
            shared = min(shared, 1 / (1 / speed["read"] + 1 / speed["write"]))
        cells = [f"{speed[n]:7.2f}" if speed[n] < 100 else "      -" for n in STAGES]
        cells += [f"{shared:7.2f}", f"{speed['convert']:8.2f}",
                  f"{100 * speed['convert'] / speed[slowest]:4.0f} % of {slowest:6}",
                  f"{100 * speed['convert'] / shared:5.0f} %"]
        return f"{self.label} " + " ".join(cells)


def main():
    places = {"tmpfs": "/dev/shm/ckfast-stages", "disk": os.path.join(OUT, "stages")}
    end = time.monotonic() + int(os.environ.get("STAGES_SECONDS", "900"))
    head = (f"{'place':6} {'dump':7} {'codec':5} jobs " + " ".join(f"{n:>7}" for n in STAGES)
            + f" {'shared':>7} {'convert':>8} {'of the slowest':>16} {'of shared':>9}")
    lines = []
    os.makedirs(OUT, exist_ok=True)
    for place in words("STAGES_PLACES", ["tmpfs", "disk"]):
        bench = Bench(places[place], os.path.join(OUT, "stages.jsonl"), end)
        try:
            for name in words("STAGES_DUMPS", DUMPS):
                dump = make_dump(bench, name)
                cases = [Case(bench, place, dump, codec, threads)
                         for codec in words("STAGES_CODECS", ["raw", "auto"]) for threads in JOBS]
                for _ in range(REPS):
                    for case in cases:
                        if not bench.late():
                            case.stages(case.convert())
                lines += [case.row() for case in cases if case.took["convert"]]
                shutil.rmtree(dump)
        finally:
            bench.close()
    text = (f"{SIZE} MiB, median of {REPS}, commit {Tools().commit()}, "
            f"{len(os.sched_getaffinity(0))} CPUs, Linux {os.uname().release}\n"
            + "\n".join([head, *lines]) + "\n")
    with open(os.path.join(OUT, "stages.txt"), "w", encoding="utf-8") as f:
        f.write(text)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())

# SPDX-License-Identifier: MIT
"""field.py: stock and fast restores in turn, in the states that memory, the page cache and limits have
in the field. Writes build/field.json, build/field.txt and build/field.svg.

    FIELD_QUICK=1         a choice of cells that takes 10 minutes on two CPUs; else all of them
    FIELD_MIB=1024        memory of the process, or of the eight together (quick: 256)
    FIELD_REPS=5          runs of each
    FIELD_SECONDS=0       no run starts that would not end by then (0: no limit; quick: 570)
    FIELD_DATA=WORDS      only these of: random server heap weights masked
                          redis postgres jvm node python
    FIELD_SHAPES=WORDS    only these of: one eight thousand program
    FIELD_MEMORY=WORDS    only these of: touched idle group
    FIELD_CACHE=WORDS     only these of: warm cold converted
    FIELD_LIMITS=WORDS    only these of: none tight
    FIELD_CONVERT=WORDS   options of ckfast convert
    FIELD_WORK=DIR        where the images are (build/field)
    FIELD_OUT=DIR         where the results go (build); bench/field.py of a bundle wants it

touched: as much memory as the restore takes, and more, is touched and given back right before each run.
idle:    the same, and then 6 seconds pass, in which a host may take free memory back.
group:   touched, and the restore is in a memory cgroup that is new: what a container finds.
tight:   the same with a limit of 1.1 times what the stock restore and a first answer take there.

Of each image, what `ckfast inspect` estimates for the page cache and for this disk is held against
how long the restore took, touched and without a limit.
"""

import itertools
import os
import shutil
import signal
import sys
import time

import field_table
import subjects
from harness import (DROP_CACHES, MIB, Bench, Failure, drop_caches, fresh_runs, read_all, run,
                     words)

DATA = ["random", "server", "heap", "weights", "masked"]
SERVERS = list(subjects.SERVERS)
SHAPES = ["one", "eight", "thousand", "program"]
MEMORY = ["touched", "idle", "group"]
CACHE = ["warm", "cold", "converted"]
LIMITS = ["none", "tight"]
IDLE_SECONDS = 6
# Less says nothing about how fast a disk reads.
MIN_DISK_BYTES = 16 * MIB

# Each kind of cell that the whole matrix has, at least once: data, shape, memory, cache, limit.
QUICK = [
    *[(d, "one", "touched", "warm", "none") for d in DATA],
    *[(d, "program", "touched", "warm", "none") for d in SERVERS],
    ("random", "one", "touched", "cold", "none"),
    ("random", "one", "touched", "converted", "none"),
    ("random", "one", "idle", "warm", "none"),
    ("random", "one", "group", "warm", "none"),
    ("random", "one", "touched", "warm", "tight"),
    ("server", "one", "touched", "cold", "none"),
    ("server", "one", "idle", "warm", "none"),
    ("masked", "one", "idle", "warm", "none"),
    ("server", "eight", "touched", "warm", "none"),
    ("server", "eight", "touched", "warm", "tight"),
    ("heap", "thousand", "touched", "warm", "none"),
]


class Settings:
    """What the environment asks for."""

    def __init__(self):
        self.quick = os.environ.get("FIELD_QUICK", "0") != "0"
        self.mib = int(os.environ.get("FIELD_MIB", "256" if self.quick else "1024"))
        self.reps = int(os.environ.get("FIELD_REPS", "5"))
        self.seconds = int(os.environ.get("FIELD_SECONDS", "570" if self.quick else "0"))
        self.convert = os.environ.get("FIELD_CONVERT", "").split()
        self.wanted = [words("FIELD_DATA", DATA + SERVERS), words("FIELD_SHAPES", SHAPES),
                       words("FIELD_MEMORY", MEMORY), words("FIELD_CACHE", CACHE),
                       words("FIELD_LIMITS", LIMITS)]

    def cells(self):
        """Those of one process together, so that it is dumped and converted once."""
        pairs = [*itertools.product(DATA, SHAPES[:3]), *((s, "program") for s in SERVERS)]
        found = QUICK if self.quick else [(*pair, *state) for pair in pairs
                                          for state in itertools.product(MEMORY, CACHE, LIMITS)]
        found = [c for c in found if all(w in wanted for w, wanted in zip(c, self.wanted))]
        found.sort(key=lambda c: pairs.index(c[:2]))
        return itertools.groupby(found, lambda c: c[:2])

    def command(self):
        env = [f"{k}='{v}'" for k, v in sorted(os.environ.items())
               if k.startswith("FIELD_") and k not in ("FIELD_WORK", "FIELD_OUT")]
        return " ".join([*env, "make bench-field"])


class MemoryGroup:
    """A memory cgroup, version 1 or 2, for one restore."""

    def __init__(self):
        top = "/sys/fs/cgroup"
        v1 = os.path.isdir(f"{top}/memory")
        self.dir = f"{top}/memory/ckfast-{os.getpid()}" if v1 else f"{top}/ckfast-{os.getpid()}"
        self.limit_name, self.peak_name = (
            ("memory.limit_in_bytes", "memory.max_usage_in_bytes") if v1 else
            ("memory.max", "memory.peak"))

    def __enter__(self):
        try:
            os.mkdir(self.dir)
            if not os.path.exists(os.path.join(self.dir, self.peak_name)):
                os.rmdir(self.dir)
                raise OSError("no memory controller")
        except OSError as e:
            raise Failure(f"no memory cgroup: {e}") from e
        return self

    def __exit__(self, *_):
        for _try in range(200):
            try:
                os.rmdir(self.dir)
                return
            except OSError:
                time.sleep(0.05)
        raise Failure(f"{self.dir} cannot be removed")

    def limit(self, nr_bytes):
        with open(os.path.join(self.dir, self.limit_name), "w", encoding="ascii") as f:
            f.write(str(nr_bytes))

    def peak(self):
        with open(os.path.join(self.dir, self.peak_name), encoding="ascii") as f:
            return int(f.read())

    def enter(self):
        """In front of a command that is to run in it."""
        return ["/bin/sh", "-c", 'echo $$ >"$0" && exec "$@"', os.path.join(self.dir, "cgroup.procs")]


class Field:
    """One process, its dump and its fast image."""

    def __init__(self, bench, settings, data, shape):
        self.bench = bench
        self.settings = settings
        self.name = f"{data} {shape}"
        self.subject = subjects.make(bench, data, shape, settings.mib)
        self.dump_dir = bench.path("dump")
        self.fast_dir = bench.path("fast")
        self.touch_mib = settings.mib * 2 + 256
        self.use = 0  # bytes that it takes in a cgroup of its own, restored by stock and asked
        self.took = {}

    def set_up(self):
        self.bench.say(f"== {self.name}")
        self.clean()
        self.subject.start()
        self.bench.dump(self.subject, self.dump_dir)
        self.convert()

    def convert(self):
        shutil.rmtree(self.fast_dir, ignore_errors=True)
        run([*self.bench.tools.command("ckfast"), "convert", *self.settings.convert, self.dump_dir,
             self.fast_dir], log=self.bench.log)

    def clean(self):
        self.subject.stop()
        shutil.rmtree(self.dump_dir, ignore_errors=True)
        shutil.rmtree(self.fast_dir, ignore_errors=True)

    def prepare(self, who, memory, cache):
        if cache == "cold":
            drop_caches()
        elif cache == "warm":
            os.sync()
            read_all(self.fast_dir if who == "fast" else self.dump_dir)
        else:
            # The dump is in memory, as it is right after it was made.
            read_all(self.dump_dir)
            if who == "fast":
                self.convert()
        self.bench.pretouch(self.touch_mib)
        if memory == "idle":
            time.sleep(IDLE_SECONDS)

    def restore(self, who):
        if who == "fast":
            return self.bench.restore_fast(self.fast_dir)
        return self.bench.restore("criu-stock", self.dump_dir), None

    def in_group(self, who, limit):
        with MemoryGroup() as group:
            if limit:
                group.limit(limit)
            self.bench.prefix = group.enter()
            try:
                got = self.restore(who)
                self.subject.check()
                return got, group.peak()
            finally:
                self.bench.prefix = []
                self.subject.stop()

    def find_use(self):
        self.prepare("stock", "touched", "warm")
        self.use = self.in_group("stock", 0)[1]

    def run(self, who, memory, cache, limit):
        self.prepare(who, memory, cache)
        if memory == "group" or limit != "none":
            return self.in_group(who, self.use * 11 // 10 if limit != "none" else 0)[0]
        try:
            got = self.restore(who)
            self.subject.check()
            return got
        finally:
            self.subject.stop()

    def estimate(self, cache):
        """What is to be expected of the page cache, or of this disk."""
        profile = "ram"
        if cache == "cold":
            if os.stat(os.path.join(self.fast_dir, "ckfast.pack")).st_size < MIN_DISK_BYTES:
                return
            profile = str(self.bench.disk_bytes_per_s(self.fast_dir, self.touch_mib))
        self.prepare("fast", "touched", "warm")
        shown = self.bench.estimate(self.fast_dir, profile)
        data, shape = self.name.split()
        self.bench.record("estimate", data=data, shape=shape, memory="touched", cache=cache,
                          limit="none", profile=profile, seconds=shown["restore_estimate_s"]["asked"])

    def cell(self, memory, cache, limit):
        what = f"{self.name}, {memory}, {cache}" + (", tight" if limit != "none" else "")
        if limit != "none" and not self.use:
            self.find_use()
        if (memory, limit) == ("touched", "none") and cache != "converted":
            self.estimate(cache)
        for rep in range(self.settings.reps):
            for who in ("stock", "fast") if rep % 2 == 0 else ("fast", "stock"):
                key = (who, memory, cache, limit)
                if self.bench.late(self.took.get(key, 0)):
                    self.bench.say(f"{what}: no time left")
                    return
                start = time.monotonic()
                try:
                    ns, stats = self.run(who, memory, cache, limit)
                except (Failure, OSError) as e:
                    self.bench.complain(f"{what}, {who}", e)
                    # What went wrong may have changed files that the dump refers to.
                    self.set_up()
                    continue
                self.took[key] = time.monotonic() - start
                data, shape = self.name.split()
                self.bench.record("run", data=data, shape=shape, memory=memory, cache=cache,
                                  limit=limit, who=who, ns=ns, **({"stats": stats} if stats else {}))
                self.bench.say(f"{what:48} {who:5} {ns / 1e9:9.3f} s")


def measure(bench, settings):
    for (data, shape), cells in settings.cells():
        field = None
        try:
            field = Field(bench, settings, data, shape)
            field.set_up()
            for cell in cells:
                try:
                    field.cell(*cell[2:])
                except Failure as e:
                    bench.complain(f"{field.name}: a cell is left out", e)
        except (Failure, OSError) as e:
            bench.complain(f"{data} {shape}: left out", e)
        finally:
            if field:
                field.clean()


def on_signal(signum, _frame):
    raise KeyboardInterrupt(signum)


def main():
    if len(sys.argv) > 1:
        print(__doc__)
        return 2
    settings = Settings()
    build = os.environ.get("FIELD_OUT", os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(
        os.path.abspath(__file__)))), "build"))
    runs = fresh_runs(build, "field.jsonl")
    if not os.access(DROP_CACHES, os.W_OK):
        settings.wanted[3] = [c for c in settings.wanted[3] if c != "cold"]
    for signum in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, on_signal)
    start = time.monotonic()
    bench = Bench(os.environ.get("FIELD_WORK", os.path.join(build, "field")), runs,
                  start + settings.seconds if settings.seconds else None)
    bench.facts(mib=settings.mib, reps=settings.reps, command=settings.command())
    try:
        measure(bench, settings)
    except KeyboardInterrupt:
        bench.say("stopped: what was measured so far")
    bench.close()
    field_table.write(runs, os.path.join(build, "field"))
    bench.say(f"{time.monotonic() - start:.0f} s; {build}/field.json, field.txt, field.svg")
    return 0


if __name__ == "__main__":
    sys.exit(main())

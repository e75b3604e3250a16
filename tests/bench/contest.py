# SPDX-License-Identifier: MIT
"""A contest: the same process restored by several contenders, each in turn, again and again."""

import os
import shutil
import subprocess
import time

from harness import Failure, dir_bytes, drop_caches, output, run


class Contest:
    """One process, its dump and its fast image, and who restores it.

    A contender is a method that prepares, restores and returns nanoseconds and what else is known.
    """

    def __init__(self, bench, case, **spec):
        self.bench = bench
        self.case = case
        self.kind = spec["kind"]
        self.mib = spec["mib"]
        self.data = spec.get("data", "random")
        self.procs = spec.get("procs", 1)
        self.codec = spec.get("codec", "auto")
        self.total_mib = self.mib * (self.procs if self.kind in ("tasks", "forked") else 1)
        # Room for the process, and for the page cache beside it.
        self.touch_mib = spec.get("touch_mib", self.total_mib * 2 + 256)
        self.base = spec.get("base", bench.work)
        self.dump_dir = os.path.join(self.base, "dump")
        self.fast_dir = os.path.join(self.base, "fast")
        self.program = None
        self.stats = None
        self.took = {}  # seconds that a run of a contender took, all in all

    def set_up(self):
        self.bench.say(f"== {self.case}: {self.kind}, {self.mib} MiB {self.data}"
                       + (f", {self.procs} processes" if self.procs > 1 else ""))
        self.clean()
        os.makedirs(self.base, exist_ok=True)
        self.program = self.bench.program(self.procs)
        self.program.start(self.kind, self.mib, self.data)
        self.bench.dump(self.program, self.dump_dir)
        ns = self.bench.convert(self.dump_dir, self.fast_dir, self.codec)
        self.size("stock", dir_bytes(self.dump_dir))
        self.size("fast", dir_bytes(self.fast_dir), convert_ns=ns)

    def size(self, who, nr_bytes, **more):
        self.bench.record("size", case=self.case, who=who, bytes=nr_bytes, **more)

    def clean(self):
        shutil.rmtree(self.dump_dir, ignore_errors=True)
        shutil.rmtree(self.fast_dir, ignore_errors=True)

    def run(self, contenders, states, reps):
        """contenders: by name, functions of the state."""
        names = list(contenders)
        for state in states:
            touch = "write" if state == "cold" else "read"
            for rep in range(reps):
                turn = rep % len(names)
                for who in names[turn:] + names[:turn]:
                    self.run_one(who, contenders[who], state, touch)

    def run_one(self, who, contender, state, touch=None, **more):
        """One run, unless it would not end in time."""
        what = f"{self.case} {who} {state}"
        if self.bench.late(self.took.get(who, 0)):
            self.bench.say(f"{what}: no time left")
            return
        start = time.monotonic()
        try:
            ns, stats = contender(state)
            values = {**more, **({"stats": stats} if stats else {})}
            if who != "bare":
                if touch:
                    values[f"{touch}_ns"] = self.program.ask(touch)
                values["check_ns"] = self.program.ask("check")
            self.bench.record("run", case=self.case, who=who, cache=state, ns=ns, **values)
            self.bench.say(f"{what:30} {ns / 1e9:9.3f} s")
        except (Failure, OSError, ValueError, subprocess.SubprocessError) as e:
            self.bench.complain(what, e)
        finally:
            if who != "bare":
                self.program.stop()
        self.took[who] = time.monotonic() - start

    def stock(self, state, criu="criu-stock"):
        self.bench.prepare(state, self.dump_dir, self.touch_mib)
        return self.bench.restore(criu, self.dump_dir), None

    def populate(self, state):
        return self.stock(state, "criu-populate")

    def fast(self, state, threads=0):
        self.bench.prepare(state, self.fast_dir, self.touch_mib)
        ns, self.stats = self.bench.restore_fast(self.fast_dir, threads)
        return ns, self.stats

    def bare(self, state, threads=0):
        """After a fast restore: the same bytes, with as many threads, into memory of its kind."""
        if not self.stats:
            raise Failure("no fast restore yet to compare with")
        if not threads:
            threads = min(self.stats["workers"], len(os.sched_getaffinity(0)))
        self.bench.prepare(state, self.fast_dir, self.touch_mib)
        nr_bytes = self.stats["read_bytes"]
        memory = [{"shm": "shared", "frag": "every2nd"}.get(
            self.kind, "pages" if self.data == "mixed" else "huge"), str(self.stats["filled_bytes"])]
        return (self.bench.bare(self.fast_dir, state, nr_bytes, threads, memory),
                {"bytes": nr_bytes, "threads": threads, "memory": memory[0]})


class TarPeer:
    """The container engines' way: a compressed archive, unpacked and then restored."""

    def __init__(self, contest):
        self.contest = contest
        self.archive = contest.bench.path("dump.tar.zst")
        self.unpacked = contest.bench.path("unpacked")
        output(["tar", "-C", contest.dump_dir, "--use-compress-program=zstd -T0", "-cf",
                self.archive, "."])
        contest.size("tar.zst", os.stat(self.archive).st_size)

    def __call__(self, state):
        bench = self.contest.bench
        shutil.rmtree(self.unpacked, ignore_errors=True)
        os.makedirs(self.unpacked)
        if state == "cold":
            drop_caches()
        else:
            run(["cat", self.archive])
        bench.pretouch(self.contest.touch_mib)
        ns = run(["tar", "-C", self.unpacked, "--use-compress-program=zstd -T0", "-xf",
                  self.archive], log=bench.log)
        ns += bench.restore("criu-stock", self.unpacked)
        shutil.rmtree(self.unpacked, ignore_errors=True)
        return ns, None

    def close(self):
        os.unlink(self.archive)


class ErofsPeer:
    """A read-only compressed file system with the dump in it, mounted before the time is taken."""

    def __init__(self, contest):
        self.contest = contest
        self.image = contest.bench.path("dump.erofs")
        self.mounted = contest.bench.path("erofs")
        os.makedirs(self.mounted, exist_ok=True)
        output(["mkfs.erofs", "-zlz4", self.image, contest.dump_dir], 600)
        output(["mount", "-t", "erofs", "-o", "loop,ro", self.image, self.mounted])
        contest.size("erofs", os.stat(self.image).st_size)

    def __call__(self, state):
        bench = self.contest.bench
        bench.prepare(state, self.mounted, self.contest.touch_mib)
        return bench.restore("criu-stock", self.mounted), None

    def close(self):
        output(["umount", self.mounted])
        os.unlink(self.image)

# SPDX-License-Identifier: MIT
"""dedup.py: how many bytes several dumps with equal weights take, and how long it takes to have the
last of them back: ckfast with bases, and what else stores equal data once. Writes build/dedup.json
and build/dedup.txt.

    DEDUP_MIB=256       weights of one process
    DEDUP_REPS=5        runs of each kind, in turn
    DEDUP_SECONDS=600   no run starts that would not end by then
    DEDUP_SETS=WORDS    only these of: tunes twice workers
    DEDUP_WORK=DIR      where all is kept (build/dedup); the page cache is warm in any case

What is not installed is left out, and named.
"""

import hashlib
import json
import os
import shutil
import statistics
import sys
import time

from harness import Bench, Failure, dir_bytes, fresh_runs, output, read_all, run

# TUNE and PROCS of each dump; what it is called.
SETS = {
    "tunes": ([(1, 1), (2, 1)], "two fine-tunes of one model"),
    "twice": ([(0, 1), (0, 1)], "one model, started and dumped twice"),
    "workers": ([(0, 4)], "four workers with the same weights"),
}


def tree_bytes(path):
    return sum(os.lstat(os.path.join(d, f)).st_size for d, _, files in os.walk(path) for f in files)


class Store:
    """A way to keep dumps: add() each in turn, bytes() that all take, back() the last one."""

    def __init__(self, bench, name, option):
        self.bench, self.name, self.option = bench, name, option
        self.path = bench.path("store-" + name.replace(" ", "-"))
        self.out = bench.path("back")
        self.last = 0
        shutil.rmtree(self.path, ignore_errors=True)
        os.makedirs(self.path)
        self.make()

    def make(self):
        pass

    def run(self, argv, cwd=None):
        if cwd:
            argv = ["sh", "-c", 'cd "$0" && exec "$@"', cwd, *argv]
        return run(argv, 300, self.bench.log)

    def bytes(self):
        return tree_bytes(self.path)

    def fresh(self):
        shutil.rmtree(self.out, ignore_errors=True)
        os.makedirs(self.out)


class Ckfast(Store):
    tool = None

    def add(self, dump):
        self.last += 1
        bases = [f"{self.path}/{i}" for i in range(1, self.last)]
        return self.run(self.bench.tools.command("ckfast") +
                        ["convert", "--codec", self.option, *(f"--base={b}" for b in bases), dump,
                         f"{self.path}/{self.last}"])

    def back(self):
        shutil.rmtree(self.out, ignore_errors=True)
        return self.run(self.bench.tools.command("ckfast") +
                        ["extract", f"{self.path}/{self.last}", self.out])


class Restic(Store):
    tool = "restic"

    def make(self):
        os.environ.update(RESTIC_PASSWORD="none", RESTIC_CACHE_DIR=self.bench.path("restic-cache"),
                          RESTIC_PROGRESS_FPS="0")
        self.run([self.tool, "-r", self.path, "init"])

    def add(self, dump):
        return self.run([self.tool, "-r", self.path, "backup", "--compression", self.option, "."],
                        dump)

    def back(self):
        self.fresh()
        return self.run([self.tool, "-r", self.path, "restore", "latest", "--target", self.out])


class Borg(Store):
    tool = "borg"

    def make(self):
        os.environ.update(BORG_BASE_DIR=self.bench.path("borg"),
                          BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK="yes")
        os.makedirs(self.bench.path("borg"), exist_ok=True)
        self.run([self.tool, "init", "--encryption", "none", self.path])

    def add(self, dump):
        self.last += 1
        return self.run([self.tool, "create", "--compression", self.option,
                         f"{self.path}::{self.last}", "."], dump)

    def back(self):
        self.fresh()
        return self.run([self.tool, "extract", f"{self.path}::{self.last}"], self.out)


class Casync(Store):
    tool = "casync"

    def add(self, dump):
        self.last += 1
        return self.run([self.tool, "make", "--store", f"{self.path}/all.castr",
                         f"{self.path}/{self.last}.caidx", dump])

    def back(self):
        self.fresh()
        return self.run([self.tool, "extract", "--store", f"{self.path}/all.castr",
                         f"{self.path}/{self.last}.caidx", self.out])


class WholeFiles(Store):
    """Each distinct file once, as it is: a copy has it back."""
    tool = None

    def add(self, dump):
        start = time.perf_counter_ns()
        for name in os.listdir(dump):
            with open(os.path.join(dump, name), "rb") as f:
                digest = hashlib.file_digest(f, "sha256").hexdigest()
            if not os.path.exists(os.path.join(self.path, digest)):
                shutil.copyfile(os.path.join(dump, name), os.path.join(self.path, digest))
        self.last = dump
        return time.perf_counter_ns() - start

    def back(self):
        shutil.rmtree(self.out, ignore_errors=True)
        return self.run(["cp", "-a", self.last, self.out])


STORES = [("whole files", WholeFiles, None), ("ckfast raw", Ckfast, "raw"),
          ("borg none", Borg, "none"), ("restic off", Restic, "off"),
          ("ckfast zstd", Ckfast, "zstd"), ("borg zstd", Borg, "zstd,3"),
          ("restic auto", Restic, "auto"), ("casync zstd", Casync, None), ("ckfast auto", Ckfast, "auto")]


class Set:
    """The dumps of one set, kept in every way; then the last one had back in turn."""

    def __init__(self, bench, name, mib):
        self.bench, self.name, self.mib = bench, name, mib
        self.dumps, self.stores, self.program = [], {}, None
        self.runs = {}

    def make_dumps(self):
        for tune, procs in SETS[self.name][0]:
            dump = self.bench.path(f"dump-{len(self.dumps)}")
            self.program = self.bench.program(procs)
            self.program.start_program("weights", ".", str(self.mib), str(tune), str(procs))
            self.bench.dump(self.program, dump)
            self.dumps.append(dump)

    def keep(self, missing):
        for name, kind, option in STORES:
            if kind.tool and not shutil.which(kind.tool):
                missing.add(kind.tool)
                continue
            store = kind(self.bench, name, option)
            ns = sum(store.add(dump) for dump in self.dumps)
            self.stores[name] = store
            self.bench.record("kept", set=self.name, who=name, bytes=store.bytes(), ns=ns)
            self.bench.say(f"{self.name:8} {name:12} {store.bytes() / 2**20:9.1f} MiB")

    def one(self, name, back):
        if self.bench.late(max(self.runs.get(name, [0])) / 1e9):
            return
        self.bench.pretouch(self.mib * 8)
        ns = back()
        self.runs.setdefault(name, []).append(ns)
        self.bench.record("back", set=self.name, who=name, ns=ns)

    def restore(self, store):
        """The process itself, by the patched CRIU, straight out of the image and its bases."""
        ns = self.bench.restore_fast(f"{store.path}/{store.last}")[0]
        try:
            self.program.ask("check")
        finally:
            self.program.stop()
        return ns

    def have_back(self, reps):
        for store in self.stores.values():
            read_all(store.path)
        for _ in range(reps):
            for name, store in self.stores.items():
                self.one(name, store.back)
                if isinstance(store, Ckfast):
                    self.one(name + " restored", lambda s=store: self.restore(s))
        last = self.dumps[-1]
        for name, store in self.stores.items():
            store.back()
            if output(["diff", "-rq", last, store.out]):
                raise Failure(f"{name}: not the same dump")

    def clean(self):
        for path in (*self.dumps, *(s.path for s in self.stores.values()),
                     *(self.bench.path(n) for n in ("back", "borg", "restic-cache"))):
            shutil.rmtree(path, ignore_errors=True)


def summary(runs_path, sets):
    with open(runs_path, encoding="utf-8") as f:
        runs = [json.loads(line) for line in f]
    out = {"facts": next(r for r in runs if r["kind"] == "facts"), "sets": {},
           "failures": [r for r in runs if r["kind"] == "failure"]}
    for name in sets:
        rows = {}
        for r in runs:
            if r.get("set") == name and r["kind"] == "kept":
                rows[r["who"]] = {"bytes": r["bytes"], "keep_s": r["ns"] / 1e9}
            elif r.get("set") == name and r["kind"] == "back":
                who, key = r["who"].removesuffix(" restored"), "back_s"
                if who != r["who"]:
                    key = "restored_s"
                rows[who].setdefault(key, []).append(r["ns"] / 1e9)
            elif r.get("set") == name and r["kind"] == "dumps":
                out["sets"][name] = {"dump_bytes": r["bytes"], "rows": rows}
    return out


def text(result):
    lines = []
    for name, s in result["sets"].items():
        lines += [f"{SETS[name][1]}: dumps of {s['dump_bytes'] / 2**20:.0f} MiB",
                  f"  {'':14}{'stored':>12}{'of dumps':>10}{'to store':>10}{'files back':>12}"
                  f"{'process back':>14}"]
        for who, r in s["rows"].items():
            back, restored = (f"{statistics.median(r[k]):.2f} s" if k in r else "-"
                              for k in ("back_s", "restored_s"))
            lines.append(f"  {who:14}{r['bytes'] / 2**20:8.1f} MiB"
                         f"{100 * r['bytes'] / s['dump_bytes']:8.1f} %{r['keep_s']:8.2f} s"
                         f"{back:>12}{restored:>14}")
        lines.append("")
    return "\n".join(lines)


def main():
    if len(sys.argv) > 1:
        print(__doc__)
        return 2
    mib, reps = int(os.environ.get("DEDUP_MIB", "256")), int(os.environ.get("DEDUP_REPS", "5"))
    sets = os.environ.get("DEDUP_SETS", " ".join(SETS)).split()
    build = os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(
        os.path.abspath(__file__)))), "build")
    runs = fresh_runs(build, "dedup.jsonl")
    deadline = time.monotonic() + int(os.environ.get("DEDUP_SECONDS", "600"))
    bench = Bench(os.environ.get("DEDUP_WORK", os.path.join(build, "dedup")), runs, deadline)
    missing = set()
    bench.facts(mib=mib, reps=reps, command=f"DEDUP_MIB={mib} DEDUP_REPS={reps} make bench",
                tools={t: output([t, "version" if t == "restic" else "--version"]).splitlines()[0]
                       for t in ("restic", "borg", "casync") if shutil.which(t)})
    for name in sets:
        one = Set(bench, name, mib)
        try:
            one.make_dumps()
            bench.record("dumps", set=name, bytes=sum(map(dir_bytes, one.dumps)))
            one.keep(missing)
            one.have_back(reps)
        except (Failure, OSError) as e:
            bench.complain(name, e)
        finally:
            one.clean()
    bench.close()
    result = summary(runs, sets)
    result["missing"] = sorted(missing)
    with open(os.path.join(build, "dedup.json"), "w", encoding="utf-8") as f:
        json.dump(result, f, indent=1)
    table = text(result) + "".join(f"left out, not installed: {t}\n" for t in sorted(missing))
    with open(os.path.join(build, "dedup.txt"), "w", encoding="utf-8") as f:
        f.write(table)
    bench.say(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())

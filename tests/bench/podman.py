# SPDX-License-Identifier: MIT
"""podman.py: a container of podman is checkpointed and restored, by stock CRIU and with a conversion
between, in turn. Writes build/podman.json and build/podman.txt.

    PODMAN_MIB=1024       memory of the process in the container
    PODMAN_REPS=5         runs of each
    PODMAN_DATA=WORDS     only these of: random server
    PODMAN_WAYS=WORDS     only these of: archive directory
    PODMAN_MEMORY=WORDS   only these of: touched idle
    PODMAN_WORK=DIR       where podman keeps its storage (build/podman)

archive:   podman container checkpoint --export, ckfast convert, podman container restore --import.
directory: podman keeps the checkpoint in its storage: ckfast convert --in-place there.
touched:   before each step, what was written is on the disk, and as much memory as a step takes, and
           more, is touched and given back.
idle:      the same, and then 6 seconds pass, in which a host may take free memory back.

After each restore, the process checks all of its memory. Room is what the conversion takes on the
disk at most, beside the checkpoint: it is measured in a run of its own, which is not timed.
"""

import glob
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import time

from harness import Bench, Failure, fresh_runs, output, run, wait_until, words
from table import group, ratio, seconds

DATA = ["random", "server"]
WAYS = ["archive", "directory"]
MEMORY = ["touched", "idle"]
STEPS = ["checkpoint", "convert", "restore", "sum"]
CRIU = {"stock": "criu-stock", "fast": "criu"}
IDLE_SECONDS = 6
IMAGE = "ckfast-bench"
NAME = "bench"
# Limits that a caller without CAP_SYS_RESOURCE may set.
RUN = ["run", "-d", "--name", NAME, "--network", "none", "--ulimit", "nofile=1024:1024",
       "--ulimit", "nproc=1024:1024", IMAGE]


class Settings:
    """What the environment asks for."""

    def __init__(self):
        self.mib = int(os.environ.get("PODMAN_MIB", "1024"))
        self.reps = int(os.environ.get("PODMAN_REPS", "5"))
        self.data = words("PODMAN_DATA", DATA)
        self.ways = words("PODMAN_WAYS", WAYS)
        self.memory = words("PODMAN_MEMORY", MEMORY)

    def command(self):
        env = [f"{k}='{v}'" for k, v in sorted(os.environ.items())
               if k.startswith("PODMAN_") and k != "PODMAN_WORK"]
        return " ".join([*env, "make bench-podman"])


def disk_bytes(directory, pid=None):
    """What the files below a directory take, and those without a name that a process has open."""
    found = {}
    paths = [os.path.join(at, name) for at, _, names in os.walk(directory) for name in names]
    for path in paths + glob.glob(f"/proc/{pid}/fd/*"):
        try:
            st = os.lstat(path) if path in paths else os.stat(path)
        except OSError:
            continue
        if stat.S_ISREG(st.st_mode) and (path in paths or st.st_nlink == 0):
            found[st.st_dev, st.st_ino] = st.st_blocks * 512
    return sum(found.values())


class Podman:
    """podman with a storage of its own, and one container at a time."""

    def __init__(self, bench, settings):
        self.bench = bench
        self.settings = settings
        self.argv = ["podman", "--root", bench.path("storage"), "--runroot", bench.path("run"),
                     "--tmpdir", bench.path("tmp"), "--storage-driver", "vfs", "--runtime", "runc",
                     "--cgroup-manager", "cgroupfs", "--events-backend", "file"]
        self.archive = bench.path("checkpoint.tar")
        self.fast_archive = bench.path("fast.tar")
        self.path = os.environ["PATH"]
        for who, name in CRIU.items():
            os.makedirs(bench.path(who))
            os.symlink(os.path.join(bench.tools.bin, name), os.path.join(bench.path(who), "criu"))

    def timed(self, *args):
        return run([*self.argv, *args], log=self.bench.log)

    def answer(self, *args):
        return output([*self.argv, *args]).strip()

    def use(self, who):
        """runc starts the criu that is first in PATH."""
        os.environ["PATH"] = self.bench.path(who) + ":" + self.path

    def make_image(self):
        """bench_mem, and the libraries that it is linked with."""
        root = self.bench.path("root")
        program = self.bench.tools.prog("bench_mem")
        os.makedirs(root + "/work")
        shutil.copy(program, root)
        for path in re.findall(r"/\S+", output(["ldd", program])):
            os.makedirs(root + os.path.dirname(path), exist_ok=True)
            shutil.copy(path, root + path)
        run(["tar", "-C", root, "-cf", root + ".tar", "."], log=self.bench.log)
        self.timed("import", root + ".tar", IMAGE)

    def start(self, data):
        self.remove()
        self.timed(*RUN, "/bench_mem", "/work", "anon", str(self.settings.mib), data)
        ready = self.answer("mount", NAME) + "/work/ready.0"
        wait_until("the container is not ready", lambda: os.path.exists(ready))

    def check(self):
        report = self.answer("mount", NAME) + "/work/report.0"
        if os.path.exists(report):
            os.unlink(report)
        self.timed("kill", "--signal", "USR1", NAME)
        wait_until("the container does not answer", lambda: os.path.exists(report))
        with open(report, encoding="ascii") as f:
            if f.read().split()[0] != "OK":
                raise Failure("the memory of the container is not what it was")

    def remove(self):
        run([*self.argv, "rm", "-a", "-f", "-t", "0"], log=self.bench.log)

    def clean(self):
        self.remove()
        for path in (self.archive, self.fast_archive):
            if os.path.exists(path):
                os.unlink(path)

    def userdata(self):
        container = self.answer("inspect", "--format", "{{.Id}}", NAME)
        return self.bench.path(f"storage/vfs-containers/{container}/userdata")

    def prepare(self, memory):
        os.sync()
        self.bench.pretouch(self.settings.mib * 2 + 256)
        if memory == "idle":
            time.sleep(IDLE_SECONDS)

    def checkpoint(self, way):
        if way == "archive":
            return self.timed("container", "checkpoint", "--export", self.archive, "--compress", "none", NAME)
        return self.timed("container", "checkpoint", NAME)

    def convert_argv(self, way):
        what = ([self.archive, self.fast_archive] if way == "archive" else
                ["--in-place", self.userdata() + "/checkpoint"])
        return [*self.bench.tools.command("ckfast"), "convert", "-q", *what]

    def restore(self, way, who):
        args = ["container", "restore", "--keep"]
        if way == "archive":
            ns = self.timed(*args, "--import", self.fast_archive if who == "fast" else self.archive,
                            "--name", NAME)
        else:
            ns = self.timed(*args, NAME)
        with open(self.userdata() + "/restore.log", "rb") as f:
            if (b"fast-image:" in f.read()) != (who == "fast"):
                raise Failure("restored from the wrong kind of image")
        return ns

    def size(self, way, who):
        if way == "archive":
            return os.stat(self.fast_archive if who == "fast" else self.archive).st_size
        return disk_bytes(self.userdata() + "/checkpoint")

    def run(self, way, data, memory, who):
        """Nanoseconds of each step."""
        self.use(who)
        self.start(data)
        took = {}
        self.prepare(memory)
        took["checkpoint"] = self.checkpoint(way)
        if way == "archive":
            self.remove()
        if who == "fast":
            argv = self.convert_argv(way)
            self.prepare(memory)
            took["convert"] = run(argv, log=self.bench.log)
        self.prepare(memory)
        took["restore"] = self.restore(way, who)
        self.check()
        self.clean()
        return took

    def sizes(self, way, data):
        """Bytes of the checkpoint and of what becomes of it, and the room that the conversion takes."""
        self.use("fast")
        self.start(data)
        self.checkpoint(way)
        stock = self.size(way, "stock")
        before = room = disk_bytes(self.bench.work)
        with subprocess.Popen(self.convert_argv(way), stdout=subprocess.DEVNULL) as child:
            while child.poll() is None:
                room = max(room, disk_bytes(self.bench.work, child.pid))
                time.sleep(0.01)
        if child.returncode:
            raise Failure(f"ckfast convert: exit status {child.returncode}")
        fast = self.size(way, "fast")
        self.clean()
        return {"stock": stock, "fast": fast, "room": room - before}


def measure(bench, podman, settings):
    for way in settings.ways:
        for data in settings.data:
            try:
                bench.record("bytes", way=way, data=data, **podman.sizes(way, data))
            except (Failure, OSError) as e:
                bench.complain(f"bytes of {way}, {data}", e)
            for memory in settings.memory:
                for rep in range(settings.reps):
                    for who in ("stock", "fast") if rep % 2 == 0 else ("fast", "stock"):
                        what = f"{way}, {data}, {memory}, {who}"
                        try:
                            took = podman.run(way, data, memory, who)
                        except (Failure, OSError) as e:
                            bench.complain(what, e)
                            podman.clean()
                            continue
                        took["sum"] = sum(took.values())
                        for step, ns in took.items():
                            bench.record("run", way=way, data=data, memory=memory, who=who, step=step, ns=ns)
                        bench.say(f"{what:40} " + ", ".join(f"{k} {ns / 1e9:.3f} s" for k, ns in took.items()))


def summarise(runs):
    with open(runs, encoding="utf-8") as f:
        records = [json.loads(line) for line in f]
    rows = []
    for cell, found in group([r for r in records if r["kind"] == "run"], "way", "data", "memory").items():
        by_step = group(found, "who", "step")
        for step in STEPS:
            stock, fast = (seconds(by_step.get((who, step), [])) for who in CRIU)
            rows.append({**dict(zip(("way", "data", "memory"), cell)), "step": step, "stock": stock,
                         "fast": fast, "ratio": ratio(fast, stock)})
    return {"facts": next(r for r in records if r["kind"] == "facts"), "rows": rows,
            "bytes": [r for r in records if r["kind"] == "bytes"],
            "failures": [f"{r['what']}: {r['error'].splitlines()[0]}" for r in records if r["kind"] == "failure"]}


def lines(result):
    facts = result["facts"]

    def shown(s):
        return f"{s['median']:.3f} ({s['min']:.3f}-{s['max']:.3f})" if s else ""

    yield facts["command"]
    yield f"commit {facts['commit']}, {facts['ckfast']}, CRIU {facts['criu']}, {facts['podman']}, {facts['date']}"
    yield (f"{facts['cpu']}, {facts['cpus']} CPUs with a load of {facts['load']:.1f} at the start, "
           f"Linux {facts['kernel']}, {facts['mib']} MiB, medians of {facts['reps']} (min-max), in seconds")
    yield ""
    yield f"{'cell':40} {'stock':>22} {'fast':>22} {'fast/stock':>10}"
    for r in result["rows"]:
        yield (f"{', '.join([r['way'], r['data'], r['memory'], r['step']]):40} {shown(r['stock']):>22} "
               f"{shown(r['fast']):>22} " + (f"{r['ratio']:10.2f}" if r["ratio"] else "")).rstrip()
    yield ""
    yield f"{'MiB':40} {'checkpoint':>12} {'fast':>12} {'ratio':>8} {'room':>12} {'ratio':>8}"
    for r in result["bytes"]:
        mib = {k: r[k] / (1 << 20) for k in ("stock", "fast", "room")}
        yield (f"{r['way'] + ', ' + r['data']:40} {mib['stock']:12.1f} {mib['fast']:12.1f} "
               f"{r['fast'] / r['stock']:8.3f} {mib['room']:12.1f} {r['room'] / r['stock']:8.3f}")
    for failure in result["failures"]:
        yield f"failed: {failure}"


def write(runs, name):
    result = summarise(runs)
    with open(f"{name}.json", "w", encoding="utf-8") as f:
        json.dump(result, f, indent=1)
        f.write("\n")
    shown = "\n".join(lines(result)) + "\n"
    with open(f"{name}.txt", "w", encoding="utf-8") as f:
        f.write(shown)
    sys.stdout.write(shown)


def on_signal(signum, _frame):
    raise KeyboardInterrupt(signum)


def main():
    if len(sys.argv) > 1:
        print(__doc__)
        return 2
    for program in ("podman", "runc"):
        if not shutil.which(program):
            print(f"podman.py: {program} is not installed", file=sys.stderr)
            return 1
    settings = Settings()
    build = os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))), "build")
    runs = fresh_runs(build, "podman.jsonl")
    bench = Bench(os.environ.get("PODMAN_WORK", os.path.join(build, "podman")), runs)
    podman = Podman(bench, settings)
    for signum in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, on_signal)
    bench.facts(mib=settings.mib, reps=settings.reps, command=settings.command(),
                podman=output(["podman", "--version"]).strip(), load=os.getloadavg()[0])
    try:
        podman.make_image()
        measure(bench, podman, settings)
    except KeyboardInterrupt:
        bench.say("stopped: what was measured so far")
    podman.clean()
    bench.close()
    write(runs, os.path.join(build, "podman"))
    return 0


if __name__ == "__main__":
    sys.exit(main())

# SPDX-License-Identifier: MIT
"""What the benchmarks share: starting, dumping, converting and restoring bench_mem, in states of the
page cache and of free memory that are the same for each run, and writing down each run at once.

Works in a checkout (build/bin, build/progs) and in a bundle (lib/, libexec/, progs/), whose programs
are started through its own dynamic loader.
"""

import ctypes
import json
import os
import select
import shutil
import signal
import statistics
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
MIB = 1 << 20
PR_SET_CHILD_SUBREAPER = 36
DROP_CACHES = "/proc/sys/vm/drop_caches"
SIGNALS = {"check": signal.SIGUSR1, "read": signal.SIGUSR2, "write": signal.SIGHUP}


def words(name, default):
    """A setting of the environment that is a list."""
    return os.environ.get(name, " ".join(default)).split()


class Failure(Exception):
    """A step that did not work, with what its log says."""


class Tools:
    """Where the programs are."""

    def __init__(self):
        self.root = os.path.dirname(HERE)
        self.lib = os.path.join(self.root, "lib")
        self.loader = os.path.join(self.lib, "ld-linux-x86-64.so.2")
        self.bundled = os.path.exists(self.loader)
        if self.bundled:
            self.bin = os.path.join(self.root, "libexec")
            self.progs = os.path.join(self.root, "progs")
        else:
            self.root = os.path.dirname(self.root)
            self.bin = os.path.join(self.root, "build", "bin")
            self.progs = os.path.join(self.root, "build", "progs")

    def command(self, name):
        path = os.path.join(self.bin, name)
        if self.bundled:
            return [self.loader, "--library-path", self.lib, path]
        return [path]

    def has(self, name):
        return os.path.exists(os.path.join(self.bin, name))

    def prog(self, name):
        return os.path.join(self.progs, name)

    def commit(self):
        try:
            with open(os.path.join(self.root, "COMMIT"), encoding="utf-8") as f:
                return f.read().strip()
        except OSError:
            pass
        got = subprocess.run(["git", "-C", self.root, "describe", "--always", "--dirty"],
                             capture_output=True, text=True, check=False)
        return got.stdout.strip() or "none"


def run(argv, timeout=120, log=None):
    """Runs argv and returns nanoseconds until it ended. The wait adds no delay of its own."""
    with open(log or os.devnull, "ab") as out:
        start = time.perf_counter_ns()
        child = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        fd = os.pidfd_open(child.pid)
        try:
            ended = select.select([fd], [], [], timeout)[0]
            ns = time.perf_counter_ns() - start
        finally:
            os.close(fd)
            child.kill()  # of no effect on what has ended
            child.wait()
    if not ended:
        raise Failure(f"{argv}: more than {timeout} s\n{tail(log)}")
    if child.returncode:
        raise Failure(f"{argv}: exit status {child.returncode}\n{tail(log)}")
    return ns


def output(argv, timeout=300):
    """Runs argv and returns what it prints."""
    try:
        got = subprocess.run(argv, capture_output=True, text=True, timeout=timeout, check=False)
    except (OSError, subprocess.TimeoutExpired) as e:
        raise Failure(f"{argv}: {e}") from e
    if got.returncode:
        raise Failure(f"{argv}: exit status {got.returncode}\n{got.stderr[-2000:]}")
    return got.stdout


def tail(path, lines=12):
    if not path or not os.path.exists(path):
        return ""
    with open(path, "rb") as f:
        return b"\n".join(f.read()[-20000:].splitlines()[-lines:]).decode(errors="replace")


def wait_until(what, condition, timeout=120):
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise Failure(f"{what}: not within {timeout} s")
        time.sleep(0.005)


def become_subreaper():
    """Restored processes lose their parent: make them children of this program, to be reaped."""
    if ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise Failure("prctl(PR_SET_CHILD_SUBREAPER) failed")


def is_gone(pid):
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        pass
    return not os.path.exists(f"/proc/{pid}")


def meminfo(name):
    with open("/proc/meminfo", encoding="ascii") as f:
        for line in f:
            if line.startswith(name + ":"):
                return int(line.split()[1])
    return 0


def cpu_model():
    with open("/proc/cpuinfo", encoding="utf-8") as f:
        for line in f:
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return os.uname().machine


def drop_caches():
    os.sync()
    with open(DROP_CACHES, "w", encoding="ascii") as f:
        f.write("3")


def read_all(directory):
    buf = bytearray(4 * MIB)
    for name in os.listdir(directory):
        path = os.path.join(directory, name)
        if os.path.isfile(path):
            with open(path, "rb", buffering=0) as f:
                while f.readinto(buf):
                    pass


def dir_bytes(directory):
    return sum(os.lstat(os.path.join(directory, n)).st_size for n in os.listdir(directory))


def copy_dir(source, target):
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)
    os.sync()


class Program:
    """A program of tests/progs, as it was started or as it was restored."""

    def __init__(self, tools, work, procs=1):
        self.tools = tools
        self.work = work
        self.procs = procs
        self.pids = []

    def start(self, kind, mib, data):
        self.start_program("bench_mem", ".", kind, str(mib), data, str(self.procs))

    def start_program(self, name, *args):
        """A program that makes itself known and answers as bench_mem does."""
        argv = [self.tools.prog(name), *args]
        for name in os.listdir(self.work):
            if name.startswith(("ready.", "report.")):
                os.unlink(os.path.join(self.work, name))
        with open(os.path.join(self.work, "stderr"), "wb") as err:
            child = subprocess.Popen(argv, cwd=self.work, stdin=subprocess.DEVNULL,
                                     stdout=subprocess.DEVNULL, stderr=err,
                                     start_new_session=True)
        self.pids = [child.pid]
        ready = [os.path.join(self.work, f"ready.{i}") for i in range(self.procs)]
        wait_until(f"{argv} is not ready",
                   lambda: child.poll() is not None or all(map(os.path.exists, ready)), 300)
        if child.poll() is not None:
            raise Failure(f"{argv}: exit status {child.returncode}: {tail(err.name)}")
        child.returncode = 0  # is_gone() waits for it
        self.pids.clear()
        for path in ready:
            with open(path, encoding="ascii") as f:
                self.pids.append(int(f.read()))

    def ask(self, what, together=False):
        """Sends all processes, one after the other, a signal; nanoseconds that they took. Together:
        none waits for the one before."""
        total = 0
        paths = [os.path.join(self.work, f"report.{rank}") for rank in range(len(self.pids))]
        for path in filter(os.path.exists, paths):
            os.unlink(path)
        if together:
            for pid in self.pids:
                os.kill(pid, SIGNALS[what])
        for path, pid in zip(paths, self.pids):
            if not together:
                os.kill(pid, SIGNALS[what])
            wait_until(f"process {pid} does not answer", lambda: os.path.exists(path))
            with open(path, encoding="ascii") as f:
                word, ns = f.read().split()
            if word != "OK":
                raise Failure(f"process {pid}: its memory is not what it was")
            total += int(ns)
        return total

    def stop(self):
        for pid in self.pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        for pid in self.pids:
            wait_until(f"process {pid} stays", lambda: is_gone(pid), 60)


def fresh_runs(directory, name):
    """The path of an empty file of runs, in a directory that is made."""
    os.makedirs(directory, exist_ok=True)
    path = os.path.join(directory, name)
    if os.path.exists(path):
        os.unlink(path)
    return path


class Bench:
    """A working directory, a file of runs, and the steps of a measurement."""

    def __init__(self, work, runs, deadline=None):
        self.tools = Tools()
        self.work = work
        self.runs = runs
        self.deadline = deadline  # of time.monotonic()
        self.log = os.path.join(work, "output.log")
        self.failures = 0
        self.programs = []
        self.options = os.environ.get("BENCH_CRIU", "").split()
        self.prefix = []  # in front of criu restore
        shutil.rmtree(work, ignore_errors=True)
        os.makedirs(work)
        become_subreaper()

    def close(self):
        """Ends what was started, and removes what was written, but for the runs."""
        for program in self.programs:
            program.stop()
        shutil.rmtree(self.work, ignore_errors=True)

    def path(self, name):
        return os.path.join(self.work, name)

    def program(self, procs=1):
        self.programs.append(Program(self.tools, self.work, procs))
        return self.programs[-1]

    def record(self, kind, **values):
        with open(self.runs, "a", encoding="utf-8") as f:
            f.write(json.dumps({"kind": kind, **values}) + "\n")

    def say(self, text):
        print(text, flush=True)

    def complain(self, what, error):
        """A run that failed is left out; the others go on."""
        self.failures += 1
        self.record("failure", what=what, error=str(error)[-4000:])
        print(f"{what}: {error}", file=sys.stderr, flush=True)

    def late(self, seconds=0):
        return self.deadline is not None and time.monotonic() + seconds > self.deadline

    def facts(self, **more):
        version = output(self.tools.command("criu-stock") + ["--version"]).splitlines()
        self.record("facts", commit=self.tools.commit(), criu=version[0].split()[-1],
                    ckfast=output(self.tools.command("ckfast") + ["--version"]).strip(),
                    kernel=os.uname().release, cpus=len(os.sched_getaffinity(0)),
                    cpu=cpu_model(), memory_mib=meminfo("MemTotal") // 1024,
                    date=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), **more)

    def pretouch(self, mib):
        """Memory that was free for a while may be slow to touch: touch it before each run."""
        free = meminfo("MemFree") // 1024 * 9 // 10
        run([self.tools.prog("pretouch"), str(max(min(mib, free), 16))])

    def prepare(self, state, directory, mib):
        """The page cache cold or warm; what is in memory anyway (tmpfs) stays."""
        if state == "cold":
            drop_caches()
        elif state == "warm":
            os.sync()
            read_all(directory)
        self.pretouch(mib)

    def dump(self, program, image):
        os.makedirs(image, exist_ok=True)
        log = os.path.join(image, "dump.log")
        try:
            run(self.tools.command("criu-stock") +
                ["dump", "-t", str(program.pids[0]), "-D", image, "-o", "dump.log", *self.options],
                log=self.log)
        except Failure as e:
            program.stop()
            raise Failure(f"{e}\n{tail(log)}") from e
        for pid in program.pids:
            wait_until(f"process {pid} stays after the dump", lambda: is_gone(pid), 60)

    def convert(self, image, fast, codec="auto"):
        return run(self.tools.command("ckfast") + ["convert", "--codec", codec, image, fast],
                   log=self.log)

    def restore(self, criu, image, options=()):
        log = self.path("restore.log")
        if os.path.exists(log):
            os.unlink(log)
        argv = self.prefix + self.tools.command(criu) + [
            "restore", "-D", image, "-W", self.work, "-d", "-o", log, *self.options, *options]
        try:
            return run(argv, log=self.log)
        except Failure as e:
            raise Failure(f"{e}\n{tail(log)}") from e

    def restore_fast(self, image, threads=0):
        """Nanoseconds, and what CRIU says about the fill."""
        stats = self.path("stats.json")
        if os.path.exists(stats):
            os.unlink(stats)
        options = ["--fast-image", "--fast-stats", stats]
        if threads:
            options += ["--fast-threads", str(threads)]
        ns = self.restore("criu", image, options)
        with open(stats, encoding="utf-8") as f:
            return ns, json.load(f)

    def estimate(self, fast, profile):
        """What ckfast inspect says of an image, with its estimate of a restore from such storage."""
        return json.loads(output([*self.tools.command("ckfast"), "inspect", "--profile", profile,
                                  "--json", fast]))["image"]

    def disk_bytes_per_s(self, fast, touch_mib):
        """At which a bare program with two threads reads the image from the disk."""
        nr_bytes = os.stat(os.path.join(fast, "ckfast.pack")).st_size // MIB * MIB
        took = []
        for _ in range(3):
            self.prepare("cold", fast, touch_mib)
            took.append(self.bare(fast, "cold", nr_bytes, 2))
        return int(nr_bytes * 1e9 / statistics.median(took))

    def bare(self, fast, state, nr_bytes, threads, memory=()):
        """Nanoseconds that a program with nothing else to do takes for the same bytes, into memory of
        that kind: see bare.c."""
        return int(output([self.tools.prog("bare"), os.path.join(fast, "ckfast.pack"),
                           str(nr_bytes), str(threads),
                           "direct" if state == "cold" else "buffered", *memory]))

# SPDX-License-Identifier: MIT
"""What tests/gpu shares: programs that use a GPU, started with and without the agent, dumped and
restored in five ways, and what a restore takes.

The ways: stock (CRIU with its own CUDA plugin), plain (ckfast, a process without the agent), helper
(agent, no daemon), gpud (agent and daemon) and kept (likewise, and the daemon keeps the image)."""

import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "bench"))

import harness  # noqa: E402

MIB = 1 << 20
GIB = 1 << 30
CRIU_SECONDS = 70  # a dump of 31 GiB by the stock CRIU takes 40, a program of 1 GiB far less
CRIU_SECONDS_GIB = 2  # more for each GiB of GPU memory


class GpuTools(harness.Tools):
    """The programs of harness.Tools and the libraries beside them."""

    def __init__(self):
        super().__init__()
        base = self.root if self.bundled else os.path.join(self.root, "build")
        self.wrappers = os.path.join(base, "bin")
        self.plugin = os.path.join(base, "lib", "criu")
        self.stock_plugin = os.path.join(base, "lib", "criu-stock")
        self.gpu = os.path.join(base, "gpu") if self.bundled else HERE
        self.apps = self.progs if self.bundled else os.path.join(base, "stub")

    def app(self, name):
        """A program of tests/stub/app, which runs on any driver."""
        return os.path.join(self.apps, name)


def each_gpu_used_mib():
    """Of all GPUs of the machine, by their buses, whatever CUDA_VISIBLE_DEVICES says."""
    out = harness.output(["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"])
    return [int(line) for line in out.split()]


def gpu_used_mib():
    return sum(each_gpu_used_mib())


def gpu_facts():
    out = harness.output(["nvidia-smi", "--query-gpu=name,driver_version,memory.total",
                          "--format=csv,noheader"])
    return out.strip().splitlines()


def read_json(path):
    with open(path, encoding="utf-8") as f:
        return json.load(f)


def spread(values):
    """The median, the least and the most."""
    return f"{statistics.median(values):.3f} ({min(values):.3f}-{max(values):.3f})" if values else "-"


class Run:
    """One run of a script: what was checked, measured and found wrong. more: of the result."""

    def __init__(self, out, more):
        self.out = out
        self.tools = GpuTools()
        self.start = time.monotonic()
        self.failures = []
        self.result = {"version": 1, "gpus": gpu_facts(), "cpu": harness.cpu_model(),
                       "cpus": len(os.sched_getaffinity(0)), "kernel": os.uname().release,
                       "commit": self.tools.commit(), **more, "checks": {}, "steps": {},
                       "restores": []}

    def say(self, *words):
        print(f"[{time.monotonic() - self.start:6.1f}]", *words, flush=True)

    def check(self, name, right, why=""):
        self.result["checks"][name] = bool(right)
        self.say("ok  " if right else "FAIL", name, "" if right else why)
        if not right:
            self.failures.append(f"{name}: {why}")

    def write(self, name, lines):
        """The table with what failed, as text and on standard output, and the result."""
        lines += ["FAIL " + f for f in self.failures]
        lines.append(f"{sum(self.result['checks'].values())} checks passed, {len(self.failures)} "
                     "failed")
        with open(os.path.join(self.out, name + ".txt"), "w", encoding="utf-8") as f:
            f.write("\n".join(lines) + "\n")
        with open(os.path.join(self.out, name + ".json"), "w", encoding="utf-8") as f:
            json.dump(self.result, f, indent=1)
        print("\n".join(lines))


class Watch(threading.Thread):
    """The least memory that was available while it ran."""

    def __init__(self):
        super().__init__(daemon=True)
        self.least = harness.meminfo("MemAvailable")
        self.first = self.least
        self.ended = threading.Event()

    def run(self):
        while not self.ended.wait(0.05):
            self.least = min(self.least, harness.meminfo("MemAvailable"))

    def used_mib(self):
        self.ended.set()
        self.join()
        return (self.first - self.least) // 1024


class Task:
    """A program in a directory of its own, as it was started or as it was restored."""

    env = {}  # more of the environment that it is started with
    ready = "ready"  # the file that it makes then

    def __init__(self, tools, work, argv, agent):
        self.tools = tools
        self.work = work
        self.argv = (tools.command("ckfast") + ["run", "--"] if agent else []) + argv
        self.pid = 0

    def start(self, timeout=300):
        shutil.rmtree(self.work, ignore_errors=True)
        os.makedirs(self.work)
        with open(os.path.join(self.work, "stderr"), "wb") as err:
            child = subprocess.Popen(self.argv, cwd=self.work, stdin=subprocess.DEVNULL,
                                     stdout=err, stderr=err, start_new_session=True,
                                     env={**os.environ, **self.env})
        ready = os.path.join(self.work, self.ready)
        harness.wait_until(f"{self.argv} is not ready",
                           lambda: child.poll() is not None or os.path.exists(ready), timeout)
        if child.poll() is not None:
            raise harness.Failure(f"{self.argv}: exit status {child.returncode}: "
                                  f"{harness.tail(err.name)}")
        child.returncode = 0  # is_gone() waits for it
        self.pid = child.pid

    def is_gone(self):
        return harness.is_gone(self.pid)

    def kill(self):
        try:
            os.kill(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass

    def stop(self):
        self.kill()
        harness.wait_until(f"process {self.pid} stays", self.is_gone, 60)


class Group(Task):
    """A program that is several processes, each with files of its own: pidN, readyN, reportN."""

    ready = "ready0"

    def __init__(self, tools, work, argv, procs):
        super().__init__(tools, work, argv, True)
        self.procs = procs
        self.pids = []

    def start(self, timeout=300):
        super().start(timeout)
        harness.wait_until(f"{self.argv}: not all processes are ready", self.all_ready, timeout)
        self.pids = [int(self.read(f"pid{i}")) for i in range(self.procs)]

    def read(self, name):
        with open(os.path.join(self.work, name), encoding="utf-8") as f:
            return f.read().strip()

    def all_ready(self):
        return all(os.path.exists(os.path.join(self.work, f"ready{i}")) for i in range(self.procs))

    def ask(self, timeout=60):
        """Each process checks its memory and changes it, in turn: what each says."""
        answers = []
        for i, pid in enumerate(self.pids):
            report = os.path.join(self.work, f"report{i}")
            if os.path.exists(report):
                os.unlink(report)
            os.kill(pid, signal.SIGUSR1)
            harness.wait_until(f"process {pid} does not answer",
                               lambda path=report: os.path.exists(path), timeout)
            answers.append(self.read(f"report{i}"))
        return answers

    def is_gone(self):
        # Each is asked for: those whose parent has ended are to be waited for.
        return all([harness.is_gone(pid) for pid in self.pids or [self.pid]])

    def kill(self):
        for pid in self.pids or [self.pid]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass


class Ranks(Group):
    """The processes of ranks.py and the one that started them. All are asked at the same time, since
    they answer together."""

    def __init__(self, tools, work, ranks, gib, kind, env):
        argv = [sys.executable, "-B", os.path.join(tools.gpu, "ranks.py"), ".", str(ranks), str(gib),
                kind]
        super().__init__(tools, work, argv, ranks)
        self.env = env
        self.asked = 0

    def everyone(self):
        return self.pids + [self.pid]

    def say(self, name, rank):
        path = os.path.join(self.work, f"go{rank}")
        with open(path + ".new", "w", encoding="utf-8") as f:
            f.write(name)
        os.rename(path + ".new", path)

    def begin(self):
        """Asks all, which may not be there yet; wait() has the answers."""
        self.asked += 1
        for rank in range(self.procs):
            self.say(str(self.asked), rank)

    def wait(self, timeout=60):
        paths = [os.path.join(self.work, f"out-{self.asked}-{i}") for i in range(self.procs)]
        harness.wait_until("the ranks do not answer", lambda: self.is_gone() or
                           all(os.path.exists(p) for p in paths), timeout)
        if not all(os.path.exists(p) for p in paths):
            raise harness.Failure("the ranks have ended: " +
                                  harness.tail(os.path.join(self.work, "stderr")))
        return [read_json(p) for p in paths]

    def ask(self, timeout=60):
        self.begin()
        return self.wait(timeout)

    def is_gone(self):
        return all([harness.is_gone(pid) for pid in self.everyone()])

    def kill(self):
        for pid in self.everyone():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass


class Roads:
    """Dumps and restores one task. All images are below base."""

    env = {}  # more of CRIU's environment, and so of a helper's
    dump_options = ["--link-remap", "--file-locks"]
    restore_options = ["--link-remap", "--file-locks"]
    gib = 0  # of GPU memory: how long CRIU may take

    def __init__(self, tools, task, base, gpud_socket):
        self.tools = tools
        self.task = task
        self.base = base
        self.socket = gpud_socket
        os.makedirs(base, exist_ok=True)

    def path(self, name):
        return os.path.join(self.base, name)

    def environment(self, daemon):
        env = {**os.environ, **self.env}
        env["PATH"] = self.tools.wrappers + ":" + env["PATH"]
        env["CKFAST_GPUD_SOCKET"] = self.socket if daemon else self.path("no-gpud")
        return env

    def criu(self, stock, action, images, daemon, *more):
        """Runs it; seconds and the log."""
        log = self.path(f"{action}.log")
        if os.path.exists(log):
            os.unlink(log)
        argv = self.tools.command("criu-stock" if stock else "criu") + [
            action, "-D", images, "-v4", "-o", log, "--libdir",
            self.tools.stock_plugin if stock else self.tools.plugin, *more]
        start = time.monotonic()
        try:
            got = subprocess.run(argv, env=self.environment(daemon), stdin=subprocess.DEVNULL,
                                 capture_output=True, text=True, check=False,
                                 timeout=CRIU_SECONDS + CRIU_SECONDS_GIB * self.gib)
        except subprocess.TimeoutExpired as e:
            raise harness.Failure(f"criu {action} does not end: {harness.tail(log)}") from e
        seconds = time.monotonic() - start
        if got.returncode:
            raise harness.Failure(f"criu {action}: {got.returncode}: {errors_of(log)} "
                                  f"{got.stderr[-500:]}")
        return seconds, log

    def dump(self, images, stock=False, daemon=False, leave=False):
        shutil.rmtree(images, ignore_errors=True)
        os.makedirs(images)
        more = ["-t", str(self.task.pid), *self.dump_options]
        if leave:
            more.append("--leave-running")
        seconds, _ = self.criu(stock, "dump", images, daemon, *more)
        if not leave:
            harness.wait_until("the dumped process stays", self.task.is_gone, 60)
        return seconds

    def convert(self, dump, fast, *more):
        shutil.rmtree(fast, ignore_errors=True)
        start = time.monotonic()
        harness.output(self.tools.command("ckfast") + ["convert", *more, dump, fast], 600)
        return time.monotonic() - start

    def keep(self, images, way):
        """The daemon keeps the image in memory for the way that is called so, and for no other."""
        argv = ["keep", images] if way == "kept" else ["drop", "--all"]
        if way == "kept":
            time.sleep(1)  # what was just written is not kept
        got = subprocess.run(self.tools.command("ckfast") + argv, env=self.environment(True),
                             capture_output=True, text=True, timeout=300, check=False)
        if got.returncode:
            raise harness.Failure(f"ckfast {argv[0]}: {got.stderr}")

    def restore(self, images, way):
        """Seconds, and what the log says of the phases."""
        stock = way == "stock"
        more = ["-d", *self.restore_options]
        if not stock and os.path.exists(os.path.join(images, "ckfast.idx")):
            more.append("--fast-image")
        watch = Watch()
        watch.start()
        try:
            seconds, log = self.criu(stock, "restore", images, way in ("gpud", "kept"), *more)
        finally:
            used = watch.used_mib()
        return {"restore_s": seconds, "host_mib": used, **phases(log)}


def errors_of(log):
    if not os.path.exists(log):
        return "no log"
    with open(log, errors="replace", encoding="utf-8") as f:
        lines = [line.strip() for line in f if "Error" in line]
    return " | ".join(lines[-4:])


def stamp(line):
    found = re.match(r"\((\d+\.\d+)\)", line)
    return float(found.group(1)) if found else None


def phases(log):
    """Until CRIU's last hook for devices, from there to the end, and what the plugin says."""
    found = {}
    last = 0.0
    late = None
    with open(log, errors="replace", encoding="utf-8") as f:
        for line in f:
            now = stamp(line)
            if now is None:
                continue
            last = now
            if "Run late stage hook" in line:
                late = now
            got = re.search(r"has its device memory: (\d+) bytes in (\d+) ms", line)
            if got:
                found["gpu_bytes"] = int(got.group(1))
                found["gpu_ms"] = int(got.group(2))
                if int(got.group(2)):
                    found["gpu_gb_s"] = int(got.group(1)) / 1e6 / int(got.group(2))
    if late is not None:
        found["cpu_s"] = late
        found["late_s"] = last - late
    return found


class Daemon:
    """ckfast gpud, while the with statement lasts."""

    def __init__(self, tools, socket, env=None):
        self.tools = tools
        self.socket = socket
        self.env = {**os.environ, **(env or {})}
        self.child = None

    def __enter__(self):
        os.makedirs(os.path.dirname(self.socket), mode=0o700, exist_ok=True)
        with open(self.socket + ".log", "ab") as log:
            self.child = subprocess.Popen(
                self.tools.command("ckfast") + ["gpud", "--socket", self.socket],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.env)
        harness.wait_until("gpud does not start", lambda: self.child.poll() is not None or
                           os.path.exists(self.socket), 60)
        if self.child.poll() is not None:
            raise harness.Failure("gpud: " + harness.tail(self.socket + ".log"))
        return self

    def __exit__(self, *_):
        self.child.terminate()
        try:
            self.child.wait(30)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()


def pretouch(tools, mib):
    """Free memory of a virtual machine may be with its host: brings it back, with all CPUs."""
    cpus = len(os.sched_getaffinity(0))
    mib = min(mib, harness.meminfo("MemFree") // 1024 * 8 // 10)
    children = [subprocess.Popen([tools.prog("pretouch"), str(max(mib // cpus, 1))])
                for _ in range(cpus)]
    for child in children:
        child.wait()

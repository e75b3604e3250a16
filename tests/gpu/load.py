# SPDX-License-Identifier: MIT
"""load.py OUTDIR: on a machine with NVIDIA GPUs, as root: programs that never idle on the GPU
(busy.py) are parked, dumped and left running, dumped and restored, at random moments, several of them
at the same time, and every result has to be right; and what a call costs that goes by way of the
agent.

    LOAD_PARKS=100 LOAD_LEFT=20 LOAD_RESTORES=20
                          of a program with all kinds of load
    LOAD_SINGLE=20        parks of programs with one kind each
    GPU_SECONDS=500      nothing new begins afterwards

Writes OUTDIR/load.json, and the logs of what failed."""

import json
import os
import random
import shutil
import subprocess
import sys
import threading
import time

import gpulib
import harness

PARKS = int(os.environ.get("LOAD_PARKS", "100"))
LEFT = int(os.environ.get("LOAD_LEFT", "20"))
RESTORES = int(os.environ.get("LOAD_RESTORES", "20"))
SINGLE = int(os.environ.get("LOAD_SINGLE", "20"))
SECONDS = float(os.environ.get("GPU_SECONDS", "500"))
BASE = os.path.join(os.environ.get("GPU_BASE", "/dev/shm"), "ckfast-load")
SOCKET = "/run/ckfast-test/gpud.sock"
ALL = ["kernels", "copies", "churn", "graphs", "events", "pool"]
CALLS = 300000

# Prints nanoseconds per call of the cheapest call there is, and of an empty kernel.
COST = f"""
import ctypes, time, torch
cuda = ctypes.CDLL("libcuda.so.1")
x = torch.zeros(1, device="cuda")
torch.cuda.synchronize()
graph = torch.cuda.CUDAGraph()
with torch.cuda.graph(graph):
    for _ in range(64):
        x.add_(1)
best = [1e9, 1e9]
for _ in range(7):
    start = time.perf_counter()
    for _ in range({CALLS} // 30):
        torch.cuda.current_stream().query()
    best[0] = min(best[0], time.perf_counter() - start)
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range({CALLS} // 30):
        x.add_(1)
    torch.cuda.synchronize()
    best[1] = min(best[1], time.perf_counter() - start)
print(*(round(b * 1e9 / ({CALLS} // 30), 1) for b in best))
"""


class Lane(threading.Thread):
    """One program and what is done with it. No two lanes share anything but the GPU and gpud."""

    def __init__(self, run, name, kinds, agent=True):
        super().__init__()
        self.run_ = run
        self.name_ = name
        argv = ["python3", os.path.join(run.tools.gpu, "busy.py")] + kinds
        self.task = gpulib.Task(run.tools, f"/tmp/ckfast-load-{name}", argv, agent)
        self.roads = gpulib.Roads(run.tools, self.task, os.path.join(BASE, name), SOCKET)
        self.todo = []
        self.done = {}
        self.seconds = {}
        self.failure = ""

    def answer(self):
        """What the program says; it is asked after each step."""
        out = os.path.join(self.task.work, "out")
        if os.path.exists(out):
            os.unlink(out)
        with open(os.path.join(self.task.work, "go"), "w", encoding="utf-8"):
            pass
        harness.wait_until("no answer", lambda: os.path.exists(out) or
                           harness.is_gone(self.task.pid), 60)
        if not os.path.exists(out):
            raise harness.Failure("it has ended: " +
                                  harness.tail(os.path.join(self.task.work, "stderr")))
        with open(out, encoding="utf-8") as f:
            text = f.read()
        if not text.startswith("ok"):
            raise harness.Failure(text)

    def ckfast(self, action):
        argv = self.run_.tools.command("ckfast") + [action, "--json", str(self.task.pid)]
        got = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False,
                             env={**os.environ, "CKFAST_GPUD_SOCKET": SOCKET})
        if got.returncode:
            raise harness.Failure(f"{action}: {got.stderr.strip()} {self.stacks()}")
        return json.loads(got.stdout)["ms"] / 1000

    def stacks(self):
        """What the threads do, as the kernel sees it."""
        lines = []
        base = f"/proc/{self.task.pid}/task"
        for tid in os.listdir(base) if os.path.exists(base) else []:
            try:
                with open(f"{base}/{tid}/comm", encoding="utf-8") as comm, \
                        open(f"{base}/{tid}/syscall", encoding="utf-8") as call, \
                        open(f"{base}/{tid}/wchan", encoding="utf-8") as wchan:
                    lines.append(f"{tid} {comm.read().strip()} {wchan.read()} {call.read()[:60]}")
            except OSError:
                pass
        path = os.path.join(self.run_.out, f"{self.name_}-stacks.txt")
        with open(path, "w", encoding="utf-8") as f:
            f.write("\n".join(lines))
        return path

    def park(self):
        taken = self.ckfast("park")
        time.sleep(random.random() * 0.05)
        return taken + self.ckfast("unpark")

    def left(self):
        return self.roads.dump(self.roads.path("dump"), daemon=True, leave=True)

    def restore(self):
        taken = self.roads.dump(self.roads.path("dump"), daemon=True)
        for again in (True, True, False):
            try:
                return taken + self.roads.restore(self.roads.path("dump"), "gpud")["restore_s"]
            except harness.Failure as e:
                # Another program of this test has its id for a moment.
                if "File exists" not in str(e) or not again:
                    raise
                time.sleep(0.5)

    def run(self):
        what = "start"
        try:
            self.task.start(120)
            for what in self.todo:
                if self.run_.over():
                    break
                time.sleep(random.random() * 0.2)
                self.seconds.setdefault(what, []).append(getattr(self, what)())
                self.answer()
                self.done[what] = self.done.get(what, 0) + 1
        except Exception as e:
            self.failure = f"{what} after {self.done}: {e!r}"
            for log in ("dump.log", "restore.log"):
                if os.path.exists(self.roads.path(log)):
                    shutil.copy(self.roads.path(log),
                                os.path.join(self.run_.out, f"{self.name_}-{log}"))
        finally:
            self.run_.say(f"{self.name_}: {self.done} {self.failure or 'right'}")
            if self.task.pid:
                self.task.stop()


class Run:
    def __init__(self, out):
        self.out = out
        self.tools = gpulib.GpuTools()
        self.start = time.monotonic()
        os.makedirs(out, exist_ok=True)

    def say(self, *words):
        print(f"[{time.monotonic() - self.start:6.1f}]", *words, flush=True)

    def over(self):
        return time.monotonic() - self.start > SECONDS

    def lanes(self):
        for kind in ALL[:3]:
            lane = Lane(self, kind, [kind])
            lane.todo = ["park"] * SINGLE
            yield lane
        lane = Lane(self, "all", ALL)
        lane.todo = ["park"] * PARKS
        yield lane
        lane = Lane(self, "dumped", ALL)
        lane.todo = ["left"] * LEFT + ["restore"] * RESTORES
        random.shuffle(lane.todo)
        yield lane

    def cost(self, agent):
        argv = (self.tools.command("ckfast") + ["run", "--"] if agent else []) + \
            ["python3", "-c", COST]
        return [float(word) for word in harness.output(argv).split()]


def main():
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    run = Run(sys.argv[1])
    random.seed()
    harness.become_subreaper()
    with gpulib.Daemon(run.tools, SOCKET):
        lanes = list(run.lanes())
        for lane in lanes:
            lane.start()
        for lane in lanes:
            lane.join()
    result = {"version": 1, "gpus": gpulib.gpu_facts(), "commit": run.tools.commit(),
              "lanes": {lane.name_: {"done": lane.done, "failure": lane.failure,
                                     "longest_s": {k: max(v) for k, v in lane.seconds.items()},
                                     "mean_s": {k: sum(v) / len(v)
                                                for k, v in lane.seconds.items()}}
                        for lane in lanes},
              "ns_per_call": {"agent": [], "plain": []}}
    for _ in range(0 if run.over() else 2):
        for way in ("plain", "agent"):
            result["ns_per_call"][way].append(run.cost(way == "agent"))
    with open(os.path.join(run.out, "load.json"), "w", encoding="utf-8") as f:
        json.dump(result, f, indent=1)
    print(json.dumps(result, indent=1))
    shutil.rmtree(BASE, ignore_errors=True)
    return 1 if any(lane.failure for lane in lanes) else 0


sys.exit(main())

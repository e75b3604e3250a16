# SPDX-License-Identifier: MIT
"""group.py OUTDIR: on a machine with NVIDIA GPUs, as root: groups of processes that talk by NCCL (see
ranks.py), a rank for each GPU, or two on one; dumped, left running, parked, converted, restored.
All results have to be right, and the same bits as before.

    GROUP_STEPS="nvlink shm fails server big"
                          nvlink: NCCL as it likes; shm: without memory that ranks share on the GPUs;
                          fails: dumps that fail, after each of which all ranks go on;
                          server: a model that is split over the GPUs, with HTTP in front;
                          big: as nvlink, with much memory
    GROUP_GIB=4 GROUP_SERVER_GIB=16 GROUP_BIG_GIB=31
                          of random memory or weights, each rank
    GPU_REPS=5          restores of each way, in turns
    GPU_WAYS="gpud kept helper"
    GROUP_IDLE=0          seconds of rest before each restore
    GPU_SECONDS=560     no restore starts afterwards
    GPU_BASE=/dev/shm     where dumps and images are

Writes OUTDIR/group.json, group.txt and logs of one run each and of what failed."""

import http.client
import json
import os
import shutil
import subprocess
import sys
import threading
import time
import traceback

import gpulib
import harness

STEPS = os.environ.get("GROUP_STEPS", "nvlink shm fails server big").split()
GIB = float(os.environ.get("GROUP_GIB", "4"))
SERVER_GIB = float(os.environ.get("GROUP_SERVER_GIB", "16"))
BIG_GIB = float(os.environ.get("GROUP_BIG_GIB", "31"))
REPS = int(os.environ.get("GPU_REPS", "5"))
WAYS = os.environ.get("GPU_WAYS", "gpud kept helper").split()
IDLE = float(os.environ.get("GROUP_IDLE", "0"))
SECONDS = float(os.environ.get("GPU_SECONDS", "560"))
BASE = os.path.join(os.environ.get("GPU_BASE", "/dev/shm"), "ckfast-group")
SOCKET = "/run/ckfast-test/gpud.sock"
NO_SHARING = {"NCCL_P2P_DISABLE": "1", "NCCL_CUMEM_ENABLE": "0"}
# Both ends of each connection are in the dump, and nobody else sends to them: there is nothing to
# keep out meanwhile.
TCP = ["--tcp-established", "--network-lock", "skip"]


class Run(gpulib.Run):
    def __init__(self, out):
        self.ranks = max(2, len(gpulib.gpu_facts()))
        super().__init__(out, {"ranks": self.ranks, "idle_s": IDLE, "base": BASE})

    def over(self):
        return time.monotonic() - self.start > SECONDS


class Case:
    """One group and its images."""

    def __init__(self, run, name, gib, kind="collectives", env=None):
        self.run = run
        self.name = name
        self.task = gpulib.Ranks(run.tools, f"/tmp/ckfast-group-{name}", run.ranks, gib, kind,
                                 {"NCCL_SOCKET_IFNAME": "lo", "NCCL_DEBUG": "WARN", **(env or {})})
        self.roads = gpulib.Roads(run.tools, self.task, os.path.join(BASE, name), SOCKET)
        self.roads.dump_options = TCP + ["--ghost-limit", "512M", "--file-locks"]
        self.roads.restore_options = TCP + ["--file-locks"]
        self.roads.gib = gib * run.ranks
        self.dumped, self.fast = self.roads.path("dump"), self.roads.path("fast")

    def note(self, what, seconds):
        self.run.result["steps"][f"{self.name}: {what}"] = seconds
        self.run.say(f"{self.name}: {what}: {seconds:.2f} s")

    def right(self, when, answers):
        self.run.check(f"{self.name}: {when}", all(a["right"] for a in answers), str(answers))

    def ckfast(self, *argv):
        start = time.monotonic()
        got = subprocess.run(self.run.tools.command("ckfast") + list(argv), capture_output=True,
                             text=True, timeout=300, check=False,
                             env=self.roads.environment(True))
        if got.returncode:
            raise harness.Failure(f"ckfast {argv[0]}: {got.stderr}")
        return time.monotonic() - start

    def pids(self):
        return [str(pid) for pid in self.task.pids]

    def keep_log(self, path, name):
        if os.path.exists(path):
            with open(path, "rb") as f:
                data = f.read()
            with open(os.path.join(self.run.out, f"{self.name}-{name}"), "wb") as f:
                f.write(data[-600000:])

    def keep_logs(self):
        for path in (self.roads.path("dump.log"), self.roads.path("restore.log"),
                     os.path.join(self.task.work, "stderr"), SOCKET + ".log"):
            self.keep_log(path, os.path.basename(path))

    def start(self):
        start = time.monotonic()
        self.task.start(240)
        self.note("start", time.monotonic() - start)

    def prepare(self):
        """The image, and what a park, and a dump that leaves the ranks running, take."""
        self.start()
        self.right("runs", self.ask())
        self.note("park", self.ckfast("park", *self.pids()))
        self.note("unpark", self.ckfast("unpark", *self.pids()))
        self.right("parked", self.ask())
        gpulib.pretouch(self.run.tools, int(2.2 * 1024 * self.roads.gib))
        self.note("dump, left running", self.roads.dump(self.dumped, daemon=True, leave=True))
        self.right("left running", self.ask())
        self.note("dump", self.roads.dump(self.dumped, daemon=True))
        self.keep_log(self.roads.path("dump.log"), "dump.log")
        self.note("convert", self.roads.convert(self.dumped, self.fast))
        shutil.rmtree(self.dumped)

    def ask(self):
        return self.task.ask()

    def restore(self, way, rep):
        self.roads.keep(self.fast, way)
        gpulib.pretouch(self.run.tools, int(1024 * min(32, 1 + self.roads.gib)))
        time.sleep(IDLE)
        self.task.begin()
        start = time.time()
        row = self.roads.restore(self.fast, way)
        answers = self.task.wait()
        self.done(way, rep, row, answers, start)

    def done(self, way, rep, row, answers, start):
        row.update(name=self.name, way=way, rep=rep, right=all(a["right"] for a in answers),
                   first_answer_s=max(a["at"] for a in answers) - start)
        self.run.result["restores"].append(row)
        self.run.say({k: round(v, 3) if isinstance(v, float) else v for k, v in row.items()})
        if not row["right"]:
            self.run.check(f"{self.name} {way}: answer", False, str(answers))
        elif rep == 0:
            self.keep_log(self.roads.path("restore.log"), f"{way}.log")
            self.right(f"restored by {way}", answers)
            self.right(f"restored by {way}, a second time", self.ask())
        self.task.stop()

    def restores(self):
        for rep in range(REPS):
            for way in WAYS:
                if self.run.over():
                    self.run.say("no time is left")
                    return
                self.restore(way, rep)

    def go(self):
        try:
            self.prepare()
            self.restores()
        except Exception as e:  # the others are wanted all the same
            self.run.check(self.name, False, repr(e))
            self.keep_logs()
        finally:
            self.close()

    def close(self):
        if self.task.pid and not self.task.is_gone():
            self.task.stop()
        self.roads.keep("", "none")
        shutil.rmtree(self.roads.base, ignore_errors=True)


class Served(Case):
    """Asked by HTTP, from before the restore on."""

    def port(self):
        return int(self.task.read("port"))

    def get(self, path):
        line = http.client.HTTPConnection("127.0.0.1", self.port(), timeout=60)
        try:
            line.request("GET", path)
            return json.loads(line.getresponse().read())
        finally:
            line.close()

    def ask(self):
        return [self.get("/check")]

    def client(self, answers):
        end = time.monotonic() + 60
        while time.monotonic() < end:
            try:
                answers.append(self.get("/"))
                return
            except (OSError, http.client.HTTPException):
                time.sleep(0.002)

    def restore(self, way, rep):
        self.roads.keep(self.fast, way)
        gpulib.pretouch(self.run.tools, int(1024 * min(32, 1 + self.roads.gib)))
        time.sleep(IDLE)
        answers = []
        client = threading.Thread(target=self.client, args=(answers,))
        client.start()
        start = time.time()
        row = self.roads.restore(self.fast, way)
        client.join()
        self.done(way, rep, row, answers or [{"right": False, "at": 0}], start)


def refused(case, name, words, attempt):
    """attempt() fails with these words, and all ranks go on."""
    try:
        attempt()
        case.run.check(f"fails {name}", False, "the dump succeeded")
        return
    except harness.Failure as e:
        case.run.check(f"fails {name}", words in str(e), str(e))
    case.right(f"goes on after {name}", case.ask())


def fails(run):
    """Dumps that fail at different steps: the ranks go on, and the all-reduce is right."""
    case = Case(run, "fails", min(1, GIB))
    roads, dumped = case.roads, case.dumped
    options = roads.dump_options

    def dump(*more):
        roads.dump_options = options + list(more)
        roads.dump(dumped, daemon=True)

    def without_tcp():
        roads.dump_options = ["--ghost-limit", "512M"]
        roads.dump(dumped, daemon=True)

    def one_waits():
        case.task.asked += 1
        case.task.say(str(case.task.asked), 0)
        time.sleep(0.5)
        try:
            dump("--timeout", "3")
        finally:
            case.task.say(str(case.task.asked), 1)
            case.right("goes on after the wait", case.task.wait())

    def at_the_end():
        script = roads.path("script")
        with open(script, "w", encoding="utf-8") as f:
            f.write('#!/bin/sh\n[ "$CRTOOLS_SCRIPT_ACTION" != post-dump ]\n')
        os.chmod(script, 0o755)
        dump("--action-script", script)

    def no_space():
        small = roads.path("small")
        os.makedirs(small, exist_ok=True)
        harness.output(["mount", "-t", "tmpfs", "-o", "size=700M", "none", small])
        try:
            roads.dump_options = options
            roads.dump(os.path.join(small, "dump"), daemon=True)
        finally:
            harness.output(["umount", "-l", small])

    def other_daemon():
        """gpud is killed while memory is saved."""
        with gpulib.Daemon(run.tools, SOCKET + "-2") as daemon:
            roads.socket = SOCKET + "-2"
            saved = os.path.join(dumped, "")

            def killer():
                while not any(n.startswith("ckfast-gpu-pages") for n in
                              (os.listdir(saved) if os.path.exists(saved) else [])):
                    time.sleep(0.001)
                daemon.child.kill()
            thread = threading.Thread(target=killer, daemon=True)
            shutil.rmtree(dumped, ignore_errors=True)
            thread.start()
            try:
                dump()
            finally:
                roads.socket = SOCKET
    try:
        case.start()
        case.right("runs", case.ask())
        refused(case, "without --tcp-established", "TCP", without_tcp)
        refused(case, "while one rank waits for another", "", one_waits)
        refused(case, "in a script at the end", "", at_the_end)
        refused(case, "without space", "space", no_space)
        refused(case, "when gpud is killed", "", other_daemon)
        case.note("dump", roads.dump(dumped, daemon=True, leave=True))
        case.right("is dumped then", case.ask())
    except Exception as e:
        run.check("fails", False, repr(e))
        traceback.print_exc()
        case.keep_logs()
    finally:
        case.close()


def report(run):
    lines = [f"{len(run.result['gpus'])} GPUs: " + "; ".join(run.result["gpus"]),
             f"{run.result['cpu']}, {run.result['cpus']} CPUs, Linux {run.result['kernel']}, commit "
             f"{run.result['commit']}, {run.ranks} ranks, {IDLE:g} s of rest", ""]
    keys = ("restore_s", "first_answer_s", "cpu_s", "late_s", "gpu_ms", "gpu_gb_s")
    lines.append("group    way     runs" + "".join(f"{k:>24}" for k in keys))
    for name in dict.fromkeys(r["name"] for r in run.result["restores"]):
        for way in WAYS:
            rows = [r for r in run.result["restores"] if r["name"] == name and r["way"] == way]
            if not rows:
                continue
            text = f"{name:8} {way:8}{len(rows):4}"
            for key in keys:
                text += f"{gpulib.spread([r[key] for r in rows if key in r]):>24}"
            lines.append(text)
    lines += [f"{k}: {v:.2f}" for k, v in run.result["steps"].items()]
    run.write("group", lines)


def set_most_waiting(connections):
    """How many connections may be in TIME_WAIT; how many it was."""
    with open("/proc/sys/net/ipv4/tcp_max_tw_buckets", "r+", encoding="ascii") as f:
        old = f.read()
        f.seek(0)
        f.write(connections)
    return old


def steps(run):
    if "nvlink" in STEPS:
        Case(run, "nvlink", GIB).go()
    if "shm" in STEPS:
        Case(run, "shm", GIB, env=NO_SHARING).go()
    if "fails" in STEPS:
        fails(run)
    if "server" in STEPS:
        Served(run, "server", SERVER_GIB, "server").go()
    if "big" in STEPS:
        Case(run, "big", BIG_GIB).go()


def main():
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    os.makedirs(sys.argv[1], exist_ok=True)
    run = Run(sys.argv[1])
    harness.become_subreaper()
    # Connections of a group that has been killed would be in the way of the same ones of the next.
    kept = set_most_waiting("0")
    try:
        with gpulib.Daemon(run.tools, SOCKET):
            steps(run)
    except Exception as e:  # the table is wanted all the same
        traceback.print_exc()
        run.failures.append(repr(e))
    set_most_waiting(kept)
    shutil.rmtree(BASE, ignore_errors=True)
    report(run)
    return 1 if run.failures else 0


sys.exit(main())

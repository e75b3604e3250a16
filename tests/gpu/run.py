# SPDX-License-Identifier: MIT
"""run.py OUTDIR: the whole road on a machine with an NVIDIA GPU, as root: a plain CUDA program, and a
model of the shape of Llama 3.1 8B, dumped, converted, restored four ways, checked to the bit; and
what must fail, fails.

    GPU_LAYERS=32         of the model: 32 are 15 GiB of weights
    GPU_KV_GIB=16         zeroed reserve for keys and values
    GPU_REPS=5            restores of each way, in turns
    GPU_WAYS="stock plain helper gpud"
    GPU_STEPS="program steady model park broken"
    GPU_BASE=/dev/shm     where dumps and images are
    GPU_COLD=0            1: drop the page cache before each restore
    GPU_SECONDS=560       no restore starts that would not end by then

Writes OUTDIR/gpu.json, gpu.txt and the logs of what failed."""

import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
import traceback

import gpulib
import harness

LAYERS = int(os.environ.get("GPU_LAYERS", "32"))
KV_GIB = float(os.environ.get("GPU_KV_GIB", "16"))
REPS = int(os.environ.get("GPU_REPS", "5"))
WAYS = os.environ.get("GPU_WAYS", "stock plain helper gpud").split()
STEPS = os.environ.get("GPU_STEPS", "program steady model park broken").split()
BASE = os.path.join(os.environ.get("GPU_BASE", "/dev/shm"), "ckfast-gpu")
COLD = os.environ.get("GPU_COLD", "0") == "1"
SECONDS = float(os.environ.get("GPU_SECONDS", "560"))
SOCKET = "/run/ckfast-test/gpud.sock"
IDLE_MIB = 64  # what nvidia-smi may differ by when nothing runs


class Run:
    def __init__(self, out):
        self.out = out
        self.tools = gpulib.GpuTools()
        self.end = time.monotonic() + SECONDS
        self.failures = []
        self.result = {"version": 1, "gpus": gpulib.gpu_facts(), "cpu": harness.cpu_model(),
                       "cpus": len(os.sched_getaffinity(0)),
                       "memory_mib": harness.meminfo("MemTotal") // 1024,
                       "kernel": os.uname().release, "commit": self.tools.commit(),
                       "layers": LAYERS, "kv_gib": KV_GIB, "base": BASE, "cold": COLD,
                       "command": f"GPU_LAYERS={LAYERS} GPU_KV_GIB={KV_GIB:g} GPU_REPS={REPS} "
                                  f"GPU_BASE={os.path.dirname(BASE)} GPU_COLD={int(COLD)} "
                                  "./gpu.sh OUTDIR",
                       "checks": {}, "steps": {}, "restores": []}

    def say(self, *words):
        print(f"[{SECONDS - (self.end - time.monotonic()):6.1f}]", *words, flush=True)

    def check(self, name, right, why=""):
        self.result["checks"][name] = bool(right)
        self.say("ok  " if right else "FAIL", name, "" if right else why)
        if not right:
            self.failures.append(f"{name}: {why}")

    def keep_logs(self, roads, name):
        for log in ("dump.log", "restore.log"):
            if os.path.exists(roads.path(log)):
                with open(roads.path(log), "rb") as f:
                    data = f.read()
                with open(os.path.join(self.out, f"{name}-{log}"), "wb") as f:
                    f.write(data[-400000:])


def ask_program(task):
    report = os.path.join(task.work, "report")
    if os.path.exists(report):
        os.unlink(report)
    os.kill(task.pid, signal.SIGUSR1)
    harness.wait_until("the program does not answer", lambda: os.path.exists(report), 60)
    with open(report, encoding="utf-8") as f:
        return f.read().strip()


def program(run):
    """The plain CUDA program: with the agent by both daemon and helper, and without it; and one that
    has memory by other roads, too."""
    for way, own in (("gpud", []), ("helper", []), ("plain", []), ("gpud", ["own"])):
        argv = [run.tools.prog("cudaprog"), "."] + own
        task = gpulib.Task(run.tools, "/tmp/ckfast-gpu-prog", argv, way != "plain")
        name = f"program {' '.join([way] + own)}"
        roads = gpulib.Roads(run.tools, task, os.path.join(BASE, "program"), SOCKET)
        dump, fast = roads.path("dump"), roads.path("fast")
        try:
            task.start(60)
            run.check(f"{name}: runs", ask_program(task) == "OK")
            roads.dump(dump, daemon=way == "gpud", leave=True)
            run.check(f"{name}: left running", ask_program(task) == "OK")
            roads.dump(dump, daemon=way == "gpud")
            roads.convert(dump, fast)
            harness.output(run.tools.command("ckfast") + ["verify", fast])
            for images in (fast, dump, fast):
                roads.restore(images, way)
                answer = ask_program(task)
                run.check(f"{name}: restored from {os.path.basename(images)}",
                          answer == "OK", answer)
                task.stop()
        except harness.Failure as e:
            run.check(name, False, str(e))
            run.keep_logs(roads, name.replace(" ", "-"))
        finally:
            if task.pid:
                task.stop()
            shutil.rmtree(roads.base, ignore_errors=True)


STEADY = r"""
import json, time, torch
def loop(n, f):
    f(); torch.cuda.synchronize()
    best = 1e9
    for _ in range(5):
        t = time.perf_counter()
        for _ in range(n): f()
        torch.cuda.synchronize()
        best = min(best, (time.perf_counter() - t) / n)
    return best * 1e6
def alloc(mib):
    x = torch.empty(mib << 20, dtype=torch.uint8, device='cuda'); del x
    torch.cuda.empty_cache()
a = torch.randn(4096, 4096, device='cuda', dtype=torch.bfloat16)
h = torch.empty(64 << 20, dtype=torch.uint8).pin_memory()
d = torch.empty(64 << 20, dtype=torch.uint8, device='cuda')
s = torch.zeros(16, device='cuda')
print(json.dumps({'matmul_us': loop(50, lambda: a @ a), 'small_kernel_us': loop(5000, lambda: s.add_(1)),
    'copy_us': loop(20, lambda: d.copy_(h, non_blocking=True)),
    **{f'alloc_free_{m}_mib_us': loop(50, lambda: alloc(m)) for m in (4, 32, 256, 2048)}}))
"""


def steady(run):
    """What the agent costs a program that is not dumped. Each in turns, three times; the medians."""
    found = {True: [], False: []}
    for _ in range(3):
        for agent in (False, True):
            argv = (run.tools.command("ckfast") + ["run", "--"] if agent else []) + [
                sys.executable, "-c", STEADY]
            found[agent].append(json.loads(harness.output(argv).splitlines()[-1]))
    rows = {key: [statistics.median(r[key] for r in found[agent]) for agent in (False, True)]
            for key in found[True][0]}
    run.result["steps"]["steady_us_without_and_with_agent"] = rows
    for key, (without, with_agent) in rows.items():
        run.say(f"{key}: {without:.1f} without the agent, {with_agent:.1f} with it")


class Model:
    """The model's process, its images for each way, and what it answers."""

    def __init__(self, run):
        self.run = run
        argv = [sys.executable, os.path.join(run.tools.gpu, "llm.py"), ".", str(LAYERS), str(KV_GIB)]
        self.plain = gpulib.Task(run.tools, "/tmp/ckfast-gpu-plain", argv, False)
        self.agent = gpulib.Task(run.tools, "/tmp/ckfast-gpu-agent", argv, True)
        self.roads = {}
        self.images = {}
        self.expect = {}
        for way in ("stock", "plain"):
            self.roads[way] = gpulib.Roads(run.tools, self.plain, os.path.join(BASE, way), SOCKET)
        for way in ("helper", "gpud"):
            self.roads[way] = gpulib.Roads(run.tools, self.agent, os.path.join(BASE, "agent"), SOCKET)

    def start(self, task):
        task.start()
        self.expect[task] = harness_json(task, "ready")
        self.run.say("model:", self.expect[task])

    def prepare_plain(self):
        roads, steps = self.roads["stock"], self.run.result["steps"]
        self.start(self.plain)
        gpulib.pretouch(self.run.tools, 80 * 1024)
        if "stock" in WAYS:
            steps["stock_dump_s"] = roads.dump(roads.path("dump"), stock=True, leave="plain" in WAYS)
            self.images["stock"] = roads.path("dump")
        if "plain" in WAYS:
            roads = self.roads["plain"]
            steps["plain_dump_s"] = roads.dump(roads.path("dump"))
            steps["plain_convert_s"] = roads.convert(roads.path("dump"), roads.path("fast"))
            shutil.rmtree(roads.path("dump"))
            self.images["plain"] = roads.path("fast")

    def prepare_agent(self):
        roads, steps = self.roads["gpud"], self.run.result["steps"]
        self.start(self.agent)
        gpulib.pretouch(self.run.tools, 40 * 1024)
        steps["agent_dump_s"] = roads.dump(roads.path("dump"), daemon=True)
        steps["agent_dump_mib"] = disk_mib(roads.path("dump"))
        steps["agent_convert_s"] = roads.convert(roads.path("dump"), roads.path("fast"))
        self.images["helper"] = self.images["gpud"] = roads.path("fast")

    def ask(self, task, name, timeout=60):
        """Tells the process, which may not be there yet, to generate."""
        with open(os.path.join(task.work, "go.new"), "w", encoding="utf-8") as f:
            f.write(name)
        os.rename(os.path.join(task.work, "go.new"), os.path.join(task.work, "go"))
        return lambda: self.answer(task, name, timeout)

    def answer(self, task, name, timeout):
        path = os.path.join(task.work, f"out-{name}")
        harness.wait_until("the model does not answer", lambda: os.path.exists(path), timeout)
        return harness_json(task, f"out-{name}")

    def right(self, task, answer):
        return all(answer[k] == self.expect[task][k] for k in ("tokens", "sum"))

    def restore(self, way, rep):
        task, roads = self.roads[way].task, self.roads[way]
        gpulib.pretouch(self.run.tools, 40 * 1024)
        if COLD:
            harness.drop_caches()
        wait = self.ask(task, f"{way}-{rep}")
        start = time.time()
        row = roads.restore(self.images[way], way)
        answer = wait()
        if rep == 0:
            self.run.keep_logs(roads, f"model-{way}")
        row.update(way=way, rep=rep, first_token_s=answer["first_token_at"] - start,
                   right=self.right(task, answer))
        task.stop()
        self.run.result["restores"].append(row)
        self.run.say({k: round(v, 3) if isinstance(v, float) else v for k, v in row.items()})
        if not row["right"]:
            self.run.check(f"model {way}: answer", False, str(answer))


def harness_json(task, name):
    return gpulib.read_json(os.path.join(task.work, name))


def disk_mib(directory):
    return sum(os.lstat(os.path.join(directory, n)).st_blocks for n in os.listdir(directory)) >> 11


def disk_speed(path):
    """GB/s of plain reads that pass the page cache by."""
    harness.drop_caches()
    start = time.monotonic()
    harness.output(["dd", "if=" + path, "of=/dev/null", "bs=16M", "iflag=direct"])
    return os.path.getsize(path) / 1e9 / (time.monotonic() - start)


def model_restores(run, model):
    for rep in range(REPS):
        for way in WAYS:
            if way not in model.images:
                continue
            worst = max([r["restore_s"] for r in run.result["restores"] if r["way"] == way] or [30])
            if time.monotonic() + worst + 15 > run.end:
                run.say(f"no time left for {way}")
                continue
            try:
                model.restore(way, rep)
            except harness.Failure as e:
                run.check(f"model {way}", False, str(e))
                run.keep_logs(model.roads[way], f"model-{way}")
                model.images.pop(way)


def model_step(run):
    model = Model(run)
    if {"stock", "plain"} & set(WAYS):
        try:
            model.prepare_plain()
        except harness.Failure as e:
            run.check("model without agent: dump", False, str(e))
            run.keep_logs(model.roads["stock"], "model-stock")
        finally:
            model.plain.stop()
    try:
        model.prepare_agent()
    except harness.Failure as e:
        run.check("model with agent: dump", False, str(e))
        run.keep_logs(model.roads["gpud"], "model-agent")
        model.agent.stop()
    if COLD and "gpud" in model.images:
        run.result["steps"]["disk_gb_s"] = disk_speed(os.path.join(model.images["gpud"], "ckfast.pack"))
    for way, images in model.images.items():
        run.result["steps"][way + "_image_mib"] = disk_mib(images)
    model_restores(run, model)
    return model


def park_step(run, model):
    """Parked, the GPU is free; unparked, the model is as it was."""
    tools, task = run.tools, model.agent
    model.roads["gpud"].restore(model.images["gpud"], "gpud")
    before = gpulib.gpu_used_mib()
    env = {**os.environ, "CKFAST_GPUD_SOCKET": SOCKET}
    for action in ("park", "unpark"):
        got = subprocess.run(tools.command("ckfast") + [action, "--json", str(task.pid)], env=env,
                             capture_output=True, text=True, timeout=120, check=False)
        run.check(f"{action}", got.returncode == 0, got.stderr)
        if got.returncode:
            return
        run.result["steps"][action] = json.loads(got.stdout)
        run.result["steps"][action + "_used_mib"] = gpulib.gpu_used_mib()
        run.say(action, got.stdout.strip())
    run.check("park: the GPU is free", run.result["steps"]["park_used_mib"] < before / 4,
              f"{before} and {run.result['steps']['park_used_mib']} MiB")
    run.check("park: the model is as it was", model.right(task, model.ask(task, "parked")()))
    task.stop()


def flip(path, offset):
    with open(path, "r+b") as f:
        f.seek(offset)
        byte = f.read(1)[0]
        f.seek(offset)
        f.write(bytes([byte ^ 1]))


def broken_step(run, model):
    """A flipped bit in the weights ends the restore, and nothing is left; behind the checksums, the
    model's own check sees it."""
    roads, task = model.roads["gpud"], model.agent
    pack = os.path.join(model.images["gpud"], "ckfast.pack")
    idle = gpulib.gpu_used_mib()
    for way in ("gpud", "helper"):
        flip(pack, os.path.getsize(pack) // 2)
        try:
            roads.restore(model.images["gpud"], way)
            run.check(f"broken {way}: refused", False, "the restore succeeded")
            task.stop()
        except harness.Failure as e:
            run.check(f"broken {way}: refused", "checksum" in str(e), str(e))
        flip(pack, os.path.getsize(pack) // 2)
        try:
            harness.wait_until("process", lambda: harness.is_gone(task.pid), 10)
            run.check(f"broken {way}: no process is left", True)
        except harness.Failure:
            run.check(f"broken {way}: no process is left", False)
        time.sleep(0.5)
        left = gpulib.gpu_used_mib()
        run.check(f"broken {way}: no GPU memory is left", left <= idle + IDLE_MIB,
                  f"{idle} MiB before, {left} after")
    dump = roads.path("dump")
    pages = [n for n in os.listdir(dump) if n.startswith("ckfast-gpu-pages-")]
    flip(os.path.join(dump, pages[0]), 3 * gpulib.GIB)
    wait = model.ask(task, "flipped")
    row = roads.restore(dump, "gpud")
    run.result["steps"]["restore_from_dump_s"] = row["restore_s"]
    run.check("broken: the model sees a flipped bit", not model.right(task, wait()))
    task.stop()


def report(run):
    lines = [", ".join(run.result["gpus"]), f"{run.result['cpu']}, {run.result['cpus']} CPUs, "
             f"{run.result['memory_mib']} MiB, Linux {run.result['kernel']}, commit "
             f"{run.result['commit']}", run.result["command"], ""]
    keys = ("restore_s", "first_token_s", "cpu_s", "late_s", "gpu_ms", "gpu_gb_s", "host_mib")
    lines.append("way      runs " + "".join(f"{k:>24}" for k in keys) + "   image MiB")
    for way in WAYS:
        rows = [r for r in run.result["restores"] if r["way"] == way]
        if not rows:
            continue
        text = f"{way:8} {len(rows):4} "
        for key in keys:
            values = [r[key] for r in rows if key in r]
            if values:
                spread = f"{statistics.median(values):.3f} ({min(values):.3f}-{max(values):.3f})"
            else:
                spread = "-"
            text += f"{spread:>24}"
        lines.append(text + f"{run.result['steps'].get(way + '_image_mib', 0):12}")
    lines += [f"{k}: {v}" for k, v in run.result["steps"].items() if not k.endswith("image_mib")]
    lines += ["FAIL " + f for f in run.failures]
    lines.append(f"{sum(run.result['checks'].values())} checks passed, {len(run.failures)} failed")
    with open(os.path.join(run.out, "gpu.txt"), "w", encoding="utf-8") as f:
        f.write("\n".join(lines) + "\n")
    with open(os.path.join(run.out, "gpu.json"), "w", encoding="utf-8") as f:
        json.dump(run.result, f, indent=1)
    print("\n".join(lines))


def steps(run):
    if "program" in STEPS:
        program(run)
    if "steady" in STEPS:
        steady(run)
    if "model" not in STEPS:
        return
    model = model_step(run)
    if "gpud" in model.images and "park" in STEPS:
        park_step(run, model)
    if "gpud" in model.images and "broken" in STEPS:
        broken_step(run, model)


def main():
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    os.makedirs(sys.argv[1], exist_ok=True)
    run = Run(sys.argv[1])
    harness.become_subreaper()
    try:
        with gpulib.Daemon(run.tools, SOCKET):
            steps(run)
    except Exception as e:  # the table is wanted all the same
        traceback.print_exc()
        run.failures.append(repr(e))
    shutil.rmtree(BASE, ignore_errors=True)
    report(run)
    return 1 if run.failures else 0


sys.exit(main())

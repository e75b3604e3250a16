# SPDX-License-Identifier: MIT
"""run.py OUTDIR: the whole road on a machine with NVIDIA GPUs, as root: a plain CUDA program, and a
model of the shape of Llama 3.1 8B or 70B, dumped, converted, restored five ways, checked to the
bit; and what must fail, fails. Both use all GPUs that they see.

    GPU_MODEL=8b          8b or 70b
    GPU_LAYERS=32         of the model: 32 of 8b are 15 GiB of weights; of 70b 16, which are 29
    GPU_KV_GIB=16         zeroed reserve for keys and values, on all GPUs together
    GPU_REPS=5            restores of each way, in turns
    GPU_WAYS="stock plain helper gpud kept"
    GPU_STEPS="program doctor shared other swap steady model park broken"
                          doctor: what ckfast doctor says of the machine, a process and an image
                          shared: processes that share memory, by descriptors and by CUDA IPC, on one
                          GPU and, where there are two, on two
                          other: a program of the first GPU is restored onto the second; swap: one of
                          two GPUs, by a gpud that numbers them the other way round
    GPU_BASE=/dev/shm     where dumps and images are
    GPU_COLD=0            1: drop the page cache before each restore
    GPU_SECONDS=560       no restore starts that would not end by then
    PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True
                          PyTorch makes its memory with the virtual memory API

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

MODEL = os.environ.get("GPU_MODEL", "8b")
LAYERS = int(os.environ.get("GPU_LAYERS", {"8b": "32", "70b": "16"}[MODEL]))
KV_GIB = float(os.environ.get("GPU_KV_GIB", "16"))
REPS = int(os.environ.get("GPU_REPS", "5"))
WAYS = os.environ.get("GPU_WAYS", "stock plain helper gpud kept").split()
STEPS = os.environ.get("GPU_STEPS",
                       "program doctor shared other swap steady model park broken").split()
BASE = os.path.join(os.environ.get("GPU_BASE", "/dev/shm"), "ckfast-gpu")
COLD = os.environ.get("GPU_COLD", "0") == "1"
SECONDS = float(os.environ.get("GPU_SECONDS", "560"))
ALLOC_CONF = "".join(f"{k}={v} " for k, v in os.environ.items() if k == "PYTORCH_CUDA_ALLOC_CONF")
SOCKET = "/run/ckfast-test/gpud.sock"
IDLE_MIB = 64  # what nvidia-smi may differ by when nothing runs
PROGRAM_MIB = 128  # at least, on each GPU of the plain CUDA program, without its contexts


class Run(gpulib.Run):
    def __init__(self, out):
        super().__init__(out, {
            "memory_mib": harness.meminfo("MemTotal") // 1024, "model": MODEL, "layers": LAYERS,
            "kv_gib": KV_GIB, "base": BASE, "cold": COLD,
            "command": ALLOC_CONF + f"GPU_MODEL={MODEL} GPU_LAYERS={LAYERS} GPU_KV_GIB={KV_GIB:g} "
                       f"GPU_REPS={REPS} GPU_BASE={os.path.dirname(BASE)} GPU_COLD={int(COLD)} "
                       "./gpu.sh OUTDIR"})
        self.end = self.start + SECONDS

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


def say_devices(run, name, task):
    with open(os.path.join(task.work, "devices"), encoding="utf-8") as f:
        text = f.read().strip()
    run.say(f"{name}: {text}")
    return text


def program(run):
    """The plain CUDA program: with the agent by both daemon and helper, and without it; one that has
    memory by other roads, too; and one whose GPUs work on each other's memory."""
    kinds = [("gpud", []), ("helper", []), ("plain", []), ("gpud", ["own"])]
    if len(run.result["gpus"]) > 1:
        kinds += [("gpud", ["peer"]), ("helper", ["own", "peer"]), ("plain", ["peer"])]
    for way, own in kinds:
        argv = [run.tools.prog("cudaprog"), "."] + own
        task = gpulib.Task(run.tools, "/tmp/ckfast-gpu-prog", argv, way != "plain")
        name = f"program {' '.join([way] + own)}"
        roads = gpulib.Roads(run.tools, task, os.path.join(BASE, "program"), SOCKET)
        dump, fast = roads.path("dump"), roads.path("fast")
        try:
            task.start(60)
            run.result["steps"][name] = say_devices(run, name, task)
            answer = ask_program(task)
            run.check(f"{name}: runs", answer == "OK", answer)
            roads.dump(dump, daemon=way == "gpud", leave=True)
            answer = ask_program(task)
            run.check(f"{name}: left running", answer == "OK", answer)
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


def ask_doctor(run, roads, name, *more, env=None):
    """The states of its lines by what they are about and their names. The text goes to a file."""
    argv = run.tools.command("ckfast") + ["doctor", *more]
    env = {**roads.environment(True), **(env or {})}
    told = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=60, check=False)
    with open(os.path.join(run.out, f"doctor-{name}.txt"), "w", encoding="utf-8") as f:
        f.write(told.stdout + told.stderr)
    shown = subprocess.run(argv + ["--json"], env=env, capture_output=True, text=True, timeout=60,
                           check=False)
    found = {}
    for check in json.loads(shown.stdout)["checks"]:
        found.setdefault((check["about"], check["name"]), []).append(check["state"])
    return found


def doctor(run):
    """What is said of the driver, the GPUs, gpud, a process with the agent and its image; and what is
    said where no GPU is seen."""
    task = gpulib.Task(run.tools, "/tmp/ckfast-gpu-doctor", [run.tools.prog("cudaprog"), "."], True)
    roads = gpulib.Roads(run.tools, task, os.path.join(BASE, "doctor"), SOCKET)
    dump, fast = roads.path("dump"), roads.path("fast")
    nr = len(run.result["gpus"])

    def says(name, found, about, line, wanted):
        got = found.get((about, line))
        run.check(f"doctor {name}: {line} of the {about}", got == wanted, f"{got} for {wanted}")
    try:
        task.start(60)
        found = ask_doctor(run, roads, "process", "--pid", str(task.pid))
        says("process", found, "machine", "driver", ["ok"])
        says("process", found, "machine", "gpu", ["ok"] * nr)
        says("process", found, "machine", "gpud", ["ok"])
        says("process", found, "machine", "process", ["ok"])
        roads.dump(dump, daemon=True)
        roads.convert(dump, fast)
        found = ask_doctor(run, roads, "image", fast)
        says("image", found, "image", "gpu", ["ok"] * nr)
        found = ask_doctor(run, roads, "hidden", fast, env={"CUDA_VISIBLE_DEVICES": ""})
        # One line for all, since the driver tells of none.
        says("hidden", found, "image", "gpu", ["broken"])
    except (harness.Failure, ValueError) as e:
        run.check("doctor", False, str(e))
        run.keep_logs(roads, "doctor")
    finally:
        if task.pid and not task.is_gone():
            task.stop()
        shutil.rmtree(roads.base, ignore_errors=True)


SHARED_KINDS = [["how=fd"], ["how=fd", "again"], ["how=ipc"], ["how=ipc", "again"]]


def all_ok(answers):
    return all(a.startswith("OK") for a in answers)


def shared_kind(run, words, way):
    """One program whose processes share memory: it goes on after a dump, and after restores of the
    image and of the dump; what it shares anew in a round is shared."""
    name = f"shared {way} {' '.join(words)}"
    task = gpulib.Group(run.tools, "/tmp/ckfast-gpu-shared",
                        [run.tools.app("cushare"), ".", "procs=2"] + words, 2)
    roads = gpulib.Roads(run.tools, task, os.path.join(BASE, "shared"), SOCKET)
    dump, fast = roads.path("dump"), roads.path("fast")

    def answers(when):
        got = task.ask()
        run.check(f"{name}: {when}", all_ok(got), str(got))
    try:
        task.start(60)
        answers("runs")
        roads.dump(dump, daemon=way == "gpud", leave=True)
        answers("left running")
        roads.dump(dump, daemon=way == "gpud")
        roads.convert(dump, fast)
        for images in (fast, dump):
            roads.restore(images, way)
            answers(f"restored from {os.path.basename(images)}")
            if images == fast:
                answers("a second time")
            task.stop()
    except harness.Failure as e:
        run.check(name, False, str(e))
        run.keep_logs(roads, name.replace(" ", "-"))
    finally:
        if task.pid and not task.is_gone():
            task.stop()
        shutil.rmtree(roads.base, ignore_errors=True)


def shared_refused(run, words, why):
    """What only the driver shares is refused by name, and the processes go on."""
    name = f"shared refused {' '.join(words)}"
    task = gpulib.Group(run.tools, "/tmp/ckfast-gpu-shared",
                        [run.tools.app("cushare"), ".", "procs=2"] + words, 2)
    roads = gpulib.Roads(run.tools, task, os.path.join(BASE, "shared"), SOCKET)
    try:
        task.start(60)
        try:
            roads.dump(roads.path("dump"), daemon=True)
            run.check(name, False, "the dump succeeded")
        except harness.Failure as e:
            run.check(name, why in str(e), str(e))
        got = task.ask()
        run.check(f"{name}: goes on", all_ok(got), str(got))
    except harness.Failure as e:
        run.check(name, False, str(e))
    finally:
        if task.pid and not task.is_gone():
            task.stop()
        shutil.rmtree(roads.base, ignore_errors=True)


def shared(run):
    """Memory that processes share, on one GPU and on two."""
    spreads = [[], ["spread"]] if len(run.result["gpus"]) > 1 else [[]]
    for spread in spreads:
        for words in SHARED_KINDS:
            shared_kind(run, words + spread, "gpud")
        shared_kind(run, ["how=fd", "again"] + spread, "helper")
    shared_refused(run, ["how=ipc", "event"], "shares events")
    shared_refused(run, ["how=fd", "hold"], "descriptor")


class Seen:
    """The plain CUDA program that sees some GPUs, and restores by a gpud that sees others."""

    def __init__(self, run, step, seen, words):
        self.run = run
        self.step = step
        self.task = gpulib.Task(run.tools, "/tmp/ckfast-gpu-seen",
                                [run.tools.prog("cudaprog"), "."] + words, True)
        self.task.env = {"CUDA_VISIBLE_DEVICES": seen}
        self.roads = gpulib.Roads(run.tools, self.task, os.path.join(BASE, step), SOCKET)
        self.images = self.roads.path("fast")

    def prepare(self):
        self.task.start(60)
        seen = self.task.env["CUDA_VISIBLE_DEVICES"]
        self.run.result["steps"][self.step] = say_devices(self.run, f"{self.step}: GPU {seen}",
                                                          self.task)
        dump = self.roads.path("dump")
        self.roads.dump(dump, daemon=True)
        self.roads.convert(dump, self.images)

    def restore(self, way, seen):
        """What the program answers, and which GPUs of the machine have more in use than before."""
        time.sleep(0.5)  # what ended just now may still be counted
        before = gpulib.each_gpu_used_mib()
        try:
            self.roads.restore(self.images, way)
            answer = ask_program(self.task)
            after = gpulib.each_gpu_used_mib()
        finally:
            self.run.keep_logs(self.roads, f"{self.step}-{way}-{seen.replace(',', '')}")
        self.run.say(f"{self.step} {way}: restored seeing GPU {seen}: {before} MiB before, {after} "
                     "after")
        return answer, [a - b for b, a in zip(before, after)]

    def under(self, way, seen, body):
        """body() with a gpud, or for a helper, that sees these GPUs in this order."""
        env = {"CUDA_VISIBLE_DEVICES": seen}
        self.roads.env, self.roads.socket = env, f"{SOCKET}-{self.step}"
        try:
            if way == "helper":
                body()
            else:
                with gpulib.Daemon(self.run.tools, self.roads.socket, env):
                    body()
        finally:
            self.roads.env, self.roads.socket = {}, SOCKET

    def goes_to(self, way, seen, wanted):
        """wanted: for each GPU whether the memory is there then."""
        name = f"{self.step} {way}"

        def body():
            answer, more = self.restore(way, seen)
            self.run.check(f"{name}: right", answer == "OK", answer)
            where = all(m >= PROGRAM_MIB if w else m <= IDLE_MIB for m, w in zip(more, wanted))
            self.run.check(f"{name}: on the right GPUs", where,
                           f"MiB more on each GPU: {more}, wanted on: {wanted}")
            self.task.stop()
        self.attempt(name, lambda: self.under(way, seen, body))

    def refused(self, way, seen, words):
        name = f"{self.step} {way}: refused where only GPU {seen} is seen"

        def body():
            try:
                self.restore(way, seen)
            except harness.Failure as e:
                self.run.check(name, words in str(e), str(e))
                harness.wait_until(f"{name}: a process is left",
                                   lambda: harness.is_gone(self.task.pid), 10)
                self.run.check(f"{name}: no process is left", True)
            else:
                self.run.check(name, False, "the restore succeeded")
                self.task.stop()
        self.attempt(name, lambda: self.under(way, seen, body))

    def attempt(self, name, body):
        try:
            body()
        except (harness.Failure, OSError) as e:
            log = f"{SOCKET}-{self.step}.log"
            told = harness.tail(log) if os.path.exists(log) else "no log"
            self.run.check(name, False, f"{e}; gpud: {told}")
            if not harness.is_gone(self.task.pid):
                self.task.stop()

    def close(self):
        if self.task.pid and not harness.is_gone(self.task.pid):
            self.task.stop()
        shutil.rmtree(self.roads.base, ignore_errors=True)


def seen_step(run, step, seen, words, body):
    nr = len(run.result["gpus"])
    if nr < 2:
        run.result["steps"][step] = "not run, it takes 2 GPUs"
        run.say(f"{step}: not run, it takes 2 GPUs")
        return
    program_of = Seen(run, step, seen, words)
    try:
        program_of.prepare()
        body(program_of, nr)
    except harness.Failure as e:
        run.check(f"{step}: dump", False, str(e))
        run.keep_logs(program_of.roads, step)
    finally:
        program_of.close()


def other(run):
    """A program of the first GPU goes on on the second. One that cannot see the second does not: the
    driver gives it no memory there."""
    def body(one, nr):
        for way in ("gpud", "helper"):
            one.goes_to(way, "1", [i == 1 for i in range(nr)])

    def hidden_body(one, _):
        for way in ("gpud", "helper"):
            one.refused(way, "1", "CUDA_VISIBLE_DEVICES")
    seen_step(run, "other", "0,1", ["first"], body)
    seen_step(run, "hidden", "0", [], hidden_body)


def swap(run):
    """A program of two GPUs goes on where it was, however gpud numbers them; not on one."""
    def body(both, nr):
        for way in ("gpud", "helper"):
            both.goes_to(way, "1,0", [i < 2 for i in range(nr)])
            both.refused(way, "1", "none like it is left")
    seen_step(run, "swap", "0,1", [], body)


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
        argv = [sys.executable, os.path.join(run.tools.gpu, "llm.py"), ".", str(LAYERS), str(KV_GIB),
                MODEL]
        self.plain = gpulib.Task(run.tools, "/tmp/ckfast-gpu-plain", argv, False)
        self.agent = gpulib.Task(run.tools, "/tmp/ckfast-gpu-agent", argv, True)
        self.roads = {}
        self.images = {}
        self.expect = {}
        self.gib = 0
        for way in ("stock", "plain"):
            self.roads[way] = gpulib.Roads(run.tools, self.plain, os.path.join(BASE, way), SOCKET)
        for way in ("helper", "gpud", "kept"):
            self.roads[way] = gpulib.Roads(run.tools, self.agent, os.path.join(BASE, "agent"), SOCKET)

    def start(self, task):
        task.start()
        self.expect[task] = harness_json(task, "ready")
        self.run.say("model:", self.expect[task])
        self.gib = self.expect[task]["reserved_gib"]
        for roads in self.roads.values():
            roads.gib = self.gib

    def pretouch(self, times=1):
        gpulib.pretouch(self.run.tools, int(times * max(40, 1.3 * self.gib) * 1024))

    def prepare_plain(self):
        roads, steps = self.roads["stock"], self.run.result["steps"]
        self.start(self.plain)
        self.pretouch(2)
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
        self.pretouch()
        steps["agent_dump_s"] = roads.dump(roads.path("dump"), daemon=True)
        steps["agent_dump_mib"] = disk_mib(roads.path("dump"))
        steps["agent_convert_s"] = roads.convert(roads.path("dump"), roads.path("fast"))
        for way in ("helper", "gpud", "kept"):
            self.images[way] = roads.path("fast")
        if "broken" not in STEPS:
            shutil.rmtree(roads.path("dump"))

    def ask(self, task, name, timeout=60):
        """Tells the process, which may not be there yet, to generate."""
        with open(os.path.join(task.work, "go.new"), "w", encoding="utf-8") as f:
            f.write(name)
        os.rename(os.path.join(task.work, "go.new"), os.path.join(task.work, "go"))
        return lambda: self.answer(task, name, timeout)

    def answer(self, task, name, timeout):
        path = os.path.join(task.work, f"out-{name}")
        harness.wait_until("the model does not answer", lambda: os.path.exists(path) or
                           harness.is_gone(task.pid), timeout)
        if not os.path.exists(path):
            raise harness.Failure("the model has ended: " +
                                  harness.tail(os.path.join(task.work, "stderr")))
        return harness_json(task, f"out-{name}")

    def right(self, task, answer):
        return all(answer[k] == self.expect[task][k] for k in ("tokens", "sum"))

    def restore(self, way, rep):
        task, roads = self.roads[way].task, self.roads[way]
        if way in ("gpud", "kept"):
            roads.keep(self.images[way], way)
        self.pretouch()
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
            worst = max([r["restore_s"] for r in run.result["restores"] if r["way"] == way] or
                        [max(30, model.gib)])
            if time.monotonic() + worst + 15 > run.end:
                run.say(f"no time left for {way}")
                continue
            try:
                model.restore(way, rep)
            except harness.Failure as e:
                run.check(f"model {way}", False, str(e))
                if not harness.is_gone(model.roads[way].task.pid):
                    model.roads[way].task.stop()
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
    model.roads["gpud"].keep(model.images["gpud"], "gpud")
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
    gpus = run.result["gpus"]
    lines = [f"{len(gpus)} GPU{'s' * (len(gpus) > 1)}: " + "; ".join(gpus),
             f"model: shape of Llama 3.1 {MODEL.upper()}, {LAYERS} layers, {KV_GIB:g} GiB reserve", f"{run.result['cpu']}, {run.result['cpus']} CPUs, "
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
            text += f"{gpulib.spread([r[key] for r in rows if key in r]):>24}"
        lines.append(text + f"{run.result['steps'].get(way + '_image_mib', 0):12}")
    lines += [f"{k}: {v}" for k, v in run.result["steps"].items() if not k.endswith("image_mib")]
    run.write("gpu", lines)


def steps(run):
    if "program" in STEPS:
        program(run)
    if "doctor" in STEPS:
        doctor(run)
    if "shared" in STEPS:
        shared(run)
    if "other" in STEPS:
        other(run)
    if "swap" in STEPS:
        swap(run)
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
    # As nvidia-smi numbers them.
    os.environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
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

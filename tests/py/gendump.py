#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""
Makes CRIU-like dumps: the same seed and options always make the same bytes. Below OUT:

    0, 1, …      the dumps, oldest first; each but the first has `parent` -> ../N-1
    truth.json   what must come back: see below
    truth.bin    the pages that it names

truth.json: {"seed", "features", "dump": name of the newest dump, "targets": [{"kind": 1 task |
2 shmem | 3 device, "id", "runs": [[address, nr_pages, offset in truth.bin], …]}]}. Runs are in ascending
order of address; pages that are in the newest dump and pages that it leaves to its parents are
treated alike.

    gendump.py SEED OUT [FEATURE=VALUE …]
    gendump.py bad-list
    gendump.py bad NAME OUT       OUT/dump is a dump that no converter may accept

Features (default: by the seed): tasks (0…), pages (budget), levels (1…3), form (4.1, 4.2, old),
shmem (number of objects), gpu (tasks with device memory), amd (tasks with AMD GPUs), render (open
render nodes), hugetlb, guard, fragmented, cow, huge, unknown, meta (0 | 1 each), content (mix | random | text | zero | repeat | near-zero | bf16 | fp32).
"""
import json
import os
import random
import struct
import sys

sys.dont_write_bytecode = True

import amdimg
import criuimg
import gpuimg
import packimg
from criuimg import PAGE, PE_LAZY, PE_PARENT, PE_PRESENT, encode, image

HUGE = 2 << 20


# ---- contents -----------------------------------------------------------------------------------

WORDS = b"model layer weight token cache block server kernel page restore thread value".split()


# The uppermost bytes of 256 weights as floats: the sign, and the exponent but for its last bit.
UPPERMOST = bytes(struct.pack("<f", random.Random(n).gauss(0, .02))[3] for n in range(256))


def floats(rng, width):
    """A page of weights, as bf16 (2 bytes each) or as floats (4)."""
    page = bytearray(rng.randbytes(PAGE))
    page[width - 1::width] = page[width - 1::width].translate(UPPERMOST)
    return bytes(page)


class Content:
    """Pages of different kinds; some blocks come again later, at other offsets."""

    def __init__(self, rng, kind):
        self.rng, self.kind = rng, kind
        self.blocks = []

    def pages(self, nr):
        """nr pages as a list."""
        out = []
        while len(out) < nr:
            part = min(nr - len(out), self.rng.choice([1, 2, 3, 8, 16, 64, 200]))
            out += self.block(part)
        return out

    def block(self, nr):
        rng = self.rng
        kind = self.kind
        if kind == "mix":
            kind = rng.choice(["zero", "zero", "random", "text", "repeat", "near-zero", "bf16",
                               "fp32"])
        if kind == "repeat" and self.blocks:
            block = rng.choice(self.blocks)
            start = rng.randrange(len(block))
            block = (block[start:] + block)[:nr]
            return block + self.block(nr - len(block)) if len(block) < nr else block
        if kind == "zero":
            return [bytes(PAGE)] * nr
        if kind == "text":
            text = b" ".join(rng.choices(WORDS, k=nr * 120))
            text = (text * (nr * PAGE // len(text) + 1))[:nr * PAGE]
            block = [text[i:i + PAGE] for i in range(0, nr * PAGE, PAGE)]
        elif kind == "near-zero":
            block = []
            for _ in range(nr):
                page = bytearray(PAGE)
                page[rng.choice([0, PAGE - 1, rng.randrange(PAGE)])] = rng.randrange(1, 256)
                block.append(bytes(page))
        elif kind in ("bf16", "fp32"):
            block = [floats(rng, 2 if kind == "bf16" else 4) for _ in range(nr)]
        else:
            block = [rng.randbytes(PAGE) for _ in range(nr)]
        self.blocks.append(block)
        return block


# ---- model of a process tree -------------------------------------------------------------------

class Vma:
    def __init__(self, start, nr_pages, flags, status, shmid=0, madv=0):
        self.start, self.end = start, start + nr_pages * PAGE
        self.flags, self.status, self.shmid, self.madv = flags, status, shmid, madv

    def message(self):
        fields = [(1, self.start), (2, self.end), (3, 0), (4, self.shmid), (5, 3),
                  (6, self.flags), (7, self.status), (8, criuimg.zigzag(-1))]
        return encode(fields + ([(9, self.madv)] if self.madv else []))


class Task:
    def __init__(self, pid, parent):
        self.pid, self.parent = pid, parent
        self.vmas, self.guards, self.memory = [], [], {}


class Shmem:
    def __init__(self, shmid, nr_pages):
        self.shmid, self.nr_pages, self.memory = shmid, nr_pages, {}


class Gpu:
    """The device memory of a task: allocations whose pages are all there, zero or not."""

    def __init__(self, pid, rng, content):
        self.pid, self.allocs, self.memory = pid, [], {}
        at = rng.choice([0x7f0000000000, 0x10000000000, 2 << 20])
        for _ in range(rng.randrange(0, 4)):
            size = rng.choice([1, 1, 2, 5]) * HUGE
            self.allocs.append((at, size, rng.randrange(2), rng.randrange(2), 0))
            for addr in range(at, at + size, PAGE):
                self.memory[addr] = bytes(PAGE)
            first, nr = rng.randrange(size // PAGE), rng.choice([1, 30, 600])
            for i, page in enumerate(content.pages(min(nr, size // PAGE - first))):
                self.memory[at + (first + i) * PAGE] = page
            at += size + rng.choice([0, HUGE, 1 << 30])

    def import_from(self, other):
        """The first allocation of another task is here, too, mapped nowhere."""
        addr, size, dev, flags, reserved = other.allocs[0]
        ident = b"shared by tasks "
        other.allocs[0] = (addr, size, dev, flags | gpuimg.FLAG_SHARED, reserved, ident)
        self.allocs.append((1 << 62, size, 0, gpuimg.FLAG_SHARED | gpuimg.FLAG_IMPORT, 0, ident))

    def table(self):
        return gpuimg.pack(self.pid, [gpuimg.device(3), gpuimg.device(0, b"x" * 63, uuid=bytes(16))],
                           self.allocs)


class Amd:
    """
    The memory of a task on AMD GPUs, as CRIU's plugin dumps it: objects of all kinds, some without
    contents, at addresses that say nothing. memory: {gpu: [pages of each object with contents]}.
    """

    def __init__(self, ident, pid, rng, content):
        self.ident, self.pid = ident, pid
        self.gpus = rng.sample([1, 0x1a, 0xbeef, 0xffff, 0x10000], rng.choice([1, 2, 3]))
        self.objects, self.memory = [], {gpu: [] for gpu in self.gpus}
        for i in range(rng.randrange(0, 9)):
            gpu, kind = rng.choice(self.gpus), rng.choice([1, 1, 2, 3, 4, 8, 16])
            nr = rng.choice([1, 2, 511, 512, 513, 1030])
            addr = rng.choice([0, 0x7f0000000000, 0x7f0000000000 + i * HUGE])
            self.objects.append(amdimg.obj(gpu, nr * PAGE, kind | amdimg.WRITABLE, addr))
            if kind & 3:
                pages = content.pages(nr) if rng.random() < .7 else [bytes(PAGE)] * nr
                self.memory[gpu].append(pages)

    def table(self):
        return amdimg.table(self.pid, [amdimg.device(0)] + [amdimg.device(g) for g in self.gpus],
                            self.objects)

    def places(self, gpu):
        """{place: page}"""
        places = amdimg.places([len(pages) * PAGE for pages in self.memory[gpu]])
        return {start + i * PAGE: page for (start, _), pages in zip(places, self.memory[gpu])
                for i, page in enumerate(pages)}


class Render:
    """
    An open render node, as CRIU's plugin dumps it: its objects, of which some have no file of
    contents or none of the right length. memory: the pages of each that a fast image takes.
    """

    def __init__(self, ident, rng, content):
        self.ident, self.gpu, self.minor = ident, rng.choice([1, 0x1a, 0x10000]), 128 + ident % 64
        self.sizes, self.files, self.memory = [], {}, {}
        for n in range(rng.choice([0, 1, 3, 9])):
            nr = rng.choice([1, 2, 511, 513, 1030])
            self.sizes.append(rng.choice([nr * PAGE] * 6 + [100]))
            if self.sizes[n] == nr * PAGE and rng.random() < .7:
                self.memory[n] = content.pages(nr) if rng.random() < .7 else [bytes(PAGE)] * nr
                head = rng.choice([self.sizes[n], 0, rng.randrange(1 << 64)])
                self.files[n] = head.to_bytes(8, "little") + b"".join(self.memory[n])
            elif rng.random() < .7:
                self.files[n] = bytes(8) + b"x" * rng.choice([0, 1, self.sizes[n] + 1])

    def put(self, put, memories):
        put(amdimg.render_name(self.ident).decode(),
            amdimg.render_table(self.gpu, self.ident, self.minor, self.sizes))
        for n, data in self.files.items():
            put(amdimg.render_pages_name(self.ident, self.minor, n).decode(), data)
        for n, pages in self.memory.items():
            memories[3, amdimg.target_id(self.ident, n)] = {
                i * PAGE: page for i, page in enumerate(pages)}


class World:
    """The processes at one moment; the dumps are taken of it."""

    def __init__(self, seed, options):
        self.rng = rng = random.Random(seed)
        self.f = f = {
            "tasks": rng.choice([1, 1, 2, 3, 5]), "pages": rng.choice([40, 400, 2000]),
            "levels": rng.choice([1, 1, 2, 3]), "form": rng.choice(["4.1", "4.2", "4.2"]),
            "shmem": rng.choice([0, 1, 3]), "hugetlb": rng.random() < .2,
            "guard": rng.random() < .3, "fragmented": rng.random() < .4,
            "cow": rng.random() < .7, "huge": rng.random() < .4, "unknown": rng.random() < .6,
            "meta": rng.random() < .6, "content": rng.choice(["mix"] * 6 + ["zero", "random"]),
        }
        # With numbers of its own: the others are what they were before there was this feature.
        gpu_rng = random.Random("gpu %d" % seed)
        f["gpu"] = gpu_rng.choice([0, 0, 1, 2])
        amd_rng = random.Random("amd %d" % seed)
        f["amd"] = amd_rng.choice([0, 0, 1, 2])
        render_rng = random.Random("render %d" % seed)
        f["render"] = render_rng.choice([0, 0, 1, 2])
        for key, value in options.items():
            if key not in f:
                raise SystemExit("unknown feature %s" % key)
            f[key] = value if key in ("form", "content") else int(value)
        self.content = Content(rng, f["content"])
        self.tasks, self.shmems = [], []
        pid = rng.choice([1, 100, 4194000])
        for i in range(f["tasks"]):
            parent = rng.choice(self.tasks) if self.tasks else None
            self.tasks.append(self.make_task(pid + i, parent))
        for i in range(f["shmem"]):
            self.shmems.append(self.make_shmem(i))
        content = Content(gpu_rng, f["content"])
        content.blocks = self.content.blocks
        self.gpus = [Gpu(t.pid, gpu_rng, content) for t in self.tasks[:f["gpu"]]]
        if len(self.gpus) > 1 and self.gpus[0].allocs:
            self.gpus[1].import_from(self.gpus[0])
        self.amds = [Amd(7 + 90 * i, t.pid, amd_rng, content)
                     for i, t in enumerate(self.tasks[:f["amd"]])]
        content = Content(render_rng, f["content"])
        content.blocks = self.content.blocks
        self.renders = [Render(50 + 90 * i, render_rng, content) for i in range(f["render"])]

    def add_vma(self, task, start, nr, flags=None, status=None, density=1.0, **more):
        """A mapping and its pages; returns the address after it and a gap."""
        rng = self.rng
        flags = criuimg.MAP_PRIVATE | criuimg.MAP_ANON if flags is None else flags
        status = criuimg.VMA_REGULAR | (criuimg.VMA_ANON_PRIVATE if status is None else status)
        task.vmas.append(Vma(start, nr, flags, status, **more))
        pages = self.content.pages(nr)
        for i in range(nr):
            keep = i % 2 == 0 if density < 0 else rng.random() < density
            if keep:
                task.memory[start + i * PAGE] = pages[i]
        return start + (nr + rng.choice([0, 1, 16, 513])) * PAGE

    def make_task(self, pid, parent):
        rng, f = self.rng, self.f
        task = Task(pid, parent)
        if parent and f["cow"]:
            task.vmas = list(parent.vmas)
            task.memory = dict(parent.memory)
            self.diverge(task)
            at = max(v.end for v in task.vmas) + 64 * PAGE
        else:
            at = 0x400000
        budget = max(1, f["pages"] // max(1, f["tasks"]))
        for _ in range(rng.randrange(2, 6)):
            nr = rng.randrange(1, max(2, budget // 3))
            status = rng.choice([None, None, criuimg.VMA_FILE_PRIVATE])
            flags = criuimg.MAP_PRIVATE if status else None
            at = self.add_vma(task, at, nr, flags, status, rng.choice([1.0, 1.0, .9, .3]))
        if f["fragmented"]:
            at = self.add_vma(task, at, max(4, budget // 4), density=-1)
        if f["huge"]:
            at = (at + HUGE - 1) // HUGE * HUGE + rng.choice([0, PAGE, HUGE - PAGE])
            at = self.add_vma(task, at, rng.choice([512, 1024, 1300]),
                              madv=1 << criuimg.MADV_HUGEPAGE if rng.random() < .5 else 0)
        if f["hugetlb"]:
            at = (at + HUGE - 1) // HUGE * HUGE
            at = self.add_vma(task, at, 512, criuimg.MAP_PRIVATE | criuimg.MAP_ANON
                              | criuimg.MAP_HUGETLB | 21 << 26)
        if f["guard"]:
            start, at = at, self.add_vma(task, at, 16)
            guard = Vma(start + 4 * PAGE, 2, criuimg.MAP_PRIVATE | criuimg.MAP_ANON, 0)
            guard.status = criuimg.VMA_GUARD
            task.guards.append(guard)
            for addr in range(guard.start, guard.end, PAGE):
                task.memory.pop(addr, None)
        at = self.add_vma(task, 0x7ffe00000000 - 64 * PAGE, 64, criuimg.MAP_PRIVATE
                          | criuimg.MAP_ANON | criuimg.MAP_GROWSDOWN,
                          criuimg.VMA_STACK | criuimg.VMA_ANON_PRIVATE, .1) \
            if not any(v.status & criuimg.VMA_STACK for v in task.vmas) else at
        return task

    def diverge(self, task):
        """After a fork: some of the pages are written or dropped, one by one or in runs."""
        rng = self.rng
        places = sorted(task.memory)
        share, run = rng.choice([(.25, 1), (.02, 1), (.2, 40)])
        for first in rng.sample(range(len(places)), int(len(places) * share / run)):
            drop = rng.random() < .3
            for addr in places[first:first + run]:
                task.memory.pop(addr, None)
                if not drop:
                    task.memory[addr] = self.content.pages(1)[0]

    def make_shmem(self, i):
        rng = self.rng
        nr = rng.randrange(1, max(2, self.f["pages"] // 4))
        shmem = Shmem(rng.choice([1, 5, 4100, 1 << 33]) + 10 * i, nr)
        pages = self.content.pages(nr)
        shmem.memory = {k * PAGE: pages[k] for k in range(nr) if rng.random() < .8}
        if self.tasks:
            kind = rng.choice([criuimg.VMA_ANON_SHARED, criuimg.VMA_SYSVIPC, criuimg.VMA_MEMFD])
            task = rng.choice(self.tasks)
            start = 0x600000000000 + i * (nr + 64) * PAGE + shmem.shmid % 512 * PAGE
            task.vmas.append(Vma(start, nr, criuimg.MAP_SHARED | criuimg.MAP_ANON,
                                 criuimg.VMA_REGULAR | kind, shmem.shmid))
        return shmem

    def run(self):
        """Time passes: pages change, come and go. Those of a device only change."""
        for gpu in self.gpus:
            for addr in self.rng.sample(sorted(gpu.memory), min(len(gpu.memory), 5)):
                gpu.memory[addr] = self.content.pages(1)[0]
        for amd in self.amds:
            for pages in [pages for objects in amd.memory.values() for pages in objects][:2]:
                pages[-1] = self.content.pages(1)[0]
        for owner in self.tasks + self.shmems:
            holes = self.rng.choice([0, .05])
            for addr in sorted(owner.memory):
                luck = self.rng.random()
                if luck < holes:
                    del owner.memory[addr]
                elif luck < .2:
                    owner.memory[addr] = self.content.pages(1)[0]
            if isinstance(owner, Shmem):
                places = [k * PAGE for k in range(owner.nr_pages)]
            else:
                guarded = {a for g in owner.guards for a in range(g.start, g.end, PAGE)}
                places = [a for v in owner.vmas if not v.flags & criuimg.MAP_SHARED
                          for a in range(v.start, v.end, PAGE) if a not in guarded]
            for addr in self.rng.sample(places, min(len(places), 5)):
                owner.memory[addr] = self.content.pages(1)[0]


# ---- dumping ------------------------------------------------------------------------------------

def runs_of(rng, memory, before):
    """(address, nr_pages, flags) runs; before: what the dump before this one holds, or None."""
    runs = []
    for addr in sorted(memory):
        flags = PE_PRESENT
        if before is not None and before.get(addr) == memory[addr]:
            flags = PE_PARENT
        elif rng.random() < .02:
            flags |= PE_LAZY
        last = runs[-1] if runs else None
        if last and last[2] == flags and last[0] + last[1] * PAGE == addr and rng.random() < .99:
            last[1] += 1
        else:
            runs.append([addr, 1, flags])
    return runs


def write(path, data):
    with open(path, "xb") as f:
        f.write(data)


def put_sparse(path, pages):
    """A hole for each page of zeros."""
    with open(path, "xb") as f:
        for i, page in enumerate(pages):
            if page.strip(b"\0"):
                f.seek(i * PAGE)
                f.write(page)
        f.truncate(len(pages) * PAGE)


def dump(world, out, before, first_pages_id):
    """One dump of world into the new directory out; before: {(kind, id): memory} or None."""
    rng, form = world.rng, world.f["form"]
    os.mkdir(out)

    def put(name, data):
        write(os.path.join(out, name), data)

    put("inventory.img", image("inventory", [encode([(1, 2), (2, 1), (4, 1), (5, 1), (6, 0)])]))
    put("pstree.img", image("pstree", [
        encode([(1, t.pid), (2, t.parent.pid if t.parent else 0), (3, t.pid), (4, t.pid),
                (5, t.pid)]) for t in world.tasks]))
    memories, pages_id = {}, first_pages_id
    owners = [((1, t.pid), t.memory) for t in world.tasks]
    owners += [((2, s.shmid), s.memory) for s in world.shmems]
    for (kind, ident), memory in owners:
        prior = None if before is None else before.get((kind, ident))
        runs = runs_of(rng, memory, prior)
        put("pagemap-%s%d.img" % ("shmem-" if kind == 2 else "", ident),
            criuimg.pagemap(pages_id, runs, form))
        put("pages-%d.img" % pages_id, b"".join(
            memory[a + i * PAGE] for a, n, flags in runs if flags & PE_PRESENT
            for i in range(n)))
        memories[kind, ident] = dict(memory)
        pages_id += 1
    for gpu in world.gpus:
        put(gpuimg.table_name(gpu.pid).decode(), gpu.table())
        put_sparse(os.path.join(out, gpuimg.pages_name(gpu.pid).decode()),
                   [gpu.memory[addr] for addr in sorted(gpu.memory)])
        memories[3, gpu.pid] = dict(gpu.memory)
    for amd in world.amds:
        put_amd(put, amd, memories)
    for node in world.renders:
        node.put(put, memories)
    for t in world.tasks:
        mm = [(i, 0) for i in range(1, 13)] + [(13, 6), (13, PAGE)]
        mm += [(14, v.message()) for v in sorted(t.vmas, key=lambda v: v.start) + t.guards]
        put("mm-%d.img" % t.pid, image("mm", [encode(mm)]))
        core = encode([(1, 1), (3, encode([(1, 1), (2, 0), (3, 0), (4, 0), (5, 0),
                                           (6, "task-%d" % t.pid)]))])
        put("core-%d.img" % t.pid, image("core", [core]))
        put("ids-%d.img" % t.pid, image("ids", [encode([(1, t.pid), (2, 1), (3, 1), (4, 1)])]))
    if before is not None:
        os.symlink("../%d" % (int(os.path.basename(out)) - 1), os.path.join(out, "parent"))
    if world.f["unknown"]:
        put_unknown(rng, out)
    if world.f["meta"]:
        put_meta(rng, out)
    return memories, pages_id


def put_amd(put, amd, memories):
    put(amdimg.table_name(amd.ident).decode(), amd.table())
    for gpu, objects in amd.memory.items():
        put(amdimg.pages_name(amd.ident, gpu).decode(),
            amdimg.sized(b"".join(page for pages in objects for page in pages)))
        put("amdgpu-renderD-%d.img" % (amd.ident + 1 + amd.gpus.index(gpu)),
            amdimg.render_node(gpu))
        if objects:
            memories[3, amdimg.target_id(amd.ident, gpu)] = amd.places(gpu)


def put_unknown(rng, out):
    """Files that no converter knows, among them some with names close to those it does."""
    for name in rng.sample(["stats-dump", "descriptors.json", "dump.log", "pages-999.img",
                            "pages-1.img.bak", "pagemap-.img", "pagemap-12x.img", "pages-.img",
                            ".hidden", "a b\nc", "tmpfs-dev-1.tar.gz.img", "x" * 255,
                            "\u00fcmlaut", "pagemap-shmem-.img", "ckfast", "CKFAST.IDX"], 5):
        write(os.path.join(out, name), rng.randbytes(rng.choice([0, 1, 100, 5000, 70000])))
    os.symlink("/nowhere/" + "y" * rng.choice([1, 200, 4000]), os.path.join(out, "dangling"))
    # A file in which a page-sized hole and a tail are to be kept as they are.
    write(os.path.join(out, "ghost-file-1.img"), b"g" * 5 + bytes(9000) + b"tail")


def put_meta(rng, out):
    """Modes, owners and times as no dump has them."""
    for name in sorted(os.listdir(out)):
        path = os.path.join(out, name)
        if os.geteuid() == 0:
            os.chown(path, rng.choice([0, 1, 65534, 4000000]), rng.choice([0, 5, 1 << 20]),
                     follow_symlinks=False)
        when = rng.choice([0, 1, 10 ** 18 + 123456789, -10 ** 9 + 7, 17 * 10 ** 17 + 999999999])
        os.utime(path, ns=(when, when), follow_symlinks=False)
        if not os.path.islink(path):
            modes = [0o600, 0o644, 0o400, 0o4711, 0o1777, 0o000 if os.geteuid() == 0 else 0o444]
            os.chmod(path, rng.choice(modes))


def make(seed, out, options=None):
    """Dumps and truth below the new directory out; returns the truth."""
    world = World(seed, options or {})
    os.mkdir(out)
    memories, pages_id = None, 1
    for level in range(max(1, world.f["levels"])):
        if level:
            world.run()
        memories, _ = dump(world, os.path.join(out, str(level)), memories, pages_id)
    truth = {"seed": seed, "features": world.f, "dump": str(level), "targets": []}
    with open(os.path.join(out, "truth.bin"), "xb") as f:
        for (kind, ident), memory in sorted(memories.items()):
            runs = []
            for addr in sorted(memory):
                if runs and runs[-1][0] + runs[-1][1] * PAGE == addr:
                    runs[-1][1] += 1
                else:
                    runs.append([addr, 1, f.tell()])
                f.write(memory[addr])
            truth["targets"].append({"kind": kind, "id": ident, "runs": runs})
    with open(os.path.join(out, "truth.json"), "x", encoding="utf-8") as f:
        json.dump(truth, f)
    return truth


# ---- bad dumps ----------------------------------------------------------------------------------

def base_dump(out, levels=1):
    """A small good dump with one task of 12 pages; returns (dump, pagemap, pages) paths."""
    make(7, out, {"tasks": 1, "pages": 12, "levels": levels, "form": "4.2", "shmem": 0,
                  "hugetlb": 0, "guard": 0, "fragmented": 0, "cow": 0, "huge": 0, "unknown": 0,
                  "meta": 0, "content": "random", "gpu": 0, "amd": 0, "render": 0})
    name = str(levels - 1)
    top = os.path.join(out, name)
    pagemap = next(n for n in sorted(os.listdir(top)) if n.startswith("pagemap-"))
    os.rename(top, os.path.join(out, "dump"))
    top = os.path.join(out, "dump")
    return top, os.path.join(top, pagemap), os.path.join(top, "pages-1.img")


def rewrite(path, data):
    with open(path, "wb") as f:
        f.write(data)


def contents(path):
    with open(path, "rb") as f:
        return f.read()


def bad_runs(change):
    """A bad dump whose pagemap runs are what change makes of the good ones."""
    def make_bad(out):
        _, pagemap, _ = base_dump(out)
        pages_id, runs = criuimg.parse_pagemap(contents(pagemap))
        rewrite(pagemap, criuimg.pagemap(pages_id, change(runs)))
    return make_bad


def bad_pagemap(change):
    """A bad dump whose pagemap is what change makes of the bytes of the good one."""
    def make_bad(out):
        _, pagemap, _ = base_dump(out)
        rewrite(pagemap, change(contents(pagemap)))
    return make_bad


def records(data):
    """The messages of an image file with two magics."""
    pos, out = 8, []
    while pos < len(data):
        size = int.from_bytes(data[pos:pos + 4], "little")
        out.append(data[pos + 4:pos + 4 + size])
        pos += 4 + size
    return out


def pages_short(out):
    """the pages file ends before the pagemap does"""
    pages = base_dump(out)[2]
    os.truncate(pages, os.path.getsize(pages) - PAGE)


def pages_cut(out):
    """the pages file ends in the middle of a page"""
    pages = base_dump(out)[2]
    os.truncate(pages, os.path.getsize(pages) - 100)


def pages_missing(out):
    """the pages file that the pagemap names is not there"""
    os.unlink(base_dump(out)[2])


def pages_fifo(out):
    pages = base_dump(out)[2]
    os.unlink(pages)
    os.mkfifo(pages)


def img_symlink(out):
    """links to the pages and to an image that convert does not read"""
    top, _, pages = base_dump(out)
    for path, target in ((pages, "elsewhere"), (os.path.join(top, "ids-1.img"), "ids")):
        os.rename(path, os.path.join(out, target))
        os.symlink("../" + target, path)


def pages_directory(out):
    pages = base_dump(out)[2]
    os.unlink(pages)
    os.mkdir(pages)


def no_pagemap(out):
    """a dump of no process"""
    make(7, out, {"tasks": 0, "shmem": 0, "levels": 1, "gpu": 0, "amd": 0, "render": 0})
    os.rename(os.path.join(out, "0"), os.path.join(out, "dump"))


def inventory_directory(out):
    inventory = os.path.join(base_dump(out)[0], "inventory.img")
    os.unlink(inventory)
    os.mkdir(inventory)


def pagemap_fifo(out):
    pagemap = base_dump(out)[1]
    os.unlink(pagemap)
    os.mkfifo(pagemap)


def pagemap_directory(out):
    pagemap = base_dump(out)[1]
    os.unlink(pagemap)
    os.mkdir(pagemap)


def unknown_fifo(out):
    os.mkfifo(os.path.join(base_dump(out)[0], "some"))


def image_fifo(out):
    os.mkfifo(os.path.join(base_dump(out)[0], "files.img"))


def image_directory(out):
    os.mkdir(os.path.join(base_dump(out)[0], "fs-1.img"))


def subdirectory(out):
    os.mkdir(os.path.join(base_dump(out)[0], "subdir"))


def socket_file(out):
    os.mknod(os.path.join(base_dump(out)[0], "socket"), 0o140600)


def holds_idx(out):
    write(os.path.join(base_dump(out)[0], "ckfast.idx"), b"x")


def holds_pack(out):
    write(os.path.join(base_dump(out)[0], "ckfast.pack"), b"x")


def in_parent_no_link(out):
    """pages in a parent dump, and no parent link"""
    os.unlink(os.path.join(base_dump(out, levels=2)[0], "parent"))


def in_parent_dangling(out):
    """the parent link leads nowhere"""
    link = os.path.join(base_dump(out, levels=2)[0], "parent")
    os.unlink(link)
    os.symlink("../gone", link)


def parent_loop(out):
    """the parent dump is the dump itself"""
    link = os.path.join(base_dump(out, levels=2)[0], "parent")
    os.unlink(link)
    os.symlink(".", link)


def parent_loop_two(out):
    """two dumps that are each other's parent, with a page in neither"""
    top, pagemap, _ = base_dump(out, levels=2)
    os.symlink("../dump", os.path.join(out, "0", "parent"))
    for path in (pagemap, os.path.join(out, "0", os.path.basename(pagemap))):
        pages_id, runs = criuimg.parse_pagemap(contents(path))
        runs.append((0x7fff00000000, 1, PE_PARENT))
        rewrite(path, criuimg.pagemap(pages_id, runs))


def in_parent_hole(out):
    """a page that is said to be in the parent dump, which has none there"""
    _, pagemap, _ = base_dump(out, levels=2)
    pages_id, runs = criuimg.parse_pagemap(contents(pagemap))
    runs.append((0x7fff00000000, 1, PE_PARENT))
    rewrite(pagemap, criuimg.pagemap(pages_id, runs))


def parent_pages_short(out):
    """the parent's pages file ends before the pages that are wanted from it"""
    base_dump(out, levels=2)
    os.truncate(os.path.join(out, "0", "pages-1.img"), 0)


def gpu_base(out):
    """A small good dump with device memory; returns (dump, table, pages) paths."""
    top = base_dump(out)[0]
    table, pages = (os.path.join(top, n(5).decode()) for n in (gpuimg.table_name,
                                                               gpuimg.pages_name))
    write(table, gpuimg.pack(5, [gpuimg.device(0)], [(HUGE, HUGE, 0, 0, 0)]))
    put_sparse(pages, [b"x" * PAGE] + [bytes(PAGE)] * 511)
    return top, table, pages


def gpu_case(change):
    """A bad dump that change(dump, table, pages) makes of a good one."""
    def make_bad(out):
        change(*gpu_base(out))
    return make_bad


def gpu_table(**fields):
    return gpu_case(lambda top, table, pages: rewrite(table, gpuimg.pack(
        5, [gpuimg.device(0)], [(HUGE, HUGE, 0, 0, 0)], **fields)))


AMD_GPU, AMD_OTHER = 0x1a, 0xbeef
AMD_OBJECTS = [(AMD_GPU, HUGE), (AMD_OTHER, PAGE), (AMD_GPU, 3 * PAGE)]


def amd_message(**changes):
    """A good message, but for changes: devices, objects, counts."""
    devices = changes.pop("devices", [amdimg.device(g) for g in (0, AMD_GPU, AMD_OTHER)])
    objects = changes.pop("objects", [amdimg.obj(g, n) for g, n in AMD_OBJECTS])
    return amdimg.message(1, devices, objects, **changes)


def amd_base(out):
    """A small good dump with two AMD GPUs; returns (dump, table, pages of the first GPU) paths."""
    top = base_dump(out)[0]
    table = os.path.join(top, amdimg.table_name(7).decode())
    write(table, amdimg.sized(amd_message()))
    for gpu in (AMD_OTHER, AMD_GPU):
        pages = os.path.join(top, amdimg.pages_name(7, gpu).decode())
        write(pages, amdimg.sized(b"".join(b"x" * PAGE + bytes(n - PAGE)
                                           for g, n in AMD_OBJECTS if g == gpu)))
    return top, table, pages


def amd_case(change):
    """A dump that change(dump, table, pages) makes of a good one with AMD GPUs."""
    def make_case(out):
        change(*amd_base(out))
    return make_case


def amd_table(**changes):
    return amd_case(lambda top, table, pages: rewrite(table, amdimg.sized(amd_message(**changes))))


def amd_objects(*objects):
    """The objects of the good table, and these."""
    return amd_table(objects=[amdimg.obj(g, n) for g, n in AMD_OBJECTS] + list(objects))


RENDER_GPU, RENDER_MINOR, M64 = 0x1a, 128, (1 << 64) - 1
RENDER_SIZES = [HUGE, PAGE, 3 * PAGE]


def render_base(out):
    """A small good dump with a render node; returns (dump, table, contents of object 0) paths."""
    top = base_dump(out)[0]
    table = os.path.join(top, amdimg.render_name(9).decode())
    write(table, amdimg.render_table(RENDER_GPU, 9, RENDER_MINOR, RENDER_SIZES))
    names = [os.path.join(top, amdimg.render_pages_name(9, RENDER_MINOR, n).decode())
             for n in range(len(RENDER_SIZES))]
    for name, size in zip(names, RENDER_SIZES):
        write(name, amdimg.sized(b"x" * PAGE + bytes(size - PAGE)))
    return top, table, names[0]


def render_case(change):
    """A dump that change(dump, table, pages) makes of a good one with a render node."""
    def make_case(out):
        change(*render_base(out))
    return make_case


def render_table(gpu=RENDER_GPU, ident=9, minor=RENDER_MINOR, objects=None, **more):
    objects = [amdimg.render_obj(n) for n in RENDER_SIZES] if objects is None else objects
    message = amdimg.render_message(gpu, ident, minor, objects, **more)
    return render_case(lambda top, table, pages: rewrite(table, amdimg.sized(message)))


def packed_base(out, block_pages=1, levels=1):
    """A small good dump with compressed pages; returns (dump, pagemap, pages) paths."""
    make(7, out, {"tasks": 1, "pages": 60, "levels": levels, "form": "4.2", "shmem": 0,
                  "hugetlb": 0, "guard": 0, "fragmented": 0, "cow": 0, "huge": 0, "unknown": 0,
                  "meta": 0, "content": "text", "gpu": 0, "amd": 0, "render": 0})
    for level in range(levels):
        packimg.pack_dump(os.path.join(out, str(level)), block_pages)
    top = os.path.join(out, "dump")
    os.rename(os.path.join(out, str(levels - 1)), top)
    pagemap = next(n for n in sorted(os.listdir(top)) if n.startswith("pagemap-"))
    pages_id, _ = criuimg.parse_pagemap(contents(os.path.join(top, pagemap)))
    return top, os.path.join(top, pagemap), os.path.join(top, "pages-%d.img" % pages_id)


def packed_fields(change, **base):
    """A bad dump: change() gets the fields of its longest compressed entry, and of its blocks."""
    def make_bad(out):
        _, pagemap, _ = packed_base(out, **base)
        messages = records(contents(pagemap))
        i = max((i for i, m in enumerate(messages) if i and 6 in criuimg.decode(m)),
                key=lambda i: len(messages[i]))
        fields = criuimg.decode(messages[i])
        blocks = packimg.parse_blocks(fields.pop(6)[0])
        fields = {n: values[-1] for n, values in fields.items()}
        fields[6] = change(fields, **blocks)
        messages[i] = encode([(n, v) for n, v in sorted(fields.items()) if v is not None])
        rewrite(pagemap, image("pagemap", messages))
    return make_bad


def packed_sizes(change, **base):
    return packed_fields(lambda fields, sizes, **others: packimg.blocks_field(
        change(sizes), others["block_pages"]), **base)


def packed_pages(change, level=None, **base):
    """A bad dump whose compressed pages are what change makes of them."""
    def make_bad(out):
        _, _, pages = packed_base(out, **base)
        if level is not None:
            pages = os.path.join(out, str(level), "pages-1.img")
        rewrite(pages, change(contents(pages)))
    return make_bad


def packed_block(change, **base):
    """The first block that is compressed becomes another one, and its size with it."""
    def make_bad(out):
        _, pagemap, pages = packed_base(out, **base)
        messages = records(contents(pagemap))
        data, at = contents(pages), 0
        for i, message in enumerate(messages[1:], 1):
            fields = criuimg.decode(message)
            flags = fields[4][-1]
            if flags & packimg.PE_ALIGNED:
                at += -at % PAGE
            if 6 not in fields:
                at += fields[5][-1] * PAGE if flags & PE_PRESENT else 0
                continue
            blocks = packimg.parse_blocks(fields[6][0])
            sizes, block_pages = blocks["sizes"], blocks["block_pages"]
            for k, size in enumerate(sizes):
                if 0 < size < PAGE:
                    break
                at += size
            else:
                continue
            new = change(data[at:at + size])
            sizes[k] = len(new)
            fields[6] = [packimg.blocks_field(sizes, block_pages)]
            messages[i] = encode([(n, v[-1]) for n, v in sorted(fields.items())])
            rewrite(pages, data[:at] + new + data[at + size:])
            rewrite(pagemap, image("pagemap", messages))
            return
        raise AssertionError("no compressed block")
    return make_bad


def literals(data):
    """An LZ4 block of one sequence of literals."""
    length, out = len(data), bytearray()
    out.append(min(length, 15) << 4)
    length -= 15
    while length >= 0:
        out.append(min(length, 255))
        length -= 255
    return bytes(out) + data


def zeros_block(size):
    """An LZ4 block that decodes to size zeros, size > 20: one literal, a match, five literals."""
    length, out = size - 6 - 4 - 15, bytearray(b"\x1f\0\1\0")
    while length >= 0:
        out.append(min(length, 255))
        length -= 255
    return bytes(out) + b"\x50" + bytes(5)


def first(runs, **changes):
    """runs with the first one changed: vaddr, nr, flags."""
    vaddr, nr, flags = runs[0]
    return [(changes.get("vaddr", vaddr), changes.get("nr", nr), changes.get("flags", flags))
            ] + runs[1:]


NO_ID = encode([(2, 5)])
BAD = {
    "pages-short": pages_short, "pages-cut": pages_cut, "pages-missing": pages_missing,
    "pages-fifo": pages_fifo, "pages-directory": pages_directory, "pagemap-fifo": pagemap_fifo,
    "pagemap-directory": pagemap_directory, "inventory-directory": inventory_directory,
    "image-fifo": image_fifo, "image-directory": image_directory,
    "no-pagemap": no_pagemap, "in-parent-no-link": in_parent_no_link,
    "in-parent-dangling": in_parent_dangling, "parent-loop": parent_loop,
    "parent-loop-two": parent_loop_two, "in-parent-hole": in_parent_hole,
    "parent-pages-short": parent_pages_short,
    "pagemap-empty": bad_pagemap(lambda d: b""),
    "pagemap-magic": bad_pagemap(lambda d: b"XXXX" + d[4:]),
    "pagemap-magic2": bad_pagemap(lambda d: d[:4] + b"XXXX" + d[8:]),
    "pagemap-no-head": bad_pagemap(lambda d: d[:8]),
    "pagemap-cut-record": bad_pagemap(lambda d: d[:-3]),
    "pagemap-cut-length": bad_pagemap(lambda d: d + b"\x05\0"),
    "pagemap-length-4g": bad_pagemap(lambda d: d + b"\xff\xff\xff\xff" + bytes(64)),
    "pagemap-garbage": bad_pagemap(lambda d: d + b"\x08\0\0\0" + b"\xff" * 8),
    "pages-id-missing": bad_pagemap(lambda d: image("pagemap", [NO_ID] + records(d)[1:])),
    "pages-id-absent": bad_pagemap(
        lambda d: image("pagemap", [encode([(1, 4242)])] + records(d)[1:])),
    "entry-no-vaddr": bad_pagemap(
        lambda d: image("pagemap", records(d) + [encode([(2, 0), (4, 4), (5, 1)])])),
    "runs-overlap": bad_runs(lambda r: r[:1] + [(r[0][0],) + r[1][1:]] + r[2:]),
    "runs-overlap-end": bad_runs(lambda r: r[:1] + [(r[0][0] + 2 * PAGE,) + r[1][1:]] + r[2:]),
    "runs-unsorted": bad_runs(lambda r: r[::-1]),
    "run-wraps": bad_runs(lambda r: [r[-1], ((1 << 64) - PAGE,) + r[0][1:]]),
    "run-at-top": bad_runs(lambda r: r[:-1] + [((1 << 64) - PAGE,) + r[-1][1:]]),
    "run-above-2-63": bad_runs(lambda r: r[:-1] + [(1 << 63,) + r[-1][1:]]),
    "run-unaligned": bad_runs(lambda r: first(r, vaddr=r[0][0] + 8)),
    "nr-pages-2-60": bad_runs(lambda r: first(r, nr=1 << 60)),
    "nr-pages-2-52": bad_runs(lambda r: first(r, nr=1 << 52)),
    "nr-pages-2-64": bad_runs(lambda r: first(r, nr=(1 << 64) - 1)),
    "gpu-pages-missing": gpu_case(lambda top, table, pages: os.unlink(pages)),
    "gpu-pages-short": gpu_case(lambda top, table, pages: os.truncate(pages, HUGE - PAGE)),
    "gpu-pages-long": gpu_case(lambda top, table, pages: os.truncate(pages, HUGE + PAGE)),
    "gpu-pages-cut": gpu_case(lambda top, table, pages: os.truncate(pages, HUGE - 1)),
    "gpu-pages-fifo": gpu_case(lambda top, table, pages: (os.unlink(pages), os.mkfifo(pages))),
    "gpu-table-missing": gpu_case(lambda top, table, pages: os.unlink(table)),
    "gpu-table-empty": gpu_case(lambda top, table, pages: rewrite(table, b"")),
    "gpu-table-fifo": gpu_case(lambda top, table, pages: (os.unlink(table), os.mkfifo(table))),
    "gpu-table-huge": gpu_case(lambda top, table, pages: os.truncate(table, 100 << 20)),
    "gpu-table-of-another": gpu_case(lambda top, table, pages: (
        os.rename(table, table.replace("-5.", "-6.")),
        os.rename(pages, pages.replace("-5.", "-6.")))),
    "gpu-table-version": gpu_table(major=3),
    "gpu-table-checksum": gpu_table(checksum=1),
    "gpu-table-4g-allocs": gpu_table(nr_allocs=0xffffffff),
    "gpu-import-no-owner": gpu_case(lambda top, table, pages: rewrite(table, gpuimg.pack(
        5, [gpuimg.device(0)], [(HUGE, HUGE, 0, 0, 0), (2 * HUGE, HUGE, 0, 6, 0, b"x" * 16)]))),
    "amd-table-empty": amd_case(lambda top, table, pages: rewrite(table, b"")),
    "amd-table-cut-head": amd_case(lambda top, table, pages: os.truncate(table, 7)),
    "amd-table-cut": amd_case(lambda top, table, pages: rewrite(table, contents(table)[:-1])),
    "amd-table-cut-message": amd_case(lambda top, table, pages: rewrite(
        table, amdimg.sized(amd_message()[:-1]))),
    "amd-table-2-64": amd_case(lambda top, table, pages: rewrite(
        table, b"\xff" * 8 + amd_message())),
    "amd-table-garbage": amd_case(lambda top, table, pages: rewrite(
        table, amdimg.sized(b"\xff" * 64))),
    "amd-table-no-fields": amd_case(lambda top, table, pages: rewrite(table, amdimg.sized(b""))),
    "amd-table-fifo": amd_case(lambda top, table, pages: (os.unlink(table), os.mkfifo(table))),
    "amd-gpus-more": amd_table(nr_gpus=3),
    "amd-gpus-4g": amd_table(nr_gpus=0xffffffff, nr_cpus=0xffffffff),
    "amd-gpus-as-cpus": amd_table(nr_gpus=1, nr_cpus=2),
    "amd-cpus-more": amd_table(nr_cpus=2),
    "amd-gpu-twice": amd_table(devices=[amdimg.device(g) for g in (AMD_GPU, AMD_OTHER, AMD_GPU)]),
    "amd-objects-more": amd_table(nr_objects=4),
    "amd-object-of-no-gpu": amd_objects(amdimg.obj(0x1b, PAGE)),
    "amd-object-of-a-cpu": amd_objects(amdimg.obj(0, PAGE)),
    "amd-doorbell-of-no-gpu": amd_objects(amdimg.obj(0x1b, PAGE, amdimg.DOORBELL)),
    "amd-object-empty": amd_objects(amdimg.obj(AMD_GPU, 0)),
    "amd-object-2-63": amd_objects(amdimg.obj(AMD_GPU, 1 << 63)),
    "amd-objects-wrap": amd_objects(*[amdimg.obj(AMD_GPU, 1 << 62)] * 4),
    "amd-object-more": amd_objects(amdimg.obj(AMD_OTHER, PAGE)),
    "amd-pages-missing": amd_case(lambda top, table, pages: os.unlink(pages)),
    "amd-pages-short": amd_case(lambda top, table, pages: os.truncate(pages, HUGE)),
    "amd-pages-no-head": amd_case(lambda top, table, pages: os.truncate(pages, 7)),
    "amd-pages-head": amd_case(lambda top, table, pages: rewrite(
        pages, bytes(8) + contents(pages)[8:])),
    "amd-pages-fifo": amd_case(lambda top, table, pages: (os.unlink(pages), os.mkfifo(pages))),
    "render-table-empty": render_case(lambda top, table, pages: rewrite(table, b"")),
    "render-table-cut-head": render_case(lambda top, table, pages: os.truncate(table, 7)),
    "render-table-cut": render_case(lambda top, table, pages: rewrite(
        table, contents(table)[:-1])),
    "render-table-cut-message": render_case(lambda top, table, pages: rewrite(
        table, amdimg.sized(contents(table)[8:-1]))),
    "render-table-2-64": render_case(lambda top, table, pages: rewrite(
        table, b"\xff" * 8 + contents(table)[8:])),
    "render-table-garbage": render_case(lambda top, table, pages: rewrite(
        table, amdimg.sized(b"\xff" * 64))),
    "render-table-no-fields": render_case(lambda top, table, pages: rewrite(
        table, amdimg.sized(b""))),
    "render-table-fifo": render_case(lambda top, table, pages: (
        os.unlink(table), os.mkfifo(table))),
    "render-gpu-0": render_table(gpu=0),
    "render-objects-more": render_table(count=4),
    "render-objects-2-63": render_table(count=1 << 63),
    "render-object-no-bytes": render_table(objects=[encode([(1, 5)])]),
    "render-pages-fifo": render_case(lambda top, table, pages: (
        os.unlink(pages), os.mkfifo(pages))),
    "packed-sizes-fewer": packed_sizes(lambda s: s[:-1]),
    "packed-sizes-more": packed_sizes(lambda s: s + [0]),
    "packed-sizes-none": packed_sizes(lambda s: []),
    "packed-sizes-fewer-region": packed_sizes(lambda s: s[:-1], block_pages=16),
    "packed-size-over": packed_sizes(lambda s: [PAGE + 1] + s[1:]),
    "packed-size-over-last": packed_sizes(lambda s: s[:-1] + [16 * PAGE], block_pages=16),
    "packed-size-4g": packed_sizes(lambda s: s[:-1] + [0xffffffff]),
    "packed-size-other": packed_sizes(lambda s: [s[0] - 1, s[1] + 1] + s[2:]),
    "packed-total": packed_fields(lambda f, sizes, block_pages, total: packimg.blocks_field(
        sizes, block_pages, total + 1)),
    "packed-total-2-64": packed_fields(lambda f, sizes, block_pages, total: packimg.blocks_field(
        sizes, block_pages, (1 << 64) - 1)),
    "packed-block-of-0": packed_fields(lambda f, sizes, block_pages, total: packimg.blocks_field(
        sizes, 0)),
    "packed-block-of-1025": packed_fields(lambda f, sizes, block_pages, total:
                                          packimg.blocks_field(sizes[:1], 1025)),
    "packed-block-of-4g": packed_fields(lambda f, sizes, block_pages, total: packimg.blocks_field(
        sizes[:1], 0xffffffff)),
    "packed-other-block": packed_fields(lambda f, sizes, block_pages, total: packimg.blocks_field(
        sizes, 2)),
    "packed-nr-pages": packed_fields(lambda f, sizes, block_pages, total: (
        f.update({5: 1 << 40}), packimg.blocks_field(sizes, block_pages))[1]),
    "packed-in-parent": packed_fields(lambda f, sizes, block_pages, total: (
        f.update({4: PE_PARENT}), packimg.blocks_field(sizes, block_pages))[1], levels=2),
    "packed-not-blocks": packed_fields(lambda f, **blocks: b"\xff" * 9),
    "packed-number": packed_fields(lambda f, **blocks: 5),
    "packed-no-total": packed_fields(lambda f, sizes, block_pages, total: encode(
        [(1, b"".join(map(criuimg.varint, sizes))), (3, block_pages)])),
    "packed-newer": packed_fields(lambda f, sizes, block_pages, total: packimg.blocks_field(
        sizes, block_pages, extra=[(4, 1)])),
    "packed-newer-entry": packed_fields(lambda f, sizes, block_pages, total: (
        f.update({7: 1}), packimg.blocks_field(sizes, block_pages))[1]),
    "packed-plain": packed_fields(lambda f, **blocks: None),
    "packed-aligned": packed_fields(lambda f, sizes, block_pages, total: (
        f.update({4: f[4] | packimg.PE_ALIGNED}), packimg.blocks_field(sizes, block_pages))[1],
                                    levels=1),
    "packed-short": packed_pages(lambda d: d[:-1]),
    "packed-long": packed_pages(lambda d: d + b"x"),
    "packed-longer": packed_pages(lambda d: d + bytes(PAGE)),
    "packed-empty": packed_pages(lambda d: b""),
    "packed-garbage": packed_pages(lambda d: b"\xff" * len(d)),
    "packed-garbage-region": packed_pages(lambda d: b"\xff" * len(d), block_pages=16),
    "packed-parent-garbage": packed_pages(lambda d: b"\xff" * len(d), level=0, levels=2),
    "packed-parent-short": packed_pages(lambda d: d[:100], level=0, levels=2),
    "packed-block-short": packed_block(lambda b: zeros_block(PAGE - 1)),
    "packed-block-long": packed_block(lambda b: zeros_block(PAGE + 1)),
    "packed-block-huge": packed_block(lambda b: zeros_block(800000)),
    "packed-block-literals": packed_block(lambda b: literals(bytes(100))),
    "packed-block-cut": packed_block(lambda b: b[:-1]),
    "packed-block-behind": packed_block(lambda b: b + b"\0"),
    "packed-block-match": packed_block(lambda b: b"\x1fx\xff\xff" + b[4:]),
    "lazy-no-data": bad_runs(lambda r: r[:-1] + [(r[-1][0], r[-1][1], PE_LAZY)]),
}

# Dumps with entries that no image can hold as they are, and the names of these, which convert tells
# of. The task's pid is 1, that of the device memory 5.
KEPT = "kept as it is"
FOLLOWED, STALE = "is a symbolic link: the file that it leads to is taken", "is stale"


def kept_table(why):
    return [("the memory of GPUs", "is %s: unsupported amdgpu-kfd-7.img at 0: %s" % (KEPT, why))]


def kept_render(why):
    return [("the buffer objects of a render node",
             "are kept as they are: unsupported amdgpu-renderD-9.img%s" % why)]


def kept_files(nr):
    return [("files of contents that are not as long as",
             "amdgpu-renderD-9.img says: %d, kept as they are" % nr)]


ODD = {
    "unknown-fifo": (unknown_fifo, [("some", "is a FIFO: left out")]),
    "subdirectory": (subdirectory, [("subdir", "is a directory: left out")]),
    "socket": (socket_file, [("socket", "is a socket: left out")]),
    "img-symlink": (img_symlink, [("ids-1.img", FOLLOWED), ("pages-1.img", FOLLOWED)]),
    "gpu-pages-symlink": (gpu_case(lambda top, table, pages: (
        os.rename(pages, top + "/../elsewhere"), os.symlink("../elsewhere", pages))),
        [("ckfast-gpu-pages-5.img", FOLLOWED)]),
    "gpu-table-symlink": (gpu_case(lambda top, table, pages: (
        os.rename(table, top + "/../elsewhere"), os.symlink("../elsewhere", table))),
        [("ckfast-gpu-5.img", FOLLOWED)]),
    "amd-pages-symlink": (amd_case(lambda top, table, pages: (
        os.rename(pages, top + "/../elsewhere"), os.symlink("../elsewhere", pages))),
        [("amdgpu-pages-7-001a.img", FOLLOWED)]),
    "amd-same-address": (amd_table(), []),
    "amd-pages-long": (amd_case(lambda top, table, pages: os.truncate(pages, 2 * HUGE)),
                       [("amdgpu-pages-7-001a.img", "is longer than its head says: " + KEPT)]),
    "amd-table-long": (amd_case(lambda top, table, pages: rewrite(
        table, contents(table) + b"behind")), []),
    "amd-gpus-fewer": (amd_table(nr_cpus=0), kept_table("devices, got a count of 2, want 3")),
    "amd-object-odd": (amd_case(lambda top, table, pages: (
        rewrite(table, amdimg.sized(amd_message(objects=[amdimg.obj(AMD_GPU, 100)]))),
        rewrite(pages, amdimg.sized(bytes(100))))),
                       kept_table("object 0, got 100 bytes, want whole pages")),
    "amd-65-gpus": (amd_case(lambda top, table, pages: rewrite(table, amdimg.sized(amd_message(
        devices=[amdimg.device(g) for g in range(1, 66)], objects=[])))),
                    kept_table("GPUs, got 65, want at most 64")),
    "amd-table-huge": (amd_case(lambda top, table, pages: rewrite(table, amdimg.sized(
        amd_message() + encode([(10, bytes(65 << 20))])))),
                       kept_table("a record of 68157835 bytes")),
    "amd-name": (amd_case(lambda top, table, pages: os.rename(
        table, table.replace("-7.img", "-07.img"))), []),
    "render-good": (render_case(lambda top, table, pages: None), []),
    "render-pages-symlink": (render_case(lambda top, table, pages: (
        os.rename(pages, top + "/../elsewhere"), os.symlink("../elsewhere", pages))),
        [("amdgpu-drm-pages-9-128-0000.img", FOLLOWED)]),
    "render-pages-missing": (render_case(lambda top, table, pages: os.unlink(pages)), []),
    "render-pages-short": (render_case(lambda top, table, pages: os.truncate(pages, HUGE)),
                           kept_files(1)),
    "render-pages-long": (render_case(lambda top, table, pages: os.truncate(pages, HUGE + 9)),
                          kept_files(1)),
    "render-pages-no-head": (render_case(lambda top, table, pages: os.truncate(pages, 7)),
                             kept_files(1)),
    "render-pages-head": (render_case(lambda top, table, pages: rewrite(
        pages, b"\xff" * 8 + contents(pages)[8:])), []),
    "render-table-long": (render_case(lambda top, table, pages: rewrite(
        table, contents(table) + b"behind")), []),
    "render-only-gpu": (render_case(lambda top, table, pages: rewrite(
        table, amdimg.render_node(RENDER_GPU))), []),
    "render-file-other": (render_table(ident=8), kept_render(" at 0: file, got 8, want 9")),
    "render-minor-2-31": (render_table(minor=1 << 31), kept_render(
        " at 0: minor, got 2147483648, want at most 2147483647")),
    "render-minor-other": (render_table(minor=129), []),
    "render-objects-fewer": (render_table(count=2),
                             kept_render(" at 0: objects, got a count of 2, want 3")),
    "render-no-minor": (render_case(lambda top, table, pages: rewrite(table, amdimg.sized(encode(
        [(1, RENDER_GPU), (2, 9), (4, 1), (5, amdimg.render_obj(HUGE))])))),
                        kept_render(" at 0: objects without a node")),
    "render-objects-odd": (render_table(objects=[amdimg.render_obj(n) for n in (0, 100, M64)]),
                           kept_files(3)),
    "render-table-huge": (render_case(lambda top, table, pages: rewrite(table, amdimg.sized(
        contents(table)[8:] + encode([(10, bytes(65 << 20))])))),
                          kept_render(" at 0: a record of 68157605 bytes")),
    "render-kfd": (render_case(lambda top, table, pages: write(
        os.path.join(top, amdimg.table_name(9).decode()),
        amdimg.table(1, [amdimg.device(0), amdimg.device(AMD_GPU)], []))
        or write(os.path.join(top, amdimg.pages_name(9, AMD_GPU).decode()), amdimg.sized(b""))),
        kept_render(": file 9 is /dev/kfd, too")),
    "render-dmabuf": (render_case(lambda top, table, pages: write(
        os.path.join(top, "amdgpu-dmabuf_11.img"), amdimg.sized(encode([(1, 3)])))), []),
    "holds-idx": (holds_idx, [("ckfast.idx", STALE)]),
    "holds-pack": (holds_pack, [("ckfast.pack", STALE)]),
}


def make_bad(name, out):
    """The bad dump called name as OUT/dump; things beside it may belong to it."""
    BAD[name](out)


def main(argv):
    if argv[1:] == ["bad-list"]:
        print("\n".join(BAD))
    elif len(argv) == 4 and argv[1] == "bad" and argv[2] in BAD:
        make_bad(argv[2], argv[3])
    elif len(argv) >= 3 and argv[1].isdigit():
        options = dict(a.split("=", 1) for a in argv[3:])
        truth = make(int(argv[1]), argv[2], options)
        print("seed %d: %s" % (truth["seed"], truth["features"]))
    else:
        print(__doc__, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))

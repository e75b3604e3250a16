#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""
A small writer of fast images, from SPEC.md alone: it makes the images that the reader and the
mutators are tested with, and the golden image.

Model is an image as plain lists that can be changed at will; Model.save() lays it out, and sets
every length, offset, checksum and id, so that a changed model is a well-checksummed image whose
only fault is the change. Faults below that level (a bad offset, a wrong checksum) are made by the
hooks of Layout. Model.load() takes an image from disk.

    ckwrite.py golden OUT       the golden image of version 1.0
    ckwrite.py random SEED OUT  a small valid image, different for each seed
"""
import collections
import os
import random
import struct
import sys

sys.dont_write_bytecode = True

import lz4.block
import zstandard

import amdimg
import ckread
import criuimg
import gpuimg
from ckread import (BASE, CHUNK, FILE, HEADER, HUGE_RANGE, IDX, LANE, OP, PACK, PACK_HEADER, PAGE,
                    REF, SECTION, TARGET, ZERO, RAW, LZ4, ZSTD, BF16, INCOMPAT, INCOMPAT_BASES,
                    INCOMPAT_DEVICES, INCOMPAT_PACKED, INCOMPAT_PAGE_SUMS, INCOMPAT_SIZED_PAGES,
                    INCOMPAT_HEADED_PAGES, INCOMPAT_CUT_PAGES, page_sum, round64, xxh64, xxh128)

M64 = (1 << 64) - 1


class Row:
    """A table entry whose fields can be assigned; fields are in the order of SPEC.md."""
    fields, struct = (), None

    def __init__(self, *values, **named):
        for name, value in zip(self.fields, values):
            setattr(self, name, value)
        for name, value in named.items():
            assert name in self.fields
            setattr(self, name, value)

    def pack(self):
        return self.struct.pack(*(getattr(self, f) for f in self.fields))

    def copy(self, **changes):
        row = type(self)(*(getattr(self, f) for f in self.fields))
        for name, value in changes.items():
            setattr(row, name, value)
        return row


class Chunk(Row):
    struct = CHUNK
    fields = ("pack_off", "stored_bytes", "nr_pages", "codec", "base", "checksum")


class Ref(Row):
    struct = REF
    fields = ("chunk",)


class File(Row):
    struct = FILE
    fields = ("size_bytes", "checksum", "mtime_sec", "mtime_nsec", "mode", "uid", "gid",
              "name_off", "first_ref", "nr_refs", "target_off", "name_len", "target_len", "kind",
              "reserved")


class Target(Row):
    struct = TARGET
    fields = ("id", "nr_pages", "first_op", "nr_ops", "first_lane", "nr_lanes", "kind", "file",
              "parent", "reserved")


class Op(Row):
    struct = OP
    fields = ("place", "chunk", "first_page", "nr_pages")


class Lane(Row):
    struct = LANE
    fields = ("first_op", "nr_ops", "read_bytes", "fill_bytes", "target", "reserved")


class Huge(Row):
    struct = HUGE_RANGE
    fields = ("address", "nr_huge", "target")


class Base(Row):
    struct = BASE
    fields = ("image_id", "pack_bytes", "path_off", "extent_bytes", "path_len", "reserved")


class Section:
    """One entry of the section table with its bytes; None means: as it should be."""

    def __init__(self, kind, entry_bytes, data):
        self.kind, self.entry_bytes, self.data = kind, entry_bytes, data
        self.offset = self.count = self.checksum = None


class Layout:
    """
    ckfast.idx below the level of tables. header holds fields by name; what is None is computed.
    pad(i, n) gives the n bytes of padding before section i.
    """
    names = ("magic", "major", "minor", "header_bytes", "idx_bytes", "incompat", "compat",
             "image_id", "pack_bytes", "page_bytes", "extent_bytes", "nr_sections",
             "max_chunk_pages", "reserved", "checksum")

    def __init__(self, header, sections):
        self.header = dict.fromkeys(self.names)
        self.header.update(magic=b"CKFASTIX", major=1, minor=1, header_bytes=128, compat=0,
                           page_bytes=PAGE, reserved=bytes(40))
        self.header.update(header)
        self.sections = sections
        self.pad = lambda i, n: bytes(n)
        self.tail = b""
        self.image_id = None

    def build(self):
        header = dict(self.header)
        table, body = bytearray(), bytearray()
        start = 128 + SECTION.size * len(self.sections)
        end = start
        for i, s in enumerate(self.sections):
            body += self.pad(i, round64(end) - end)
            offset = round64(end) if s.offset is None else s.offset
            count = len(s.data) // max(s.entry_bytes, 1) if s.count is None else s.count
            checksum = xxh64(s.data) if s.checksum is None else s.checksum
            table += SECTION.pack(s.kind, s.entry_bytes, offset, count, checksum)
            end = round64(end) + len(s.data)
            body += s.data
        body += self.tail
        if header["idx_bytes"] is None:
            header["idx_bytes"] = start + len(body)
        if header["image_id"] is None:
            header["image_id"] = xxh128(bytes(table))
        if header["nr_sections"] is None:
            header["nr_sections"] = len(self.sections)
        self.image_id = header["image_id"]
        raw = HEADER.pack(*(header[n] or 0 for n in self.names[:-1]), 0)[:120]
        checksum = header["checksum"]
        if checksum is None:
            checksum = xxh64(raw + bytes(table))
        return raw + checksum.to_bytes(8, "little") + bytes(table) + bytes(body)


class Model:
    """A whole image: tables, pack bytes, verbatim files."""
    tables = (("chunks", Chunk), ("refs", Ref), ("files", File), ("targets", Target), ("ops", Op),
              ("lanes", Lane), ("huge", Huge), ("bases", Base))

    def __init__(self):
        self.strings = bytearray()
        self.chunks, self.refs, self.files, self.targets = [], [], [], []
        self.ops, self.lanes, self.huge, self.bases = [], [], [], []
        self.base_packs = []
        self.extra = []
        self.header = {"extent_bytes": 4 << 20, "max_chunk_pages": 1024}
        self.pack_header = {}
        self.pack = bytearray(PAGE)
        self.verbatim = collections.OrderedDict()
        self.layout_hook = None
        self.page_sums = False  # the checksums of pages files are made of those of their pages

    @classmethod
    def load(cls, path):
        image = ckread.opened(path)
        if image is None:
            raise ValueError("%s: not a valid image" % path)
        model = cls()
        model.strings = bytearray(image.strings)
        model.page_sums = bool(image.incompat & INCOMPAT_PAGE_SUMS)
        for name, row in cls.tables:
            if name in image.sections:
                setattr(model, name, [row(*values) for values in image.sections[name][2]])
        for base_path in image.base_paths:
            with open(os.path.join(os.fsencode(path), base_path, os.fsencode(PACK)), "rb") as f:
                model.base_packs.append(f.read())
        model.header = {"extent_bytes": image.extent_bytes, "minor": image.minor,
                        "max_chunk_pages": image.max_chunk_pages, "compat": image.compat}
        with open(os.path.join(path, PACK), "rb") as f:
            model.pack = bytearray(f.read())
        for f, name in zip(model.files, image.names):
            if f.kind == 1:
                with open(os.path.join(os.fsencode(path), name), "rb") as src:
                    model.verbatim[name] = src.read()
        image.close()
        return model

    def name(self, f):
        return bytes(self.strings[f.name_off:f.name_off + f.name_len])

    def add_string(self, data):
        self.strings += data
        return len(self.strings) - len(data)

    def chunk_data(self, chunk):
        pack = self.base_packs[chunk.base - 1] if chunk.base else self.pack
        stored = bytes(pack[chunk.pack_off:chunk.pack_off + chunk.stored_bytes])
        return ckread.decode_chunk(chunk.codec, stored, chunk.nr_pages * PAGE)

    def fix_file(self, f):
        """size_bytes and checksum of a verbatim file from its contents."""
        data = self.verbatim[self.name(f)]
        f.size_bytes, f.checksum = len(data), xxh64(data)

    def fix_sums(self):
        """The sums that targets and lanes keep, from the ops."""
        for target in self.targets:
            ops = self.ops[target.first_op:target.first_op + target.nr_ops]
            target.nr_pages = sum(op.nr_pages for op in ops)
        for lane in self.lanes:
            ops = self.ops[lane.first_op:lane.first_op + lane.nr_ops]
            lane.fill_bytes = PAGE * sum(op.nr_pages for op in ops)
            lane.read_bytes = sum(self.chunks[c].stored_bytes for c in {op.chunk for op in ops})

    def layout(self):
        codecs = {c.codec for c in self.chunks}
        devices = any(t.kind == ckread.T_DEVICE for t in self.targets)
        packed = any(c.pack_off % PAGE for c in self.chunks)
        kinds = {f.kind for f in self.files}
        files = bool(kinds & {2, 4, 5, 6})
        header = {"incompat": sum(bit for codec, bit in INCOMPAT.items() if codec in codecs)
                              | (INCOMPAT_BASES if self.bases else 0)
                              | (INCOMPAT_DEVICES if devices else 0)
                              | (INCOMPAT_PACKED if packed else 0)
                              | (INCOMPAT_PAGE_SUMS if self.page_sums and files else 0)
                              | (INCOMPAT_SIZED_PAGES if 4 in kinds else 0)
                              | (INCOMPAT_HEADED_PAGES if 5 in kinds else 0)
                              | (INCOMPAT_CUT_PAGES if 6 in kinds else 0),
                  "pack_bytes": len(self.pack)}
        header.update(self.header)
        sections = [Section(1, 1, bytes(self.strings))]
        for kind, (name, row) in enumerate(self.tables, 2):
            data = b"".join(r.pack() for r in getattr(self, name))
            if data or name != "bases":
                sections.append(Section(kind, row.struct.size, data))
        return Layout(header, sections + list(self.extra))

    def build(self):
        """(bytes of ckfast.idx, bytes of ckfast.pack)."""
        layout = self.layout()
        if self.layout_hook:
            self.layout_hook(layout)
        idx = layout.build()
        h = {"magic": b"CKFASTPK", "major": 1, "minor": 0, "reserved": bytes(16), "checksum": None,
             "extent_bytes": layout.header["extent_bytes"], "image_id": layout.image_id,
             "pack_bytes": layout.header["pack_bytes"]}
        h.update(self.pack_header)
        raw = PACK_HEADER.pack(h["magic"], h["major"], h["minor"], h["extent_bytes"],
                               h["image_id"], h["pack_bytes"], h["reserved"], 0)[:56]
        checksum = xxh64(raw) if h["checksum"] is None else h["checksum"]
        self.pack[:64] = raw + checksum.to_bytes(8, "little")
        return idx, bytes(self.pack)

    def image_id(self):
        layout = self.layout()
        layout.build()
        return layout.image_id

    def save(self, out):
        idx, pack = self.build()
        os.mkdir(out)
        for name, data in self.verbatim.items():
            write_file(os.path.join(os.fsencode(out), name), data)
        write_file(os.path.join(out, PACK), pack)
        write_file(os.path.join(out, IDX), idx)


def write_file(path, data):
    with open(path, "xb") as f:
        f.write(data)


# ---- compressed bytes that do not depend on the version of a library ----------------------------

def lz4_run(byte, size):
    """An LZ4 block of size equal bytes: one literal, one match of distance 1, five literals."""
    match = size - 1 - 5
    out = bytearray([1 << 4 | 15, byte, 1, 0])
    rest = match - 4 - 15
    while rest >= 255:
        out.append(255)
        rest -= 255
    out.append(rest)
    return bytes(out) + bytes([5 << 4]) + bytes([byte]) * 5


def zstd_run(byte, size, declare=None):
    """A Zstandard frame of RLE blocks: single segment, 4 bytes of content size."""
    out = bytearray(b"\x28\xb5\x2f\xfd\xa0")
    out += (size if declare is None else declare).to_bytes(4, "little")
    while size:
        part = min(size, 128 << 10)
        size -= part
        out += (part << 3 | 1 << 1 | (not size)).to_bytes(3, "little") + bytes([byte])
    return bytes(out)


def float_planes(width, data):
    """The planes of section 4.2.1 of data, which is words of width bytes."""
    fmt, bits = "<%d%s" % (len(data) // width, "H" if width == 2 else "I"), 8 * width
    mask = (1 << bits) - 1
    mixed = struct.pack(fmt, *((v << 1) & mask | v >> (bits - 1)
                               for v in struct.unpack(fmt, data)))
    return [mixed[width - 1 - p::width] for p in range(width)]


def join_planes(planes):
    """Stored bytes of codec bf16 from (plane codec, stored plane) pairs."""
    head = bytes([len(planes)]) + bytes(7)
    for codec, stored in planes:
        head += struct.pack("<IB3x", len(stored), codec)
    return head + b"".join(stored for _, stored in planes)


def compress(codec, data):
    if codec == BF16:
        planes = float_planes(2, data)
        return join_planes([(ZSTD, compress(ZSTD, planes[0])), (RAW, planes[1])])
    if codec == LZ4:
        return lz4.block.compress(data, store_size=False)
    return zstandard.ZstdCompressor(level=3).compress(data)


# ---- builder ----------------------------------------------------------------------------------

class Builder:
    """
    Makes a Model from what an image holds. Chunks are named by the handles that chunk() and
    zero() return, until finish() puts them in the order of the format.
    """

    def __init__(self, extent_bytes=4 << 20, max_chunk_pages=1024, packed=False, page_sums=False,
                 minor=None):
        self.model = Model()
        self.model.page_sums = page_sums
        self.packed = packed  # chunks that are not raw follow without a gap
        if packed:
            self.model.header["minor"] = self.model.pack_header["minor"] = 2
        if page_sums:
            self.model.header["minor"] = self.model.pack_header["minor"] = 3
        if minor is not None:
            self.model.header["minor"] = self.model.pack_header["minor"] = minor
        self.model.header.update(extent_bytes=extent_bytes, max_chunk_pages=max_chunk_pages)
        self.rows, self.files, self.targets, self.huge = [], [], [], []
        self.zeros = {}

    def zero(self, nr_pages):
        if nr_pages not in self.zeros:
            self.rows.append(Chunk(0, 0, nr_pages, ZERO, 0, ckread.zero_xxh64(nr_pages)))
            self.zeros[nr_pages] = len(self.rows) - 1
        return self.zeros[nr_pages]

    def chunk(self, codec, data, stored=None):
        """A chunk at the next place of the pack that crosses no border."""
        if stored is None:
            stored = data if codec == RAW else compress(codec, data)
        pack, extent = self.model.pack, self.model.header["extent_bytes"]
        if codec == RAW or not self.packed:
            pack += bytes(-len(pack) % PAGE)
        if len(pack) // extent != (len(pack) + len(stored) - 1) // extent:
            pack += bytes(-len(pack) % extent)
        self.rows.append(Chunk(len(pack), len(stored), len(data) // PAGE, codec, 0, xxh64(data)))
        pack += stored
        return len(self.rows) - 1

    def base(self, model, path):
        """Another image as a base; its number."""
        m = self.model
        ident = model.image_id()
        m.base_packs.append(model.build()[1])
        m.bases.append(Base(ident, len(model.pack), m.add_string(path), model.header["extent_bytes"],
                            len(path), bytes(10)))
        return len(m.bases)

    def base_chunk(self, base, row):
        """A chunk of the model that base() was given."""
        self.rows.append(row.copy(base=base))
        return len(self.rows) - 1

    def file(self, name, data=None, handles=None, link=None, **meta):
        """kind 1 with data, kind 2 (or meta) with handles of chunks, kind 3 with a link target."""
        self.files.append((name, data, handles, link, meta))

    def target(self, kind, ident, ops, parent=None, cuts=(), pages_id=1, in_parent=()):
        """
        ops: (address, handle, first_page, nr_pages, flags); parent: (kind, id) or None; cuts: the
        numbers of the ops before which a new lane starts; in_parent: numbers of the ops whose
        pages the pagemap leaves to a parent dump. The pagemap file is made here.
        """
        runs = []
        for i, (addr, _, _, nr, _) in enumerate(ops):
            flags = criuimg.PE_PARENT if i in in_parent else criuimg.PE_PRESENT
            if runs and runs[-1][2] == flags and runs[-1][0] + runs[-1][1] * PAGE == addr:
                runs[-1][1] += nr
            else:
                runs.append([addr, nr, flags])
        name = b"pagemap-%s%d.img" % (b"" if kind == 1 else b"shmem-", ident)
        self.file(name, criuimg.pagemap(pages_id, runs))
        self.targets.append((kind, ident, ops, parent, list(cuts), name))

    def device(self, pid, allocs, ops, cuts=()):
        """
        Device memory of a task: allocs (addr, bytes), on two devices in turn, and of shared memory
        flags and id; ops as in target(), which have to fill all of them but imports. Table and
        pages file are made here.
        """
        if any(len(a) > 2 for a in allocs):
            self.model.header["minor"] = self.model.pack_header["minor"] = 4
        elif not self.packed and not self.model.page_sums:
            self.model.header["minor"] = self.model.pack_header["minor"] = 1
        table = gpuimg.pack(pid, [gpuimg.device(1), gpuimg.device(0, b"another")],
                            [(a[0], a[1], i % 2, a[2] if len(a) > 2 else 0, 0, *a[3:])
                             for i, a in enumerate(allocs)])
        self.file(gpuimg.table_name(pid), table)
        self.file(gpuimg.pages_name(pid), handles=[op[1] for op in ops])
        self.targets.append((3, pid, ops, None, list(cuts), gpuimg.table_name(pid)))

    def amd(self, ident, pid, gpus, objects, parts):
        """
        Memory of AMD GPUs: objects (gpu, bytes, flags); parts: {gpu: (handles, cuts)} for the GPUs
        whose contents are in the pack. Chunks may not reach from one object into the next. Table
        and pages files are made here.
        """
        table = amdimg.table(pid, [amdimg.device(0)] + [amdimg.device(g) for g in gpus],
                             [amdimg.obj(g, n, f) for g, n, f in objects])
        self.file(amdimg.table_name(ident), table)
        for gpu, (handles, cuts) in parts.items():
            places = amdimg.places([n for g, n, f in objects if g == gpu and f & 3])
            ops, left = [], list(handles)
            for addr, end in places:
                while addr < end:
                    nr = self.rows[left[0]].nr_pages
                    ops.append((addr, left.pop(0), 0, nr, 0))
                    addr += nr * PAGE
            self.file(amdimg.pages_name(ident, gpu), handles=handles, kind=4)
            self.targets.append((3, amdimg.target_id(ident, gpu), ops, None, list(cuts),
                                 amdimg.table_name(ident)))

    def render(self, ident, gpu, minor, sizes, parts):
        """
        Buffer objects of a render node: sizes of all; parts: {N: (head, handles, cuts)} for those
        whose contents are in the pack. Table and pages files are made here.
        """
        table = amdimg.render_name(ident)
        self.file(table, amdimg.render_table(gpu, ident, minor, sizes))
        for n, (head, handles, cuts) in parts.items():
            ops, addr = [], 0
            for handle in handles:
                ops.append((addr, handle, 0, self.rows[handle].nr_pages, 0))
                addr += self.rows[handle].nr_pages * PAGE
            self.file(amdimg.render_pages_name(ident, minor, n), handles=handles, kind=5,
                      target_off=head)
            self.targets.append((3, amdimg.target_id(ident, n), ops, None, list(cuts), table))

    def finish(self):
        m = self.model
        m.pack += bytes(-len(m.pack) % PAGE)
        order = sorted(range(len(self.rows)),
                       key=lambda i: (self.rows[i].codec != ZERO, self.rows[i].base,
                                      self.rows[i].pack_off, self.rows[i].nr_pages))
        number = {handle: i for i, handle in enumerate(order)}
        m.chunks = [self.rows[i] for i in order]
        position = {}
        for name, data, handles, link, meta in sorted(self.files, key=lambda f: f[0]):
            position[name] = len(m.files)
            self.finish_file(name, data, handles, link, meta, number)
        self.targets.sort(key=lambda t: t[:2])
        place = {t[:2]: i for i, t in enumerate(self.targets)}
        for kind, ident, ops, parent, cuts, name in self.targets:
            first_op, first_lane = len(m.ops), len(m.lanes)
            m.ops += [Op(addr | flags, number[h], first, nr) for addr, h, first, nr, flags in ops]
            borders = sorted({0, len(ops), *cuts})
            for a, b in zip(borders, borders[1:]):
                m.lanes.append(Lane(first_op + a, b - a, 0, 0, len(m.targets), 0))
            m.targets.append(Target(ident, 0, first_op, len(ops), first_lane,
                                    len(m.lanes) - first_lane, kind, position[name],
                                    1 + place[parent] if parent else 0, 0))
        for addr, nr, target in self.huge:
            m.huge.append(Huge(addr, nr, place[target]))
        m.huge.sort(key=lambda h: (h.target, h.address))
        m.fix_sums()
        return m

    def finish_file(self, name, data, handles, link, meta, number):
        m = self.model
        f = File(0, 0, 1700000000, 123456789, 0o644, 0, 0, m.add_string(name), 0, 0, 0, len(name),
                 0, 1, bytes(11))
        if handles is not None:
            f.kind, f.first_ref, f.nr_refs = 2, len(m.refs), len(handles)
            m.refs += [Ref(number[h]) for h in handles]
            whole = b"".join(m.chunk_data(self.rows[h]) for h in handles)
            f.size_bytes = len(whole)
            f.checksum = page_sum(whole) if m.page_sums else xxh64(whole)
        elif link is not None:
            f.kind, f.mode, f.size_bytes, f.checksum = 3, 0o777, len(link), xxh64(link)
            f.target_off, f.target_len = m.add_string(link), len(link)
        else:
            m.verbatim[name] = data
            f.size_bytes, f.checksum = len(data), xxh64(data)
        cut = meta.pop("cut", 0)
        for key, value in meta.items():
            setattr(f, key, value)
        if f.kind in ckread.WITH_HEAD:
            f.size_bytes += ckread.HEAD
        f.size_bytes -= cut
        m.files.append(f)


# ---- images -----------------------------------------------------------------------------------

def pattern(seed, nr_pages):
    """Pages that say which they are: 8-byte words of a counter."""
    return b"".join(((seed << 32) + i).to_bytes(8, "little")
                    for i in range(nr_pages * PAGE // 8))


def mm_file(vmas):
    """A minimal mm-*.img with private anonymous mappings (start, end)."""
    rows = [criuimg.encode([(1, a), (2, b), (3, 0), (4, 0), (5, 3),
                            (6, criuimg.MAP_PRIVATE | criuimg.MAP_ANON),
                            (7, criuimg.VMA_REGULAR | criuimg.VMA_ANON_PRIVATE), (8, 1)])
            for a, b in vmas]
    return criuimg.image("mm", [criuimg.encode([(i, 0) for i in range(1, 13)]
                                               + [(14, r) for r in rows])])


def pstree_file(tasks):
    """pstree.img of (pid, ppid) pairs."""
    return criuimg.image("pstree", [criuimg.encode([(1, pid), (2, ppid), (3, 1), (4, 1), (5, pid)])
                                    for pid, ppid in tasks])


def golden():
    """
    The golden image: two tasks of which one inherits, one shared object, every codec, every flag,
    huge ranges, every kind of file. Nothing in it depends on a compression library.
    """
    b = Builder(max_chunk_pages=512)
    zero1, zero512 = b.zero(1), b.zero(512)
    raw = b.chunk(RAW, pattern(1, 3))
    packed_lz4 = b.chunk(LZ4, b"\x41" * (8 * PAGE), lz4_run(0x41, 8 * PAGE))
    packed_zstd = b.chunk(ZSTD, b"\x5a" * (256 * PAGE), zstd_run(0x5a, 256 * PAGE))
    floats = b"".join((0xbf80 | i * 7 & 0x7f).to_bytes(2, "little") for i in range(4 * PAGE // 2))
    packed_bf16 = b.chunk(BF16, floats, join_planes(
        [(ZSTD, zstd_run(0x7f, 2 * PAGE)), (RAW, float_planes(2, floats)[1])]))
    raw2 = b.chunk(RAW, pattern(2, 1))
    base = 0x7f0000000000
    ops = [(0x10000, raw, 0, 3, 2), (0x13000, zero1, 0, 1, 2), (0x20000, packed_lz4, 0, 8, 0),
           (0x28000, packed_bf16, 0, 4, 0),
           (base, packed_zstd, 0, 256, 0), (base + 0x100000, packed_zstd, 0, 256, 0),
           (base + 0x400000, zero512, 0, 512, 0),
           (base + 0x600000, packed_zstd, 0, 256, 0), (base + 0x700000, packed_zstd, 0, 256, 0)]
    b.target(1, 1, ops, cuts=(3,), pages_id=1)
    child = [(0x10000, raw, 0, 3, 1), (0x13000, raw2, 0, 1, 0), (0x22000, packed_lz4, 2, 4, 1),
             (0x30000, raw, 1, 1, 0)]
    b.target(1, 7, child, parent=(1, 1), pages_id=2, in_parent=(3,))
    b.target(2, 77, [(0, raw2, 0, 1, 0), (0x5000, packed_lz4, 7, 1, 0)], pages_id=3)
    b.target(1, 9, [], pages_id=4)
    b.huge = [(base, 1, (1, 1)), (base + 0x400000, 2, (1, 1))]
    b.file(b"pages-1.img", handles=[raw, zero1, packed_lz4, packed_bf16, packed_zstd, packed_zstd, zero512,
                                    packed_zstd, packed_zstd])
    b.file(b"pages-2.img", handles=[raw, raw2, packed_lz4])
    b.file(b"pages-3.img", handles=[raw2, packed_lz4])
    b.file(b"pages-4.img", handles=[])
    b.file(b"inventory.img", criuimg.image("inventory", [criuimg.encode([(1, 2), (2, 1)])]))
    b.file(b"pstree.img", pstree_file([(1, 0), (7, 1), (9, 1)]))
    b.file(b"mm-1.img", mm_file([(0x10000, 0x14000), (0x20000, 0x2c000), (base, base + 0x200000),
                                 (base + 0x400000, base + 0x800000)]),
           mode=0o600, uid=1000, gid=100)
    b.file(b"mm-7.img", mm_file([(0x10000, 0x14000), (0x20000, 0x28000), (0x30000, 0x31000)]))
    b.file(b"mm-9.img", mm_file([(0x10000, 0x14000)]))
    b.file(b"parent", link=b"../previous")
    b.file(b"empty", b"", mtime_sec=(1 << 64) - 5)
    b.file(b"un known\xff", b"kept as it is", mode=0o4751, mtime_sec=0, mtime_nsec=0)
    return b.finish()


def packed():
    """
    Chunks that begin and end within pages: several on one page, one of a page and a byte that lies
    on three, raw ones between them, and one that ends where an extent does.
    """
    b = Builder(max_chunk_pages=1024, packed=True, page_sums=True)
    letters = b"abcdefgh"
    small = [b.chunk(ZSTD, bytes([c]) * (4 * PAGE), zstd_run(c, 4 * PAGE)) for c in letters]
    noise = random.Random(5).randbytes(3 * PAGE)
    raw1 = b.chunk(RAW, pattern(21, 3))
    lz4 = b.chunk(LZ4, b"\x42" * (8 * PAGE), lz4_run(0x42, 8 * PAGE))
    long = b.chunk(LZ4, noise[:PAGE] + bytes(7 * PAGE))
    floats = struct.pack("<%df" % PAGE, *((i % 251) / 256 for i in range(PAGE)))
    bf16 = b.chunk(BF16, floats, join_planes([(RAW, p) for p in float_planes(4, floats)[:3]]
                                             + [(ZSTD, zstd_run(0, PAGE))]))
    raw2 = b.chunk(RAW, pattern(22, 1000))
    tail = noise + bytes(PAGE)
    stored = compress(ZSTD, tail)
    b.model.pack += bytes(-(len(b.model.pack) + len(stored)) % (4 << 20))
    last = b.chunk(ZSTD, tail, stored)
    after = [b.chunk(ZSTD, bytes([c]) * (2 * PAGE), zstd_run(c, 2 * PAGE)) for c in b"yz"]
    handles = [*small, raw1, lz4, long, bf16, raw2, last, *after]
    addr, ops = 0x10000, []
    for h in handles:
        ops.append((addr, h, 0, b.rows[h].nr_pages, 0))
        addr += b.rows[h].nr_pages * PAGE
    b.target(1, 5, ops, cuts=(3, 9))
    b.file(b"pages-1.img", handles=handles)
    b.file(b"mm-5.img", mm_file([(0x10000, addr)]))
    b.file(b"pstree.img", pstree_file([(5, 0)]))
    return b.finish()


def with_device():
    """A task and its device memory: three allocations, of which two touch."""
    b = Builder(max_chunk_pages=512)
    zero = b.zero(512)
    raw, packed = b.chunk(RAW, pattern(3, 512)), b.chunk(ZSTD, b"\x5a" * (512 * PAGE),
                                                         zstd_run(0x5a, 512 * PAGE))
    mib2, base = 2 << 20, 0x7f0000000000
    b.target(1, 5, [(0x10000, raw, 0, 4, 0)])
    b.file(b"pages-1.img", handles=[raw])
    b.device(5, [(base, 2 * mib2), (base + 2 * mib2, mib2), (base + 8 * mib2, mib2)],
             [(base, raw, 0, 512, 0), (base + mib2, zero, 0, 512, 0),
              (base + 2 * mib2, packed, 0, 512, 0), (base + 8 * mib2, raw, 0, 512, 0)], cuts=(2,))
    b.file(b"mm-5.img", mm_file([(0x10000, 0x14000)]))
    b.file(b"pstree.img", pstree_file([(5, 0)]))
    return b.finish()


def with_amd():
    """A task with AMD GPUs: objects of odd sizes, of none, of the same address; two GPUs."""
    b = Builder(max_chunk_pages=512, packed=True, page_sums=True, minor=5)
    zero = b.zero(512)
    raw, packed = b.chunk(RAW, pattern(4, 5)), b.chunk(ZSTD, b"\x5b" * (512 * PAGE),
                                                       zstd_run(0x5b, 512 * PAGE))
    b.target(1, 5, [(0x10000, raw, 0, 4, 0)])
    b.file(b"pages-1.img", handles=[raw])
    mib2 = 2 << 20
    b.amd(7, 5, [0x1a, 0xbeef],
          [(0xbeef, mib2, amdimg.VRAM), (0x1a, 5 * PAGE, amdimg.GTT), (0x1a, 9, amdimg.DOORBELL),
           (0x1a, mib2 + 5 * PAGE, amdimg.VRAM), (0xbeef, mib2, amdimg.USERPTR)],
          {0x1a: ([raw, packed, raw], (1,)), 0xbeef: ([zero], ())})
    b.file(b"mm-5.img", mm_file([(0x10000, 0x14000)]))
    b.file(b"pstree.img", pstree_file([(5, 0)]))
    b.file(b"inventory.img", criuimg.image("inventory", [criuimg.encode([(1, 2), (2, 1)])]))
    return b.finish()


def with_render():
    """Objects of two render nodes, between those of /dev/kfd: shared chunks, odd heads, no file."""
    b = Builder(max_chunk_pages=512, packed=True, page_sums=True, minor=6)
    zero = b.zero(512)
    raw, packed = b.chunk(RAW, pattern(6, 5)), b.chunk(ZSTD, b"\x5b" * (512 * PAGE),
                                                       zstd_run(0x5b, 512 * PAGE))
    b.target(1, 5, [(0x10000, raw, 0, 4, 0)])
    b.file(b"pages-1.img", handles=[raw])
    mib2 = 2 << 20
    b.amd(8, 5, [0x1a], [(0x1a, mib2, amdimg.VRAM)], {0x1a: ([packed], ())})
    b.render(7, 0x1a, 128, [mib2 + 5 * PAGE, 100, 5 * PAGE],
             {0: (mib2 + 5 * PAGE, [packed, raw], (1,)), 2: (5 * PAGE, [raw], ())})
    b.render(9, 0xbeef, 129, [mib2] * 3, {1: (0, [zero], ()), 2: (M64, [packed], ())})
    b.file(amdimg.render_pages_name(7, 128, 1), bytes(8))
    b.file(b"amdgpu-dmabuf_10.img", amdimg.sized(criuimg.encode([(1, 3)])))
    b.file(b"mm-5.img", mm_file([(0x10000, 0x14000)]))
    b.file(b"pstree.img", pstree_file([(5, 0)]))
    b.file(b"inventory.img", criuimg.image("inventory", [criuimg.encode([(1, 2), (2, 1)])]))
    return b.finish()


def with_cut():
    """Files of which a part of the last page is left out, and pages that are in no file."""
    b = Builder(max_chunk_pages=512, packed=True, page_sums=True, minor=7)
    raw, zero = b.chunk(RAW, pattern(6, 5)), b.zero(3)
    packed = b.chunk(ZSTD, b"\x5b" * (512 * PAGE), zstd_run(0x5b, 512 * PAGE))
    stored = b.chunk(RAW, pattern(7, 2))
    b.target(1, 5, [(0x10000, raw, 0, 4, 0)], pages_id=1)
    b.target(1, 7, [(0x10000, zero, 0, 3, 0)], pages_id=2)
    b.target(1, 8, [(0x10000, packed, 1, 4, 0)], pages_id=3)
    b.file(b"pages-1.img", handles=[packed, stored], kind=6, cut=PAGE - 1)
    b.file(b"pages-2.img", handles=[], kind=6)
    b.file(b"pages-3.img", handles=[stored, zero], kind=6, cut=100)
    b.file(b"pages-4.img", handles=[stored], kind=6)
    for pid in 5, 7, 8:
        b.file(b"mm-%d.img" % pid, mm_file([(0x10000, 0x14000)]))
    b.file(b"pstree.img", pstree_file([(5, 0), (7, 5), (8, 5)]))
    b.file(b"inventory.img", criuimg.image("inventory", [criuimg.encode([(1, 3), (2, 1)])]))
    return b.finish()


def random_image(seed):
    """A small valid image; every part of the format that the seed picks."""
    rng = random.Random(seed)
    b = Builder(rng.choice([4, 8, 16]) << 20, rng.choice([8, 64, 1024]), packed=seed % 2,
                page_sums=seed % 3 == 1)
    limit = b.model.header["max_chunk_pages"]
    handles = [b.zero(n) for n in rng.sample(range(1, limit + 1), min(3, limit))]
    for _ in range(rng.randrange(1, 12)):
        nr = min(limit, rng.choice([1, 2, 5, 30, 300]))
        codec = rng.choice([RAW, LZ4, ZSTD, BF16])
        data = rng.randbytes(PAGE * nr) if codec == RAW else rng.randbytes(64) * (nr * 64)
        handles.append(b.chunk(codec, data))
    for ident in range(1, rng.randrange(2, 6)):
        addr, ops, in_pages = 0x10000, [], []
        for _ in range(rng.randrange(0, 20)):
            handle = rng.choice(handles)
            addr += PAGE * rng.choice([0, 0, 1, 512])
            nr = b.rows[handle].nr_pages
            ops.append((addr, handle, 0, nr, 0))
            in_pages.append(handle)
            addr += nr * PAGE
        cuts = rng.sample(range(len(ops)), min(len(ops), 3)) if ops else ()
        b.target(rng.choice([1, 2]), ident, ops, cuts=cuts, pages_id=ident)
        b.file(b"pages-%d.img" % ident, handles=in_pages)
    return b.finish()


def based():
    """
    (path, model) of two bases, which have equal chunks, and the model of an image that takes chunks
    from both, of every codec, and has some of its own. Each path is seen from the image.
    """
    one, two = golden(), random_image(7)
    b = Builder(8 << 20, packed=True)
    paths = (b"../one", b"../two")
    n1, n2 = b.base(one, paths[0]), b.base(two, paths[1])
    zero = b.zero(3)
    raw, packed = b.chunk(RAW, pattern(5, 4)), b.chunk(LZ4, b"\x42" * (8 * PAGE))
    ones = [b.base_chunk(n1, c) for c in one.chunks if c.codec != ZERO]
    twos = [b.base_chunk(n2, c) for c in two.chunks if c.codec != ZERO]
    handles = [raw, *ones, zero, packed, *twos, ones[0]]
    addr, ops = 0x10000, []
    for h in handles:
        nr = b.rows[h].nr_pages
        ops.append((addr, h, 0, nr, 2 if h == raw else 0))
        addr += nr * PAGE
    b.target(1, 5, ops, cuts=(2, 5))
    b.file(b"pages-1.img", handles=handles)
    b.file(b"mm-5.img", mm_file([(0x10000, addr)]))
    b.file(b"pstree.img", pstree_file([(5, 0)]))
    b.file(b"inventory.img", criuimg.image("inventory", [criuimg.encode([(1, 2), (2, 1)])]))
    return list(zip(paths, (one, two))), b.finish()


def main(argv):
    if len(argv) == 3 and argv[1] == "golden":
        golden().save(argv[2])
    elif len(argv) == 4 and argv[1] == "random":
        random_image(int(argv[2])).save(argv[3])
    else:
        print(__doc__, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))

#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""
Makes broken images: one mutator per way to break a rule of SPEC.md, with everything else as it
should be: section checksums, image id, header checksum and pack header are those of the broken
image, so that only the rule itself can catch it.

    mutate.py list                   name, rule, class and section of each mutator
    mutate.py NAME FAST OUT          OUT is FAST broken by NAME

Class `accept` marks changes that every reader must take; `restore` those that the index does not
show and that the restore has to refuse (a plan that leads outside of the mappings).
"""
import os
import shutil
import sys

sys.dont_write_bytecode = True

import amdimg
import ckread
import ckwrite
import criuimg
import gpuimg
from ckread import PAGE, ZERO, RAW, LZ4, ZSTD, BF16
from ckwrite import Chunk, Huge, Model, Section

CORRUPT, UNSUPPORTED, ACCEPT, RESTORE = "corrupt", "unsupported", "accept", "restore"
M64 = (1 << 64) - 1
MUTATORS = {}


class Skip(Exception):
    """The image has not got what this mutator breaks."""


class Mutator:
    def __init__(self, name, rule, cls, section, change, on_disk):
        self.name, self.rule, self.cls, self.section = name, rule, cls, section
        self.change, self.on_disk = change, on_disk

    def apply(self, fast, out):
        if self.on_disk:
            shutil.copytree(fast, out, symlinks=True)
            self.change(out)
            return
        model = Model.load(fast)
        self.change(model)
        model.save(out)


def mutator(name, rule, cls, section=None, on_disk=False):
    def register(change):
        assert name not in MUTATORS, name
        MUTATORS[name] = Mutator(name, rule, cls, section, change, on_disk)
        return change
    return register


def add(name, rule, cls, section, change, on_disk=False):
    mutator(name, rule, cls, section, on_disk)(change)


def pick(rows, want=lambda row: True):
    """The first row that is wanted."""
    for row in rows:
        if want(row):
            return row
    raise Skip()


def pick_pair(rows):
    if len(rows) < 2:
        raise Skip()
    return rows[0], rows[1]


def assign(rows, want=lambda row: True, **fields):
    """A change that assigns fields of the first wanted row of a table."""
    def change(m):
        row = pick(getattr(m, rows), want)
        for key, value in fields.items():
            setattr(row, key, value(getattr(row, key)) if callable(value) else value)
    return change


# ---- header ------------------------------------------------------------------------------------

def header(**fields):
    """A change that sets fields of the header, and those of the pack that follow from them."""
    def change(m):
        m.header.update(fields)
    return change


def layout(hook):
    def change(m):
        m.layout_hook = hook
    return change


def both(*changes):
    def change(m):
        for one in changes:
            one(m)
    return change


HEADER_CASES = [
    ("header-magic", "R-magic", CORRUPT, header(magic=b"CKFASTIY")),
    ("header-major-2", "R-version", UNSUPPORTED, header(major=2)),
    ("header-major-max", "R-version", UNSUPPORTED, header(major=0xffff)),
    ("header-major-0", "R-version", CORRUPT, header(major=0)),
    ("header-bytes-64", "R-header", CORRUPT, header(header_bytes=64)),
    ("header-bytes-192", "R-header", CORRUPT, header(header_bytes=192)),
    ("header-incompat-40", "R-feature", UNSUPPORTED, None),
    ("header-incompat-63", "R-feature", UNSUPPORTED, None),
    ("header-page-bytes", "R-header", UNSUPPORTED, header(page_bytes=16384)),
    ("header-page-bytes-0", "R-header", UNSUPPORTED, header(page_bytes=0)),
    ("header-extent-2m", "R-extent", CORRUPT, header(extent_bytes=2 << 20)),
    ("header-extent-12m", "R-extent", CORRUPT, header(extent_bytes=12 << 20)),
    ("header-extent-32m", "R-extent", CORRUPT, header(extent_bytes=32 << 20)),
    ("header-extent-0", "R-extent", CORRUPT, header(extent_bytes=0)),
    ("header-max-chunk-0", "R-chunk", CORRUPT, header(max_chunk_pages=0)),
    ("header-max-chunk-1025", "R-chunk", CORRUPT, header(max_chunk_pages=1025)),
    ("header-reserved-first", "R-reserved", CORRUPT, header(reserved=b"\1" + bytes(39))),
    ("header-reserved-last", "R-reserved", CORRUPT, header(reserved=bytes(39) + b"\x80")),
    ("header-checksum", "R-checksum", CORRUPT, header(checksum=12345)),
    ("header-id", "R-id", CORRUPT, header(image_id=b"0123456789abcdef")),
    ("header-pack-bytes-0", "R-pack", CORRUPT, header(pack_bytes=0)),
    ("header-pack-bytes-odd", "R-pack", CORRUPT, None),
    ("header-idx-bytes-huge", "R-length", CORRUPT, header(idx_bytes=1 << 62)),
    ("header-nr-sections-0", "R-sections", CORRUPT, header(nr_sections=0)),
    ("header-nr-sections-65", "R-sections", CORRUPT, header(nr_sections=65)),
    ("header-nr-sections-max", "R-sections", CORRUPT, header(nr_sections=0xffffffff)),
]


def incompat_bit(bit):
    return layout(lambda lay: lay.header.update(incompat=lay.header["incompat"] | 1 << bit))


def incompat_flip(bits):
    return layout(lambda lay: lay.header.update(incompat=lay.header["incompat"] ^ bits))


def pack_bytes_odd(m):
    m.pack += bytes(100)


for _name, _rule, _cls, _change in HEADER_CASES:
    if _name.startswith("header-incompat"):
        _change = incompat_bit(int(_name.rsplit("-", 1)[1]))
    add(_name, _rule, _cls, "header", _change or pack_bytes_odd)


@mutator("header-idx-bytes-short", "R-length", CORRUPT, "header")
def _(m):
    def hook(lay):
        lay.header["idx_bytes"] = len(lay.build()) - 1
    m.layout_hook = hook


@mutator("idx-overlong", "R-length", CORRUPT, "header", on_disk=True)
def _(out):
    with open(os.path.join(out, ckread.IDX), "ab") as f:
        f.write(b"\0")


@mutator("idx-tail", "R-sections", CORRUPT, "header")
def _(m):
    m.layout_hook = lambda lay: setattr(lay, "tail", bytes(64))


def feature_bit(bit, on):
    codec = {1: LZ4, 2: ZSTD, 4: BF16}[bit]

    def change(m):
        if on == any(c.codec == codec for c in m.chunks):
            raise Skip()
        m.layout_hook = lambda lay: lay.header.update(incompat=lay.header["incompat"] ^ bit)
    return change


def only_raw(m):
    """The same image without compressed chunks."""
    for c in m.chunks:
        if c.codec in (LZ4, ZSTD, BF16):
            data = m.chunk_data(c)
            off = len(m.pack)
            extent = m.header["extent_bytes"]
            if off // extent != (off + len(data) - 1) // extent:
                off = (off + extent - 1) // extent * extent
            m.pack += bytes(off - len(m.pack)) + data
            c.pack_off, c.stored_bytes, c.codec, data = off, len(data), RAW, None
    old_ends = sorted((c.pack_off, c.stored_bytes) for c in m.chunks if c.codec == RAW)
    pos = PAGE
    for off, size in old_ends:
        m.pack[pos:off] = bytes(off - pos)
        pos = off + size
    order = sorted(range(len(m.chunks)), key=lambda i: (m.chunks[i].codec != ZERO,
                                                        m.chunks[i].pack_off, i))
    number = {old: new for new, old in enumerate(order)}
    m.chunks = [m.chunks[i] for i in order]
    for row in m.refs + m.ops:
        row.chunk = number[row.chunk]
    m.fix_sums()


add("no-compression", "R-feature", ACCEPT, None, only_raw)
add("feature-lz4-missing", "R-feature", CORRUPT, "header", feature_bit(1, False))
add("feature-zstd-missing", "R-feature", CORRUPT, "header", feature_bit(2, False))
add("feature-bf16-missing", "R-feature", CORRUPT, "header", feature_bit(4, False))
add("feature-lz4-extra", "R-feature", CORRUPT, "header", both(only_raw, feature_bit(1, True)))
add("feature-zstd-extra", "R-feature", CORRUPT, "header", both(only_raw, feature_bit(2, True)))
add("feature-bf16-extra", "R-feature", CORRUPT, "header", both(only_raw, feature_bit(4, True)))
add("minor-version", "R-version", ACCEPT, None, both(
    header(minor=7), lambda m: m.pack_header.update(minor=7)))
add("compat-bits", "R-feature", ACCEPT, None, header(compat=M64))


# ---- section table ------------------------------------------------------------------------------

def section(i, **fields):
    return layout(lambda lay: [setattr(lay.sections[i], k, v) for k, v in fields.items()])


@mutator("table-swapped", "R-sections", CORRUPT, "sections")
def _(m):
    def hook(lay):
        lay.sections[1], lay.sections[2] = lay.sections[2], lay.sections[1]
    m.layout_hook = hook


@mutator("table-twice", "R-sections", CORRUPT, "sections")
def _(m):
    m.layout_hook = lambda lay: lay.sections.insert(0, Section(1, 1, b""))


def drop_section(i):
    return layout(lambda lay: lay.sections.pop(i))


for _i in range(8):
    add("table-no-%s" % ckread.SECTIONS[_i + 1][0], "R-sections", CORRUPT, "header",
        drop_section(_i))


def extra_section(kind, entry_bytes=4, data=b"12345678", **fields):
    def change(m):
        s = Section(kind, entry_bytes, data)
        for key, value in fields.items():
            setattr(s, key, value)
        m.extra.append(s)
    return change


def storage(*values, entry_bytes=16, **fields):
    """The optional section of 4.10; values: bytes_per_s, profile, nr_cores, measured, reserved."""
    return extra_section(ckread.S_STORAGE, entry_bytes, ckread.STORAGE.pack(*values), **fields)


def section_after(i, field, step):
    """Moves a section, and with it the file's end: offset + step."""
    def hook(lay):
        starts, end = [], 128 + 32 * len(lay.sections)
        for s in lay.sections:
            starts.append(ckread.round64(end))
            end = starts[-1] + len(s.data)
        setattr(lay.sections[i], field, starts[i] + step)
        if step > 0:
            lay.pad = lambda k, n: bytes(n + (step if k == i else 0))
            for k in range(i + 1, len(lay.sections)):
                lay.sections[k].offset = ckread.round64(
                    lay.sections[k - 1].offset + len(lay.sections[k - 1].data))
    return layout(hook)


TABLE_CASES = [
    ("type-0", UNSUPPORTED, section(0, kind=0)),
    ("type-10", UNSUPPORTED, extra_section(10)),
    ("type-2-31-less-1", UNSUPPORTED, extra_section((1 << 31) - 1)),
    ("entry-bytes", CORRUPT, section(5, entry_bytes=32)),
    ("entry-bytes-0", CORRUPT, section(2, entry_bytes=0, count=0)),
    ("gap", CORRUPT, section_after(7, "offset", 64)),
    ("offset-back", CORRUPT, section_after(4, "offset", -64)),
    ("offset-odd", CORRUPT, section_after(3, "offset", -8)),
    ("offset-0", CORRUPT, section(0, offset=0)),
    ("offset-max", CORRUPT, section(6, offset=M64 & ~63)),
    ("count-2-60", CORRUPT, section(1, count=1 << 60)),
    ("count-max", CORRUPT, section(0, count=M64)),
    ("count-terabytes", CORRUPT, section(5, count=1 << 36)),
    ("extra-does-not-fit", CORRUPT, extra_section(1 << 31, count=1 << 40)),
]
for _name, _cls, _change in TABLE_CASES:
    add("table-" + _name, "R-sections", _cls, "sections", _change)


def count_wraps(i, entry_bytes):
    """count × entry_bytes is what it should be, modulo 2^64."""
    def hook(lay):
        s = lay.sections[i]
        assert entry_bytes & (entry_bytes - 1) == 0
        s.count = len(s.data) // s.entry_bytes + (1 << 64) // entry_bytes
    return layout(hook)


add("table-count-wraps", "R-sections", CORRUPT, "sections", count_wraps(5, 16))


@mutator("table-count-less", "R-sections", CORRUPT, "header")
def _(m):
    if not m.huge:
        raise Skip()

    def hook(lay):
        s = lay.sections[7]
        s.count = len(s.data) // s.entry_bytes - 1
        s.checksum = ckread.xxh64(s.data[:-s.entry_bytes])
    m.layout_hook = hook


@mutator("table-count-more", "R-sections", CORRUPT, "sections")
def _(m):
    m.layout_hook = lambda lay: setattr(
        lay.sections[7], "count", len(lay.sections[7].data) // lay.sections[7].entry_bytes + 1)


add("section-optional", "R-sections", ACCEPT, None, both(
    extra_section(1 << 31), extra_section((1 << 32) - 1, entry_bytes=1, data=b"abc")))
add("section-optional-checksum", "R-checksum", CORRUPT, "sections",
    extra_section((1 << 31) + 5, checksum=1))
for _i in range(8):
    add("checksum-" + ckread.SECTIONS[_i + 1][0], "R-checksum", CORRUPT, "sections",
        section(_i, checksum=0x1122334455667788))


@mutator("idx-padding", "R-padding", CORRUPT, "sections")
def _(m):
    hit = []

    def pad(_, n):
        if n and not hit:
            hit.append(n)
            return bytes(n - 1) + b"\1"
        return bytes(n)

    def hook(lay):
        lay.pad = pad
    m.layout_hook = hook


STORAGE_CASES = [
    ("good", ACCEPT, "R-storage", storage(3000000000, 2, 2, 1, 0)),
    ("unknown-profile", ACCEPT, "R-storage", storage((1 << 64) - 1, 77, 65535, 0, 0)),
    ("no-speed", CORRUPT, "R-storage", storage(0, 2, 2, 1, 0)),
    ("no-cores", CORRUPT, "R-storage", storage(1, 2, 0, 1, 0)),
    ("measured-2", CORRUPT, "R-storage", storage(1, 2, 2, 2, 0)),
    ("reserved", CORRUPT, "R-reserved", storage(1, 2, 2, 1, 1)),
]
for _name, _cls, _rule, _change in STORAGE_CASES:
    add("storage-" + _name, _rule, _cls, "storage", _change)
add("storage-two", "R-storage", CORRUPT, "sections", extra_section(
    ckread.S_STORAGE, 16, 2 * ckread.STORAGE.pack(1, 2, 2, 1, 0)))
add("storage-none", "R-storage", CORRUPT, "sections", extra_section(ckread.S_STORAGE, 16, b""))
add("storage-entry-bytes", "R-sections", CORRUPT, "sections", extra_section(
    ckread.S_STORAGE, 8, bytes(8)))


# ---- chunks -------------------------------------------------------------------------------------

def stored(row):
    return row.codec != ZERO


def codec_is(codec):
    return lambda row: row.codec == codec


def fixed(change):
    """change, and then the sums of lanes and targets anew."""
    def changed(m):
        change(m)
        m.fix_sums()
    return changed


def chunk_case(name, change, rule="R-chunk", cls=CORRUPT):
    add("chunk-" + name, rule, cls, "chunks", fixed(change))


chunk_case("pages-0", assign("chunks", codec_is(RAW), nr_pages=0, stored_bytes=0))
chunk_case("pages-above-max", header(max_chunk_pages=2))
chunk_case("base-of-none", assign("chunks", stored, base=1))
chunk_case("zero-base", assign("chunks", codec_is(ZERO), base=1))
chunk_case("zero-pack-off", assign("chunks", codec_is(ZERO), pack_off=PAGE))
chunk_case("zero-stored", assign("chunks", codec_is(ZERO), stored_bytes=PAGE))
chunk_case("zero-checksum", assign("chunks", codec_is(ZERO), checksum=5))
chunk_case("codec-5", assign("chunks", stored, codec=5), cls=UNSUPPORTED)
chunk_case("codec-255", assign("chunks", stored, codec=255), cls=UNSUPPORTED)
chunk_case("off-unaligned", assign("chunks", codec_is(RAW), pack_off=lambda v: v + 8))
chunk_case("off-header", assign("chunks", stored, pack_off=PAGE - 1))
chunk_case("off-0", assign("chunks", stored, pack_off=0))
chunk_case("off-max", assign("chunks", stored, pack_off=M64 & ~4095))
chunk_case("raw-stored-less", assign("chunks", codec_is(RAW), stored_bytes=lambda v: v - 1))
chunk_case("raw-stored-more", assign("chunks", codec_is(RAW), stored_bytes=lambda v: v + PAGE))
chunk_case("lz4-stored-0", assign("chunks", codec_is(LZ4), stored_bytes=0))
chunk_case("zstd-stored-0", assign("chunks", codec_is(ZSTD), stored_bytes=0))
chunk_case("bf16-stored-0", assign("chunks", codec_is(BF16), stored_bytes=0))
chunk_case("bf16-stored-all", assign("chunks", codec_is(BF16), stored_bytes=4 * PAGE))


def reorder(m, order):
    """Chunks in another order; order lists the old numbers; all that name them follow."""
    number = {old: new for new, old in enumerate(order)}
    m.chunks = [m.chunks[i] for i in order]
    for row in m.refs + m.ops:
        row.chunk = number[row.chunk]


def swapped(m, a, b):
    order = list(range(len(m.chunks)))
    order[a], order[b] = order[b], order[a]
    reorder(m, order)


def numbers(m, want):
    return [i for i, c in enumerate(m.chunks) if want(c)]


@mutator("chunk-zero-order", "R-chunk", CORRUPT, "chunks")
def _(m):
    swapped(m, *pick_pair(numbers(m, codec_is(ZERO))))


@mutator("chunk-zero-twice", "R-chunk", CORRUPT, "chunks")
def _(m):
    zeros = numbers(m, codec_is(ZERO))
    if not zeros:
        raise Skip()
    m.chunks.append(m.chunks[zeros[-1]].copy())
    order = list(range(len(m.chunks) - 1))
    order.insert(zeros[-1] + 1, len(order))
    reorder(m, order)


@mutator("chunk-zero-last", "R-chunk", CORRUPT, "chunks")
def _(m):
    zeros = numbers(m, codec_is(ZERO))
    if not zeros or len(zeros) == len(m.chunks):
        raise Skip()
    order = [i for i in range(len(m.chunks)) if i != zeros[-1]] + [zeros[-1]]
    reorder(m, order)


@mutator("chunk-order", "R-chunk", CORRUPT, "chunks")
def _(m):
    swapped(m, *pick_pair(numbers(m, stored)))


@mutator("chunk-overlap", "R-chunk", CORRUPT, "chunks")
def _(m):
    a, b = pick_pair(numbers(m, stored))
    m.chunks[b].pack_off = m.chunks[a].pack_off


@mutator("chunk-overlap-tail", "R-chunk", CORRUPT, "chunks")
def _(m):
    rows = numbers(m, stored)
    for a, b in zip(rows, rows[1:]):
        if m.chunks[a].stored_bytes > PAGE:
            m.chunks[b].pack_off = (m.chunks[a].pack_off + m.chunks[a].stored_bytes - 1) & ~4095
            return
    raise Skip()


@mutator("chunk-past-end", "R-chunk", CORRUPT, "chunks")
def _(m):
    last = numbers(m, stored)
    if not last:
        raise Skip()
    m.chunks[last[-1]].pack_off = len(m.pack)


@mutator("chunk-past-end-partly", "R-chunk", CORRUPT, "chunks")
def _(m):
    add_chunk(m, RAW, ckwrite.pattern(99, 2))
    del m.pack[-PAGE:]


def add_chunk(m, codec, data, raw=None, off=None):
    """A chunk more, at the end of the pack; nothing names it."""
    raw = data if raw is None else raw
    extent = m.header["extent_bytes"]
    if off is None:
        off = len(m.pack)
        if off // extent != (off + len(raw) - 1) // extent:
            off = (off + extent - 1) // extent * extent
    m.pack += bytes(off - len(m.pack)) + raw + bytes(-len(raw) % PAGE)
    m.chunks.append(Chunk(off, len(raw), len(data) // PAGE, codec, 0, ckread.xxh64(data)))
    return m.chunks[-1]


@mutator("chunk-crosses-extent", "R-chunk", CORRUPT, "chunks")
def _(m):
    extent = m.header["extent_bytes"]
    off = (len(m.pack) + extent) // extent * extent - PAGE
    add_chunk(m, RAW, ckwrite.pattern(98, 2), off=off)


@mutator("chunk-ends-at-extent", "R-chunk", ACCEPT)
def _(m):
    extent = m.header["extent_bytes"]
    off = (len(m.pack) + 3 * PAGE + extent) // extent * extent - 2 * PAGE
    add_chunk(m, RAW, ckwrite.pattern(98, 2), off=off)


add("chunk-unused", "R-chunk", ACCEPT, None, lambda m: add_chunk(m, RAW, ckwrite.pattern(97, 1)))
add("pack-gap", "R-padding", ACCEPT, None, lambda m: add_chunk(
    m, RAW, ckwrite.pattern(96, 1), off=len(m.pack) + 8 * PAGE))
add("pack-tail", "R-pack", ACCEPT, None, lambda m: m.pack.extend(bytes(3 * PAGE)))
add("strings-unused", "R-file", ACCEPT, None, lambda m: m.add_string(b"nobody names this"))


# ---- bases --------------------------------------------------------------------------------------

def base_case(name, change, rule="R-base", section="bases"):
    add("base-" + name, rule, CORRUPT, section, change)


def based_only(change):
    def changed(m):
        pick(m.bases)
        change(m)
    return changed


def base_path(path):
    def change(m):
        row = pick(m.bases)
        row.path_off, row.path_len = m.add_string(path), len(path)
    return change


def lies_in(base):
    return lambda row: row.base == base


def base_chunk_case(name, change, rule="R-chunk"):
    base_case("chunk-" + name, based_only(fixed(change)), rule, "chunks")


for _name, _path in [("absolute", b"/var/lib/one"), ("empty-name", b"..//one"),
                     ("slash-last", b"../one/"), ("up-inside", b"../a/../one"), ("up", b".."),
                     ("up-twice", b"../.."), ("dot", b"."), ("dot-first", b"./one"),
                     ("dot-inside", b"../a/./one"), ("zero", b"../one\0"),
                     ("long-name", b"../" + b"a" * 256), ("long", b"a/" * 2047 + b"bc")]:
    base_case("path-" + _name, base_path(_path))
base_case("path-len-0", assign("bases", path_len=0))
base_case("path-outside", assign("bases", path_off=M64))
base_case("reserved", assign("bases", reserved=bytes(9) + b"\1"), rule="R-reserved")
base_case("pack-bytes-0", assign("bases", pack_bytes=0))
base_case("pack-bytes-odd", assign("bases", pack_bytes=lambda v: v + 512))
base_case("extent", assign("bases", extent_bytes=5 << 20))
base_case("none", based_only(layout(lambda lay: setattr(lay.sections[8], "data", b""))))
base_case("section-missing", based_only(layout(lambda lay: lay.sections.pop(8))), "R-sections",
          "header")
base_case("feature-missing", based_only(incompat_flip(8)), "R-sections", "header")
add("feature-bases-extra", "R-sections", CORRUPT, "header", incompat_bit(3))
base_chunk_case("off-0", assign("chunks", lies_in(1), pack_off=0))
base_chunk_case("off-odd", assign("chunks", lies_in(1), pack_off=lambda v: v + 1))
base_chunk_case("past-end", lambda m: assign("chunks", lies_in(1), pack_off=m.bases[0].pack_bytes)(
    m))
base_chunk_case("above", lambda m: setattr(m.chunks[-1], "base", len(m.bases) + 1))
base_chunk_case("order", lambda m: swapped(m, numbers(m, lambda c: stored(c) and not c.base)[-1],
                                           numbers(m, lies_in(1))[0]))
base_chunk_case("order-of-bases", lambda m: swapped(m, numbers(m, lies_in(1))[-1],
                                                    numbers(m, lies_in(2))[0]))
base_chunk_case("overlap", lambda m: setattr(m.chunks[numbers(m, lies_in(1))[1]], "pack_off",
                                             m.chunks[numbers(m, lies_in(1))[0]].pack_off))
base_chunk_case("checksum", lambda m: setattr(m.chunks[-1], "checksum", 7), "R-data")


@mutator("base-id-twice", "R-base", CORRUPT, "bases")
def _(m):
    a, b = pick_pair(m.bases)
    b.image_id = a.image_id


@mutator("base-without-chunk", "R-base", CORRUPT, "bases")
def _(m):
    m.bases.append(pick(m.bases).copy(image_id=bytes(16)))


@mutator("base-skipped", "R-base", CORRUPT, "bases")
def _(m):
    m.bases.insert(0, pick(m.bases).copy(image_id=bytes(16)))
    for c in m.chunks:
        c.base += 1 if c.base else 0


@mutator("base-direct", "R-op", CORRUPT, "ops")
def _(m):
    pick(m.bases)
    raws = numbers(m, lambda c: c.base and c.codec == RAW)
    pick(m.ops, lambda op: op.chunk in raws).place |= 2


def data_case(name, codec, data, raw):
    """A chunk more whose stored bytes are wrong for its checksum and size."""
    def change(m):
        m.header["max_chunk_pages"] = max(m.header["max_chunk_pages"], len(data) // PAGE)
        add_chunk(m, codec, data, raw)
    add("data-" + name, "R-data", CORRUPT, "chunks", change)


A8, A512 = b"A" * (8 * PAGE), b"A" * (512 * PAGE)
RUN8, RUN512 = ckwrite.zstd_run(65, len(A8)), ckwrite.zstd_run(65, len(A512))
SKIPPABLE = b"\x50\x2a\x4d\x18" + (4).to_bytes(4, "little") + b"skip"
# Window descriptor instead of a content size: 128 KiB, so the size shows only in decoding.
UNSIZED9 = b"\x28\xb5\x2f\xfd\x00\x38" + ckwrite.zstd_run(65, 9 * PAGE)[9:]
UNSIZED8 = b"\x28\xb5\x2f\xfd\x00\x38" + ckwrite.zstd_run(65, 8 * PAGE)[9:]
DICTIONARY = b"\x28\xb5\x2f\xfd\xa1\x07" + len(A8).to_bytes(4, "little") + RUN8[9:]
data_case("lz4-garbage", LZ4, A8, bytes(range(7, 247)))
data_case("lz4-short", LZ4, A8, ckwrite.lz4_run(65, 7 * PAGE))
data_case("lz4-long", LZ4, A8, ckwrite.lz4_run(65, 9 * PAGE))
data_case("lz4-bomb", LZ4, A8, ckwrite.lz4_run(65, 7 << 20))
data_case("lz4-tail", LZ4, A8, ckwrite.lz4_run(65, len(A8)) + b"\0")
data_case("lz4-cut", LZ4, A8, ckwrite.lz4_run(65, len(A8))[:-1])
data_case("lz4-other", LZ4, A8, ckwrite.lz4_run(66, len(A8)))
data_case("zstd-garbage", ZSTD, A8, bytes(range(7, 247)))
data_case("zstd-short", ZSTD, A8, ckwrite.zstd_run(65, 7 * PAGE))
data_case("zstd-long", ZSTD, A8, ckwrite.zstd_run(65, 9 * PAGE))
data_case("zstd-unsized-long", ZSTD, A8, UNSIZED9)
data_case("zstd-bomb", ZSTD, A8, ckwrite.zstd_run(65, 256 << 20))
data_case("zstd-declares-more", ZSTD, A8, ckwrite.zstd_run(65, len(A8), declare=0xffffffff))
data_case("zstd-declares-less", ZSTD, A8, ckwrite.zstd_run(65, len(A8), declare=PAGE))
data_case("zstd-tail", ZSTD, A8, RUN8 + b"\0")
data_case("zstd-cut", ZSTD, A512, RUN512[:-4])
data_case("zstd-two-frames", ZSTD, A8, ckwrite.zstd_run(65, 4 * PAGE) * 2)
data_case("zstd-empty-second-frame", ZSTD, A8, RUN8 + ckwrite.zstd_run(65, 0))
data_case("zstd-skippable-first", ZSTD, A8, SKIPPABLE + RUN8)
data_case("zstd-skippable-last", ZSTD, A8, RUN8 + SKIPPABLE)
data_case("zstd-dictionary", ZSTD, A8, DICTIONARY)
data_case("zstd-other", ZSTD, A8, ckwrite.zstd_run(66, len(A8)))
data_case("raw-other", RAW, A8, b"B" + A8[1:])
data_case("lz4-ends-with-match", LZ4, A8, ckwrite.lz4_run(65, len(A8))[:-6] + b"\0")
data_case("lz4-offset-0", LZ4, A8, b"\x1fA\0" + ckwrite.lz4_run(65, len(A8))[3:])
data_case("zstd-frame-checksum", ZSTD, A8, RUN8[:4] + b"\xa4" + RUN8[5:] + b"abcd")
data_case("zstd-reserved-bit", ZSTD, A8, RUN8[:4] + b"\xa8" + RUN8[5:])
data_case("zstd-old-magic", ZSTD, A8, b"\x27" + RUN8[1:])


# One plane of equal exponents, one of noise, as a chunk of 8 pages.
F8 = b"".join((0xbf80 | i * 37 & 0x7f).to_bytes(2, "little") for i in range(4 * PAGE))
EXP8, LOW8 = (ZSTD, ckwrite.zstd_run(0x7f, 4 * PAGE)), (RAW, ckwrite.float_planes(2, F8)[1])
FLOATS8 = ckwrite.join_planes([EXP8, LOW8])
WIDE8 = ckwrite.float_planes(4, F8)


def bf16_case(name, *planes):
    data_case("bf16-" + name, BF16, F8, ckwrite.join_planes(planes))


def bf16_edit(name, off, value):
    data_case("bf16-" + name, BF16, F8, FLOATS8[:off] + bytes([value]) + FLOATS8[off + 1:])


for _i in (0, 1, 3, 8, 255):
    bf16_edit("word-bytes-%d" % _i, 0, _i)
bf16_edit("word-bytes-4-of-2", 0, 4)
bf16_edit("reserved-first", 1, 1)
bf16_edit("reserved-last", 7, 0x80)
bf16_edit("plane-reserved", 13, 1)
bf16_edit("plane-reserved-last", 23, 1)
bf16_edit("plane-length-more", 8, FLOATS8[8] + 1)
bf16_edit("plane-length-less", 8, FLOATS8[8] - 1)
bf16_edit("plane-length-huge", 11, 0xff)
for _i in (0, 2, 4, 255):
    bf16_edit("plane-codec-%d" % _i, 12, _i)
bf16_edit("other", len(FLOATS8) - 1, FLOATS8[-1] ^ 1)
data_case("bf16-empty-head", BF16, F8, b"\2")
data_case("bf16-cut-head", BF16, F8, FLOATS8[:23])
data_case("bf16-head-alone", BF16, F8, FLOATS8[:24])
data_case("bf16-cut", BF16, F8, FLOATS8[:-1])
data_case("bf16-tail", BF16, F8, FLOATS8 + b"\0")
bf16_case("swapped", LOW8, EXP8)
bf16_case("plane-empty", (ZSTD, b""), LOW8)
bf16_case("plane-raw-short", (RAW, bytes(4 * PAGE - 1)), EXP8)
bf16_case("plane-zstd-long", (ZSTD, ckwrite.zstd_run(0x7f, 5 * PAGE)), LOW8)
bf16_case("plane-zstd-short", (ZSTD, ckwrite.zstd_run(0x7f, 3 * PAGE)), LOW8)
bf16_case("plane-bomb", (ZSTD, ckwrite.zstd_run(0x7f, 256 << 20)), LOW8)
bf16_case("plane-two-frames", (ZSTD, ckwrite.zstd_run(0x7f, 2 * PAGE) * 2), LOW8)
bf16_case("plane-not-smaller", (ZSTD, EXP8[1][:9] + bytes(3 * 4100) + EXP8[1][9:]), EXP8)
bf16_case("one-plane", EXP8)
add("data-bf16", "R-data", ACCEPT, None, lambda m: add_chunk(m, BF16, F8, FLOATS8))
add("data-bf16-wide", "R-data", ACCEPT, None, lambda m: add_chunk(
    m, BF16, F8, ckwrite.join_planes([(RAW, WIDE8[0]), (RAW, WIDE8[1]), (RAW, WIDE8[2]),
                                      (ZSTD, ckwrite.compress(ZSTD, WIDE8[3]))])))
add("data-zstd-unsized", "R-data", ACCEPT, None,
    lambda m: add_chunk(m, ZSTD, A8, UNSIZED8))
add("data-zstd-empty-blocks", "R-data", ACCEPT, None,
    lambda m: add_chunk(m, ZSTD, A8, RUN8[:9] + bytes(3 * 1000) + RUN8[9:]))
add("data-chunk-checksum", "R-data", CORRUPT, "chunks",
    assign("chunks", codec_is(RAW), checksum=lambda v: v ^ 1))


# ---- refs, files --------------------------------------------------------------------------------

add("ref-range", "R-ref", CORRUPT, "refs", lambda m: setattr(pick(m.refs), "chunk",
                                                             len(m.chunks)))
add("ref-max", "R-ref", CORRUPT, "refs", assign("refs", chunk=0xffffffff))
add("refs-orphan", "R-file", CORRUPT, ("refs", "files"),
    lambda m: m.refs.append(pick(m.refs).copy()))


def kind(k):
    return lambda f: f.kind == k


def with_refs(f):
    return f.kind == 2 and f.nr_refs


def is_image(name):
    return len(name) > 4 and name.endswith(b".img")


def assign_regular(image, **fields):
    """A change that assigns fields of the first regular file that is, or is not, an image."""
    def change(m):
        f = pick(m.files, lambda f: f.kind == 1 and is_image(m.name(f)) == image)
        for key, value in fields.items():
            setattr(f, key, value(getattr(f, key)))
    return change


def file_case(name, want, rule="R-file", **fields):
    add("file-" + name, rule, CORRUPT, "files", assign("files", want, **fields))


def named(name):
    """A change that renames the last file, which keeps its place unless the name is small."""
    def change(m):
        f = m.files[-1]
        if f.kind != 1:
            raise Skip()
        m.verbatim.pop(m.name(f))
        f.name_off, f.name_len = m.add_string(name), len(name)
    return change


def only_file(name):
    """A change after which the dump holds one file of this name, and no memory."""
    def change(m):
        f = pick(m.files, kind(1)).copy(size_bytes=0, checksum=ckread.xxh64(b""))
        m.refs, m.targets, m.ops, m.lanes, m.huge = [], [], [], [], []
        m.verbatim.clear()
        f.name_off, f.name_len = m.add_string(name), len(name)
        m.files = [f]
    return change


file_case("kind-0", kind(1), kind=0)
file_case("kind-4", kind(1), kind=4)
file_case("mtime-nsec", kind(1), mtime_nsec=10 ** 9)
file_case("mode", kind(1), mode=0o10000)
file_case("mode-type", kind(1), mode=0o100644)
file_case("reserved-first", kind(1), rule="R-reserved", reserved=b"\1" + bytes(10))
file_case("reserved-last", kind(2), rule="R-reserved", reserved=bytes(10) + b"\1")
file_case("name-off", kind(1), name_off=1 << 40)
file_case("name-off-max", kind(1), name_off=M64)
file_case("name-len-0", kind(1), name_len=0)
file_case("name-len-256", kind(1), name_len=256)
file_case("regular-first-ref", kind(1), first_ref=1)
file_case("regular-nr-refs", kind(1), nr_refs=1)
file_case("regular-target-off", kind(1), target_off=1)
file_case("regular-target-len", kind(1), target_len=1)
file_case("pages-target-len", kind(2), target_len=1)
file_case("pages-first-ref", with_refs, first_ref=lambda v: v + 1)
file_case("pages-nr-refs", with_refs, nr_refs=lambda v: v + 1)
file_case("pages-nr-refs-max", with_refs, nr_refs=M64)
file_case("pages-size", with_refs, size_bytes=lambda v: v + PAGE)
file_case("pages-checksum", with_refs, checksum=lambda v: v ^ 1)
for _image, _name, _rule, _cls, _section in (
        (True, "regular", "R-file", CORRUPT, "files"), (False, "unread", "R-unread", ACCEPT, None)):
    add("file-%s-size" % _name, _rule, _cls, _section,
        assign_regular(_image, size_bytes=lambda v: v + 1))
    add("file-%s-size-max" % _name, _rule, _cls, _section,
        assign_regular(_image, size_bytes=lambda v: M64))
    add("file-%s-checksum" % _name, _rule, _cls, _section,
        assign_regular(_image, checksum=lambda v: v ^ 1))
file_case("link-size", kind(3), size_bytes=lambda v: v + 1)
file_case("link-checksum", kind(3), checksum=lambda v: v ^ 1)
file_case("link-target-off", kind(3), target_off=1 << 40)
file_case("link-target-len-0", kind(3), target_len=0, size_bytes=0,
          checksum=ckread.xxh64(b""))
file_case("link-first-ref", kind(3), first_ref=1)
file_case("link-nr-refs", kind(3), nr_refs=1)


@mutator("file-link-target-len-4096", "R-file", CORRUPT, "files")
def _(m):
    f = pick(m.files, kind(3))
    set_target(m, f, b"t" * 4096)


@mutator("file-link-target-4095", "R-file", ACCEPT)
def _(m):
    set_target(m, pick(m.files, kind(3)), b"t" * 4095)


@mutator("file-link-target-nul", "R-file", CORRUPT, "files")
def _(m):
    set_target(m, pick(m.files, kind(3)), b"../pre\0vious")


def set_target(m, f, target):
    f.target_off, f.target_len, f.size_bytes = m.add_string(target), len(target), len(target)
    f.checksum = ckread.xxh64(target)


for _name, _bytes in (("dot", b"."), ("dotdot", b".."), ("slash", b"a/b"), ("root", b"/"),
                      ("climb", b"../../etc/passwd"), ("nul", b"a\0b"), ("idx", b"ckfast.idx"),
                      ("pack", b"ckfast.pack")):
    add("file-name-" + _name, "R-file", CORRUPT, "files", only_file(_bytes))
add("file-name-dots", "R-file", ACCEPT, None, both(
    only_file(b"..."), lambda m: m.verbatim.update({b"...": b""})))


@mutator("file-order", "R-file", CORRUPT, "files")
def _(m):
    rows = [i for i, f in enumerate(m.files) if f.kind == 1]
    for a, b in zip(rows, rows[1:]):
        used = {t.file for t in m.targets}
        if b == a + 1 and a not in used and b not in used:
            m.files[a], m.files[b] = m.files[b], m.files[a]
            return
    raise Skip()


@mutator("file-twice", "R-file", CORRUPT, "files")
def _(m):
    f = m.files[-1]
    if f.kind != 1:
        raise Skip()
    m.files.append(f.copy())


@mutator("file-prefix-order", "R-file", CORRUPT, "files")
def _(m):
    f = m.files[-1]
    if f.kind != 1:
        raise Skip()
    longer = m.name(f)[:200] + b"x"
    m.verbatim[longer] = m.verbatim[m.name(f)]
    m.files.insert(len(m.files) - 1,
                   f.copy(name_off=m.add_string(longer), name_len=len(longer)))


@mutator("file-prefix", "R-file", ACCEPT)
def _(m):
    f = m.files[-1]
    if f.kind != 1 or len(m.name(f)) > 200:
        raise Skip()
    longer = m.name(f) + b"\0"[:0] + b"\1"
    m.verbatim[longer] = m.verbatim[m.name(f)]
    m.files.append(f.copy(name_off=m.add_string(longer), name_len=len(longer)))


# ---- targets ------------------------------------------------------------------------------------

def task(t):
    return t.kind == 1


def shmem(t):
    return t.kind == 2


def target_case(name, want, cls=CORRUPT, rule="R-target", section="targets", **fields):
    add("target-" + name, rule, cls, section, assign("targets", want, **fields))


target_case("kind-0", task, cls=UNSUPPORTED, kind=0)
target_case("kind-4", shmem, cls=UNSUPPORTED, kind=4)
target_case("kind-max", task, cls=UNSUPPORTED, kind=0xffffffff)
target_case("reserved", task, rule="R-reserved", reserved=1)
target_case("nr-pages", lambda t: t.nr_ops, nr_pages=lambda v: v + 1)
target_case("first-op", lambda t: t.nr_ops, first_op=lambda v: v + 1)
target_case("nr-ops-max", lambda t: t.nr_ops, nr_ops=M64)
target_case("first-lane", lambda t: t.nr_lanes, first_lane=lambda v: v + 1)
target_case("nr-lanes-max", lambda t: t.nr_lanes, nr_lanes=0xffffffff)
target_case("file-range", task, file=1 << 20)
target_case("file-max", task, file=0xffffffff)
target_case("parent-range", task, parent=1 << 20)
target_case("parent-max", task, parent=0xffffffff)
target_case("shmem-parent", shmem, parent=1)


def target_number(m, want):
    return m.targets.index(pick(m.targets, want))


@mutator("target-file-kind-2", "R-target", CORRUPT, "targets")
def _(m):
    pick(m.targets).file = m.files.index(pick(m.files, kind(2)))


@mutator("target-parent-self", "R-target", CORRUPT, "targets")
def _(m):
    i = target_number(m, lambda t: task(t) and not t.parent)
    m.targets[i].parent = i + 1


@mutator("target-parent-circle", "R-target", CORRUPT, "targets")
def _(m):
    child = pick(m.targets, lambda t: task(t) and t.parent)
    m.targets[child.parent - 1].parent = m.targets.index(child) + 1


@mutator("target-parent-shmem", "R-target", CORRUPT, "targets")
def _(m):
    pick(m.targets, task).parent = 1 + target_number(m, shmem)


@mutator("target-order", "R-target", CORRUPT, "targets")
def _(m):
    a, b = pick_pair([t for t in m.targets if task(t)])
    a.id, b.id = b.id, a.id


@mutator("target-twice", "R-target", CORRUPT, "targets")
def _(m):
    a, b = pick_pair([t for t in m.targets if task(t)])
    b.id = a.id


@mutator("target-kind-order", "R-target", CORRUPT, "targets")
def _(m):
    m.targets.append(pick(m.targets, task).copy(
        id=M64, first_op=len(m.ops), nr_ops=0, nr_pages=0, first_lane=len(m.lanes), nr_lanes=0))
    pick(m.targets, shmem)


@mutator("target-ops-short", "R-target", CORRUPT, ("ops", "targets"))
def _(m):
    m.ops.append(pick(m.ops).copy())


@mutator("target-lanes-short", "R-target", CORRUPT, ("lanes", "targets"))
def _(m):
    m.lanes.append(pick(m.lanes).copy())


@mutator("target-lane-without-ops", "R-target", CORRUPT, ("targets", "lanes"))
def _(m):
    t = m.targets[-1]
    m.ops = m.ops[:t.first_op]
    m.lanes = m.lanes[:t.first_lane + 1]
    t.nr_ops, t.nr_pages, t.nr_lanes = 0, 0, 1
    m.lanes[-1].target = len(m.targets) - 1


# ---- ops ----------------------------------------------------------------------------------------

def add_op_case(name, change, rule="R-op"):
    add("op-" + name, rule, CORRUPT, "ops", fixed(change))


add_op_case("chunk", lambda m: setattr(pick(m.ops), "chunk", len(m.chunks)))
add_op_case("pages-0", assign("ops", nr_pages=0))
add_op_case("pages-max", assign("ops", nr_pages=0xffff))
add_op_case("first-page", lambda m: setattr(
    pick(m.ops), "first_page", m.chunks[pick(m.ops).chunk].nr_pages))
add_op_case("first-page-max", assign("ops", first_page=0xffff))
for _bit in range(2, 12):
    add_op_case("flag-%d" % _bit, assign("ops", place=lambda v, b=_bit: v | 1 << b),
                rule="R-reserved")


def unfixed_chunk(m):
    pick(m.ops).chunk = 0xffffffff


MUTATORS.pop("op-chunk")
add("op-chunk", "R-op", CORRUPT, "ops", lambda m: setattr(pick(m.ops), "chunk", len(m.chunks)))
add("op-chunk-max", "R-op", CORRUPT, "ops", unfixed_chunk)


def op_pair(m, want=lambda a, b: True):
    """Two neighbours of one target."""
    for t in m.targets:
        for i in range(t.first_op, t.first_op + t.nr_ops - 1):
            if want(m.ops[i], m.ops[i + 1]):
                return m.ops[i], m.ops[i + 1]
    raise Skip()


def drop_plan_extras(m):
    """No huge ranges and no inherit flags, so that addresses may change."""
    m.huge = []
    for op in m.ops:
        op.place &= ~1


@mutator("op-overlap", "R-op", CORRUPT, "ops")
def _(m):
    drop_plan_extras(m)
    a, b = op_pair(m)
    b.place = a.place & ~4095 | b.place & 4095


@mutator("op-overlap-tail", "R-op", CORRUPT, "ops")
def _(m):
    drop_plan_extras(m)
    a, b = op_pair(m, lambda a, b: a.nr_pages > 1)
    b.place = (a.place & ~4095) + (a.nr_pages - 1) * PAGE | b.place & 4095


@mutator("op-order", "R-op", CORRUPT, "ops")
def _(m):
    drop_plan_extras(m)
    a, b = op_pair(m)
    a.place, b.place = b.place, a.place


def last_op(m):
    t = pick(m.targets, lambda t: task(t) and t.nr_ops)
    return m.ops[t.first_op + t.nr_ops - 1]


@mutator("op-above-2-63", "R-op", CORRUPT, "ops")
def _(m):
    drop_plan_extras(m)
    op = last_op(m)
    op.place = 1 << 63 | op.place & 4095


@mutator("op-across-2-63", "R-op", CORRUPT, "ops")
def _(m):
    drop_plan_extras(m)
    op = last_op(m)
    op.place = (1 << 63) - (op.nr_pages - 1) * PAGE | op.place & 4095


@mutator("op-wraps", "R-op", CORRUPT, "ops")
def _(m):
    drop_plan_extras(m)
    op = last_op(m)
    op.place = (1 << 64) - PAGE | op.place & 4095


@mutator("op-direct-lz4", "R-op", CORRUPT, "ops")
def _(m):
    pick(m.ops, lambda op: m.chunks[op.chunk].codec == LZ4).place |= 2


@mutator("op-direct-zstd", "R-op", CORRUPT, "ops")
def _(m):
    pick(m.ops, lambda op: m.chunks[op.chunk].codec == ZSTD).place |= 2


@mutator("op-inherit-no-parent", "R-op", CORRUPT, "ops")
def _(m):
    t = pick(m.targets, lambda t: not t.parent and t.nr_ops)
    m.ops[t.first_op].place |= 1


def inheriting(m):
    return pick(m.ops, lambda op: op.place & 1)


@mutator("op-inherit-other-page", "R-op", CORRUPT, "ops")
def _(m):
    op = pick(m.ops, lambda op: op.place & 1 and m.chunks[op.chunk].nr_pages > op.nr_pages)
    op.first_page = op.first_page - 1 if op.first_page else 1


@mutator("op-inherit-other-chunk", "R-op", CORRUPT, "ops")
def _(m):
    op = inheriting(m)
    other = pick([c for c in range(len(m.chunks)) if c != op.chunk and m.chunks[c].nr_pages
                  >= op.first_page + op.nr_pages and m.chunks[c].codec in (ZERO, RAW)])
    op.chunk = other
    m.fix_sums()


@mutator("op-inherit-absent", "R-op", CORRUPT, "ops")
def _(m):
    """the parent has nothing there: a page that only the child has"""
    for t in m.targets:
        if not t.parent or not t.nr_ops:
            continue
        parent = m.targets[t.parent - 1]
        have = {(o.place >> 12) + k for o in m.ops[parent.first_op:][:parent.nr_ops]
                for k in range(o.nr_pages)}
        for op in m.ops[t.first_op:t.first_op + t.nr_ops]:
            if not op.place & 1 and op.place >> 12 not in have:
                op.place |= 1
                return
    raise Skip()


@mutator("op-inherit-parent-gone", "R-op", CORRUPT, "ops")
def _(m):
    inheriting(m)
    for t in m.targets:
        t.parent = 0


@mutator("op-not-inherited", "R-op", ACCEPT)
def _(m):
    for op in m.ops:
        op.place &= ~1


# ---- lanes --------------------------------------------------------------------------------------

def lane_case(name, rule="R-lane", want=lambda lane: True, **fields):
    add("lane-" + name, rule, CORRUPT, ("lanes", "targets"), assign("lanes", want, **fields))


lane_case("reserved", rule="R-reserved", reserved=1)
lane_case("read-bytes", read_bytes=lambda v: v + 1)
lane_case("read-bytes-max", read_bytes=M64)
lane_case("fill-bytes", fill_bytes=lambda v: v + PAGE)
lane_case("fill-bytes-0", fill_bytes=0)
lane_case("target", target=lambda v: v + 1)
lane_case("target-max", target=0xffffffff)
lane_case("first-op", first_op=lambda v: v + 1)
lane_case("nr-ops-0", nr_ops=0)
lane_case("nr-ops-max", nr_ops=M64)


@mutator("lane-nr-ops-wraps", "R-lane", CORRUPT, ("lanes", "targets"))
def _(m):
    lane = pick(m.lanes, lambda lane: lane.first_op)
    lane.nr_ops = (1 << 64) - lane.first_op


@mutator("lane-swapped", "R-lane", CORRUPT, ("lanes", "targets"))
def _(m):
    for i in range(len(m.lanes) - 1):
        if m.lanes[i].target == m.lanes[i + 1].target:
            m.lanes[i], m.lanes[i + 1] = m.lanes[i + 1], m.lanes[i]
            return
    raise Skip()


@mutator("lane-last-short", "R-lane", CORRUPT, ("lanes", "targets"))
def _(m):
    """the last op of a target is in no lane"""
    lane = pick(m.lanes, lambda lane: lane.nr_ops > 1)
    lane.nr_ops -= 1
    m.fix_sums()


@mutator("lane-none", "R-lane", CORRUPT, ("targets", "lanes"))
def _(m):
    """a target with ops and without lanes"""
    t = m.targets[-1]
    if not t.nr_ops:
        raise Skip()
    del m.lanes[t.first_lane:]
    t.nr_lanes = 0


@mutator("lane-past-target", "R-lane", CORRUPT, ("lanes", "targets"))
def _(m):
    """a lane goes on into the ops of the next target"""
    for t in m.targets:
        if t.nr_ops and t.first_op + t.nr_ops < len(m.ops):
            m.lanes[t.first_lane + t.nr_lanes - 1].nr_ops += 1
            m.fix_sums()
            return
    raise Skip()


# ---- huge ---------------------------------------------------------------------------------------

def huge_case(name, **fields):
    add("huge-" + name, "R-huge", CORRUPT, "huge", assign("huge", **fields))


huge_case("unaligned", address=lambda v: v + PAGE)
huge_case("nr-0", nr_huge=0)
huge_case("nr-more", nr_huge=lambda v: v + 1)
huge_case("nr-max", nr_huge=0xffffffff)
huge_case("target-range", target=1 << 20)
huge_case("not-filled", address=lambda v: v + (1 << 45))
huge_case("address-max", address=M64 & ~(2 << 20) + 1)


@mutator("huge-shmem", "R-huge", CORRUPT, "huge")
def _(m):
    m.huge = [Huge(0, 1, target_number(m, shmem))]


@mutator("huge-order", "R-huge", CORRUPT, "huge")
def _(m):
    pick_pair(m.huge)
    m.huge.reverse()


@mutator("huge-twice", "R-huge", CORRUPT, "huge")
def _(m):
    m.huge.append(m.huge[-1].copy() if m.huge else pick(m.huge))


@mutator("huge-touch", "R-huge", CORRUPT, "huge")
def _(m):
    """one range of two units said as two"""
    for i, h in enumerate(m.huge):
        if h.nr_huge > 1:
            m.huge.insert(i + 1, h.copy(address=h.address + (2 << 20), nr_huge=h.nr_huge - 1))
            h.nr_huge = 1
            return
    raise Skip()


@mutator("huge-none", "R-huge", ACCEPT)
def _(m):
    m.huge = []


@mutator("huge-hole", "R-huge", CORRUPT, "huge")
def _(m):
    """the last page of a range is not filled"""
    h = pick(m.huge)
    t = m.targets[h.target]
    end = h.address + h.nr_huge * (2 << 20)
    for op in m.ops[t.first_op:t.first_op + t.nr_ops]:
        if (op.place & ~4095) + op.nr_pages * PAGE == end and op.nr_pages > 1:
            op.nr_pages -= 1
            m.fix_sums()
            return
    raise Skip()


# ---- pagemap ------------------------------------------------------------------------------------

def pagemap_of(m, t):
    return m.files[t.file]


def change_runs(m, t, change):
    """Rewrites the pagemap file of a target; the checksum of the file follows."""
    f = pagemap_of(m, t)
    pages_id, runs = criuimg.parse_pagemap(m.verbatim[m.name(f)])
    m.verbatim[m.name(f)] = criuimg.pagemap(pages_id, change(runs))
    m.fix_file(f)


@mutator("pagemap-more", "R-pagemap", CORRUPT, "targets")
def _(m):
    change_runs(m, pick(m.targets, task), lambda r: r + [(0x7fff80000000, 1, 4)])


@mutator("pagemap-less", "R-pagemap", CORRUPT, "targets")
def _(m):
    change_runs(m, pick(m.targets, lambda t: t.nr_ops), lambda r: r[1:])


@mutator("pagemap-moved", "R-pagemap", CORRUPT, "targets")
def _(m):
    change_runs(m, pick(m.targets, lambda t: task(t) and t.nr_ops),
                lambda r: r[:-1] + [(r[-1][0] + PAGE,) + r[-1][1:]])


@mutator("pagemap-shmem-more", "R-pagemap", CORRUPT, "targets")
def _(m):
    change_runs(m, pick(m.targets, shmem), lambda r: r + [(1 << 40, 1, 4)])


@mutator("pagemap-garbage", "R-pagemap", CORRUPT, "targets")
def _(m):
    f = pagemap_of(m, pick(m.targets))
    m.verbatim[m.name(f)] = b"this is no pagemap"
    m.fix_file(f)


@mutator("pagemap-cut", "R-pagemap", CORRUPT, "targets")
def _(m):
    f = pagemap_of(m, pick(m.targets, lambda t: t.nr_ops))
    m.verbatim[m.name(f)] = m.verbatim[m.name(f)][:-1]
    m.fix_file(f)


@mutator("pagemap-compressed", "R-pagemap", ACCEPT, None)
def _(m):
    """how the pages file was compressed means nothing in an image: wrong blocks, and newer fields"""
    f = pagemap_of(m, pick(m.targets, lambda t: task(t) and t.nr_ops))
    pages_id, runs = criuimg.parse_pagemap(m.verbatim[m.name(f)])
    rows = [criuimg.encode([(1, vaddr), (2, nr & 0xffffffff), (4, flags | 8), (5, nr), (6, b"no blocks"),
                            (7, 1)]) for vaddr, nr, flags in runs]
    m.verbatim[m.name(f)] = criuimg.image("pagemap", [criuimg.encode([(1, pages_id)])] + rows)
    m.fix_file(f)


@mutator("pagemap-of-another", "R-pagemap", CORRUPT, "targets")
def _(m):
    a, b = pick_pair([t for t in m.targets if t.nr_ops])
    a.file, b.file = b.file, a.file


@mutator("op-moved", "R-pagemap", CORRUPT, "targets")
def _(m):
    drop_plan_extras(m)
    last_op(m).place += 64 * PAGE


# ---- device memory ------------------------------------------------------------------------------

def device(t):
    return t.kind == 3


def device_table(m):
    """The target, the file and the parts of the table of an image with device memory."""
    t = pick(m.targets, device)
    f = m.files[t.file]
    devices, allocs = gpuimg.parse(m.verbatim[m.name(f)], t.id)
    return t, f, devices, allocs


def gpu_table(name, rule="R-gpu", cls=CORRUPT, devices=None, allocs=None, data=None, **fields):
    """
    The table is what devices(list) and allocs(list) make of its parts, with fields of the header
    set; or, in the end, what data(bytes) makes of it.
    """
    def change(m):
        t, f, devs, alls = device_table(m)
        table = gpuimg.pack(t.id, devices(devs) if devices else devs,
                            allocs(alls) if allocs else alls, **fields)
        m.verbatim[m.name(f)] = data(table) if data else table
        m.fix_file(f)
    add("gpu-" + name, rule, cls, "targets" if cls != ACCEPT else None, change)


def entry(i, k, value):
    """A change of field k of entry i of a list."""
    def change(rows):
        new = list(rows[i])
        new[k] = value(new[k]) if callable(value) else value
        return rows[:i] + [tuple(new)] + rows[i + 1:]
    return change


gpu_table("magic", magic=b"CKFASTIX")
gpu_table("major-3", cls=UNSUPPORTED, major=3)
gpu_table("major-2", major=2)
gpu_table("major-0", major=0)
gpu_table("minor", cls=ACCEPT, minor=7)
gpu_table("header-bytes", header_bytes=128)
gpu_table("pid", data=lambda d: gpuimg.pack(6, *gpuimg.parse(d, 5)))
gpu_table("nr-devices-more", nr_devices=3)
gpu_table("nr-devices-65", devices=lambda d: [gpuimg.device(i) for i in range(65)])
gpu_table("nr-devices-max", nr_devices=0xffffffff)
gpu_table("nr-allocs-less", nr_allocs=2)
gpu_table("nr-allocs-more", nr_allocs=4)
gpu_table("nr-allocs-max", nr_allocs=0xffffffff)
gpu_table("reserved", rule="R-reserved", reserved=1)
gpu_table("reserved-first", rule="R-reserved", reserved2=b"\1" + bytes(15))
gpu_table("reserved-last", rule="R-reserved", reserved2=bytes(15) + b"\1")
gpu_table("pages-bytes", pages_bytes=6 << 20)
gpu_table("pages-bytes-max", pages_bytes=M64)
gpu_table("checksum", checksum=5)
gpu_table("longer", data=lambda d: d + bytes(8))
gpu_table("shorter", data=lambda d: d[:-8])
gpu_table("header-cut", data=lambda d: d[:63])
gpu_table("empty", data=lambda d: b"")
gpu_table("device-name-no-end", devices=entry(0, 4, b"x" * 64))
gpu_table("device-name-64", cls=ACCEPT, devices=entry(0, 4, b"x" * 63))
gpu_table("device-name-tail", rule="R-padding", devices=entry(1, 4, b"x\0y"))
gpu_table("device-reserved", rule="R-reserved", devices=entry(0, 3, 1))
gpu_table("device-ordinal-twice", devices=entry(1, 2, 1))
gpu_table("alloc-unaligned", allocs=entry(2, 0, lambda v: v + PAGE))
gpu_table("alloc-bytes-0", allocs=entry(0, 1, 0))
gpu_table("alloc-bytes-odd", allocs=entry(1, 1, 3 << 20))
gpu_table("alloc-bytes-max", allocs=entry(2, 1, M64 & ~((2 << 20) - 1)))
gpu_table("alloc-order", allocs=lambda a: a[::-1])
gpu_table("alloc-twice", allocs=lambda a: a[:1] + a)
gpu_table("alloc-overlap", allocs=entry(1, 0, lambda v: v - (2 << 20)))
gpu_table("alloc-across-2-63", allocs=entry(2, 0, (1 << 63)))
gpu_table("alloc-device", allocs=entry(0, 2, 2))
gpu_table("alloc-flags", rule="R-reserved", allocs=entry(0, 3, 2))
gpu_table("alloc-flag-0", cls=ACCEPT, allocs=entry(0, 3, 1))


def shared(flags, ident, more=()):
    """The first allocation has these flags and this shared id; and there are more."""
    def change(rows):
        rows = list(rows) + list(more)
        rows[0] = rows[0][:3] + (flags, 0, ident)
        return rows
    return change


SHARED_ID = b"0123456789abcdef"


def imported(nr_bytes=2 << 20, ident=SHARED_ID, reserved=0):
    return [(1 << 47, nr_bytes, 0, 6, reserved, ident)]


gpu_table("alloc-shared", cls=ACCEPT, allocs=shared(2, SHARED_ID))
gpu_table("alloc-imported", cls=ACCEPT, allocs=shared(2, SHARED_ID, imported()))
gpu_table("alloc-import-no-owner", allocs=shared(2, SHARED_ID, imported(ident=b"x" * 16)))
gpu_table("alloc-import-longer", allocs=shared(2, SHARED_ID, imported(1 << 40)))
gpu_table("alloc-import-reserved", rule="R-reserved",
          allocs=shared(2, SHARED_ID, imported(reserved=1)))
gpu_table("major-2-not-shared", allocs=lambda a: [r[:5] + (bytes(16),) for r in a])
gpu_table("alloc-two-owners", allocs=lambda a: [r[:3] + (2, 0, SHARED_ID) for r in a])
gpu_table("alloc-shared-id-0", allocs=shared(2, bytes(16)))
gpu_table("alloc-shared-id-not-shared", allocs=shared(0, SHARED_ID))
gpu_table("alloc-import-not-shared", allocs=shared(4, SHARED_ID))
gpu_table("alloc-shared-flags", rule="R-reserved", allocs=shared(10, SHARED_ID))
gpu_table("alloc-reserved", rule="R-reserved", allocs=entry(1, 4, 1 << 63))
gpu_table("alloc-more", rule="R-pagemap", allocs=lambda a: a + [(1 << 47, 2 << 20, 0, 0, 0)])
gpu_table("alloc-less", rule="R-pagemap", allocs=lambda a: a[:-1])
gpu_table("alloc-moved", rule="R-pagemap", allocs=entry(2, 0, lambda v: v + (2 << 20)))


def toggle_device_bit(lay):
    lay.header["incompat"] ^= 16


add("gpu-feature-missing", "R-feature", CORRUPT, "header",
    both(lambda m: pick(m.targets, device), layout(toggle_device_bit)))
add("feature-devices-extra", "R-feature", CORRUPT, "header", layout(toggle_device_bit))
target_case("device-parent", device, parent=1)
MUTATORS["gpu-parent"] = MUTATORS.pop("target-device-parent")


def device_op(m, want):
    t = pick(m.targets, device)
    return pick(m.ops[t.first_op:t.first_op + t.nr_ops], want)


for _bit, _name in ((1, "inherit"), (2, "direct")):
    add("gpu-op-" + _name, "R-gpu", CORRUPT, "ops", lambda m, bit=_bit: setattr(
        device_op(m, lambda op: m.chunks[op.chunk].codec == RAW), "place",
        device_op(m, lambda op: m.chunks[op.chunk].codec == RAW).place | bit))


@mutator("gpu-huge", "R-huge", CORRUPT, "huge")
def _(m):
    i = target_number(m, device)
    m.huge.append(Huge(m.ops[m.targets[i].first_op].place & ~4095, 1, i))


@mutator("gpu-op-short", "R-pagemap", CORRUPT, "targets")
def _(m):
    """the last page of an allocation has no op"""
    device_op(m, lambda op: op.nr_pages > 1).nr_pages -= 1
    m.fix_sums()


@mutator("gpu-target-missing", "R-pagemap", CORRUPT, "targets")
def _(m):
    t = pick(m.targets, device)
    del m.ops[t.first_op:], m.lanes[t.first_lane:]
    m.targets.remove(t)


def pages_of_device(m):
    name = gpuimg.pages_name(pick(m.targets, device).id)
    return pick(m.files, lambda f: m.name(f) == name)


@mutator("gpu-pages-missing", "R-gpu", CORRUPT, "targets")
def _(m):
    f = pages_of_device(m)
    f.name_off = m.add_string(m.name(f)[:-1] + b"h")


@mutator("gpu-pages-verbatim", "R-gpu", CORRUPT, "targets")
def _(m):
    """the contents are a file of their own"""
    f = pages_of_device(m)
    later = [g for g in m.files if g.kind == 2 and g.first_ref > f.first_ref]
    del m.refs[f.first_ref:f.first_ref + f.nr_refs]
    for g in later:
        g.first_ref -= f.nr_refs
    f.kind, f.first_ref, f.nr_refs = 1, 0, 0
    m.verbatim[m.name(f)] = b"these"
    m.fix_file(f)


@mutator("gpu-pages-longer", "R-gpu", CORRUPT, "targets")
def _(m):
    """one chunk of zeros more at the end of the contents"""
    f = pages_of_device(m)
    zero = pick(numbers(m, codec_is(ZERO)))
    old = b"".join(m.chunk_data(m.chunks[r.chunk])
                   for r in m.refs[f.first_ref:f.first_ref + f.nr_refs])
    m.refs.insert(f.first_ref + f.nr_refs, ckwrite.Ref(zero))
    for g in m.files:
        if g.kind == 2 and g.first_ref > f.first_ref:
            g.first_ref += 1
    f.nr_refs += 1
    f.size_bytes += m.chunks[zero].nr_pages * PAGE
    f.checksum = ckread.xxh64(old + bytes(m.chunks[zero].nr_pages * PAGE))


# ---- pack ---------------------------------------------------------------------------------------

def pack_case(name, rule, cls=CORRUPT, **fields):
    add("pack-" + name, rule, cls, "pack", lambda m: m.pack_header.update(fields))


pack_case("magic", "R-magic", magic=b"CKFASTIX")
pack_case("major-2", "R-version", UNSUPPORTED, major=2)
pack_case("major-0", "R-version", major=0)
pack_case("extent", "R-extent", extent_bytes=1 << 20)
pack_case("id", "R-packid", image_id=b"\1" * 16)
pack_case("bytes", "R-pack", pack_bytes=1 << 40)
pack_case("reserved-first", "R-reserved", reserved=b"\1" + bytes(15))
pack_case("reserved-last", "R-reserved", reserved=bytes(15) + b"\1")
pack_case("checksum", "R-checksum", checksum=1)


def pack_byte(where):
    def change(m):
        off = where(m)
        m.pack[off] ^= 0x40
    return change


def chunk_end(c):
    return c.pack_off + c.stored_bytes


def after_chunk(m):
    """The first byte after a chunk that does not fill its last page, and that none follows on."""
    starts = {c.pack_off for c in m.chunks if not c.base}
    return chunk_end(pick(m.chunks, lambda c: chunk_end(c) % PAGE and chunk_end(c) not in starts))


add("pack-header-padding", "R-padding", CORRUPT, "pack", pack_byte(lambda m: 64))
add("pack-header-padding-last", "R-padding", CORRUPT, "pack", pack_byte(lambda m: PAGE - 1))
add("pack-padding", "R-padding", CORRUPT, "pack", pack_byte(after_chunk))
add("pack-padding-tail", "R-padding", CORRUPT, "pack",
    both(lambda m: m.pack.extend(bytes(PAGE)), pack_byte(lambda m: -1)))


@mutator("pack-of-another", "R-packid", CORRUPT, "pack", on_disk=True)
def _(out):
    """a pack that is right in itself and belongs to an image with other checksums"""
    other = Model.load(out)
    other.add_string(b"another image")
    _, pack = other.build()
    with open(os.path.join(out, ckread.PACK), "wb") as f:
        f.write(pack)


# ---- chunks that begin within a page -------------------------------------------------------------

def within_page(c):
    return c.pack_off % PAGE


def packed_only(change):
    def changed(m):
        pick(m.chunks, within_page)
        change(m)
    return changed


def packed_pair(m):
    """The first two chunks of which one begins within a page, where the other one ends."""
    for a, b in zip(m.chunks, m.chunks[1:]):
        if within_page(b) and a.base == b.base and chunk_end(a) == b.pack_off:
            return a, b
    raise Skip()


def shift(m, chunk, by):
    """The chunk at another place, its bytes with it."""
    old, size = chunk.pack_off, chunk.stored_bytes
    data = bytes(m.pack[old:old + size])
    m.pack[old:old + size] = bytes(size)
    chunk.pack_off += by
    m.pack[chunk.pack_off:chunk.pack_off + size] = data


add("packed-feature-missing", "R-feature", CORRUPT, "header", packed_only(incompat_flip(32)))
add("feature-packed-extra", "R-feature", CORRUPT, "header", both(only_raw, incompat_flip(32)))


def has_pages(m):
    pick(m.files, lambda f: f.kind == 2 and f.size_bytes)


add("file-pages-sum", "R-file", CORRUPT, "files", both(has_pages, incompat_flip(64)))


@mutator("feature-sums-extra", "R-feature", CORRUPT, "header")
def _(m):
    """no pages files, and the bit that says how their checksums are made"""
    number = {}
    for i, f in enumerate(m.files):
        if f.kind != 2:
            number[i] = len(number)
    m.files = [f for f in m.files if f.kind != 2]
    m.refs = []
    for t in m.targets:
        t.file = number[t.file]
    m.page_sums = False
    incompat_bit(6)(m)


# ---- memory of AMD GPUs ------------------------------------------------------------------------

def amd(t):
    return t.kind == 3 and t.id >> 32


def amd_table(name, rule="R-gpu", cls=CORRUPT, devices=None, objects=None, data=None, **counts):
    """
    The table is that of ckwrite.with_amd(), of which devices(list) and objects(list) make others,
    with other counts; or, in the end, what data(bytes) makes of it.
    """
    def change(m):
        f = m.files[pick(m.targets, amd).file]
        top = criuimg.decode(m.verbatim[m.name(f)][8:])
        devs, objs = top[4], top[6]
        table = amdimg.table(5, devices(devs) if devices else devs,
                             objects(objs) if objects else objs, **counts)
        m.verbatim[m.name(f)] = data(table) if data else table
        m.fix_file(f)
    add("amd-" + name, rule, cls, "targets" if cls != ACCEPT else None, change)


def amd_obj(i, *args, **kwargs):
    """A change of object i."""
    return lambda objs: objs[:i] + [amdimg.obj(*args, **kwargs)] + objs[i + 1:]


# The objects: 2 MiB on beef, 5 pages on 1a, a doorbell there, 2 MiB and 5 pages there, a userptr.
amd_table("empty", data=lambda d: b"")
amd_table("head-cut", data=lambda d: d[:7])
amd_table("cut", data=lambda d: d[:-1])
amd_table("message-cut", data=lambda d: amdimg.sized(d[8:-1]))
amd_table("length-2-26", data=lambda d: amdimg.sized(d[8:] + criuimg.encode([(10, bytes(1 << 26))])))
amd_table("behind", cls=ACCEPT, data=lambda d: d + b"behind")
amd_table("gpus-more", nr_gpus=3)
amd_table("gpus-less", nr_gpus=1, nr_cpus=2)
amd_table("cpus-less", nr_cpus=0)
amd_table("objects-more", nr_objects=6)
amd_table("objects-less", nr_objects=4)
amd_table("gpu-twice", devices=lambda d: d[:2] + [amdimg.device(0x1a), amdimg.device(0x1a)])
amd_table("gpu-gone", devices=lambda d: d[:2])
amd_table("gpu-new", cls=ACCEPT, devices=lambda d: d + [amdimg.device(3)])
amd_table("gpus-65", devices=lambda d: d + [amdimg.device(i) for i in range(100, 163)])
amd_table("gpus-64", cls=ACCEPT, devices=lambda d: d + [amdimg.device(i) for i in range(100, 162)])
amd_table("gpu-no-vram", devices=lambda d: d[:2] + [criuimg.encode([(2, 0xbeef)])])
amd_table("object-no-bytes", objects=lambda o: o[:2] + [criuimg.encode([(1, 0), (4, 8), (5, 0x1a)])
                                                        ] + o[3:])
amd_table("object-of-no-gpu", objects=amd_obj(2, 3, PAGE, amdimg.DOORBELL))
amd_table("object-of-cpu", objects=amd_obj(2, 0, PAGE, amdimg.DOORBELL))
amd_table("object-bytes-0", objects=amd_obj(1, 0x1a, 0))
amd_table("object-bytes-odd", objects=amd_obj(1, 0x1a, 5 * PAGE - 1))
amd_table("object-bytes-2-63", objects=amd_obj(1, 0x1a, 1 << 63))
amd_table("object-bytes", rule="R-pagemap", objects=amd_obj(1, 0x1a, 4 * PAGE))
amd_table("object-addr", cls=ACCEPT, objects=amd_obj(1, 0x1a, 5 * PAGE, amdimg.GTT, addr=M64))
amd_table("object-flags", cls=ACCEPT, objects=amd_obj(1, 0x1a, 5 * PAGE, amdimg.GTT | 1 << 31))
amd_table("object-order", rule="R-pagemap", objects=lambda o: o[::-1])
amd_table("object-gone", rule="R-pagemap", objects=lambda o: o[:1] + o[2:])
amd_table("object-new", rule="R-pagemap", objects=lambda o: o + [amdimg.obj(0x1a, PAGE)])
amd_table("object-without", rule="R-pagemap", objects=amd_obj(1, 0x1a, 5 * PAGE, amdimg.USERPTR))
amd_table("gpu-without", objects=amd_obj(0, 0xbeef, 2 << 20, amdimg.USERPTR))


def last_amd(m):
    """The last target, and its pages file."""
    t = pick(m.targets[::-1], amd)
    name = amdimg.pages_name(t.id >> 32, t.id & 0xffffffff)
    return t, pick(m.files, lambda f: m.name(f) == name)


def drop_last_amd(m):
    t, _ = last_amd(m)
    del m.ops[t.first_op:], m.lanes[t.first_lane:]
    m.targets.remove(t)


def keep_last_amd(m):
    """The contents become a file of their own."""
    _, f = last_amd(m)
    data = b"".join(m.chunk_data(m.chunks[r.chunk])
                    for r in m.refs[f.first_ref:f.first_ref + f.nr_refs])
    del m.refs[f.first_ref:f.first_ref + f.nr_refs]
    for g in m.files:
        if g.kind in ckread.WITH_PAGES and g.first_ref > f.first_ref:
            g.first_ref -= f.nr_refs
    f.kind, f.first_ref, f.nr_refs = 1, 0, 0
    m.verbatim[m.name(f)] = amdimg.sized(data)
    m.fix_file(f)


add("amd-kept", "R-gpu", ACCEPT, None, both(keep_last_amd, drop_last_amd))
add("amd-kept-target", "R-gpu", CORRUPT, "targets", keep_last_amd)
add("amd-target-missing", "R-gpu", CORRUPT, "targets", drop_last_amd)
add("amd-target-gpu", "R-gpu", CORRUPT, "targets",
    lambda m: setattr(last_amd(m)[0], "id", 7 << 32 | 0xbef0))
add("amd-target-file", "R-pagemap", CORRUPT, "targets",
    lambda m: setattr(last_amd(m)[0], "id", 8 << 32 | 0xbeef))
add("amd-feature-missing", "R-feature", CORRUPT, "header", both(last_amd, incompat_flip(128)))
add("feature-sized-extra", "R-feature", CORRUPT, "header", incompat_flip(128))
add("amd-size-no-head", "R-file", CORRUPT, "files", lambda m: setattr(
    last_amd(m)[1], "size_bytes", last_amd(m)[1].size_bytes - 8))
add("amd-checksum", "R-file", CORRUPT, "files", lambda m: setattr(
    last_amd(m)[1], "checksum", last_amd(m)[1].checksum ^ 1))
add("amd-link-target", "R-file", CORRUPT, "files", lambda m: setattr(
    last_amd(m)[1], "target_len", 1))


@mutator("amd-target-empty", "R-gpu", CORRUPT, "targets")
def _(m):
    """a target of a GPU on which no object has contents"""
    MUTATORS["amd-gpu-without"].change(m)
    t, f = last_amd(m)
    del m.ops[t.first_op:], m.lanes[t.first_lane:]
    del m.refs[f.first_ref:f.first_ref + f.nr_refs]
    for g in m.files:
        if g.kind in ckread.WITH_PAGES and g.first_ref > f.first_ref:
            g.first_ref -= f.nr_refs
    t.nr_ops = t.nr_lanes = f.nr_refs = 0
    f.size_bytes, f.checksum = 8, ckread.xxh64(b"")
    m.fix_sums()


@mutator("amd-pages-kind-2", "R-gpu", CORRUPT, "targets")
def _(m):
    f = last_amd(m)[1]
    f.kind, f.size_bytes = 2, f.size_bytes - 8


@mutator("amd-op-short", "R-pagemap", CORRUPT, "targets")
def _(m):
    """the last page of an object has no op"""
    m.ops[last_amd(m)[0].first_op].nr_pages -= 1
    m.fix_sums()


# ---- buffer objects of render nodes ------------------------------------------------------------

def render(m, ident=7):
    """The table of file ident of ckwrite.with_render()."""
    return pick(m.files, lambda f: m.name(f) == amdimg.render_name(ident))


def render_table(name, rule="R-gpu", cls=CORRUPT, objects=None, data=None, gpu=0x1a, ident=7,
                 minor=128, count=None):
    """The table of file 7, of which objects(list) makes another, or data(bytes) in the end."""
    def change(m):
        f = render(m)
        objs = criuimg.decode(m.verbatim[m.name(f)][8:])[5]
        table = amdimg.sized(amdimg.render_message(gpu, ident, minor,
                                                   objects(objs) if objects else objs, count))
        m.verbatim[m.name(f)] = data(table) if data else table
        m.fix_file(f)
    add("render-" + name, rule, cls, "targets" if cls != ACCEPT else None, change)


def render_obj(i, size):
    return lambda objs: objs[:i] + [amdimg.render_obj(size)] + objs[i + 1:]


# The objects: 2 MiB and 5 pages, 100 bytes that are a file of their own, 5 pages.
render_table("empty", data=lambda d: b"")
render_table("head-cut", data=lambda d: d[:7])
render_table("cut", data=lambda d: d[:-1])
render_table("message-cut", data=lambda d: amdimg.sized(d[8:-1]))
render_table("length-2-22",
             data=lambda d: amdimg.sized(d[8:] + criuimg.encode([(10, bytes(1 << 22))])))
render_table("behind", cls=ACCEPT, data=lambda d: d + b"behind")
render_table("unknown", cls=ACCEPT,
             data=lambda d: amdimg.sized(d[8:] + criuimg.encode([(6, 1), (7, b"a context")])))
render_table("gpu-0", gpu=0)
render_table("gpu-other", cls=ACCEPT, gpu=0xbeef)
render_table("file-other", ident=8)
render_table("minor-other", minor=129)
render_table("minor-2-31", minor=1 << 31)
render_table("objects-more", count=4)
render_table("objects-less", count=2)
render_table("only-gpu", data=lambda d: amdimg.render_node(0x1a))
render_table("no-minor", data=lambda d: amdimg.sized(criuimg.encode(
    [(1, 0x1a), (2, 7), (4, 3)] + [(5, amdimg.render_obj(n * PAGE)) for n in (517, 1, 5)])))
render_table("object-no-bytes", objects=lambda o: o[:1] + [criuimg.encode([(1, 5)])] + o[2:])
render_table("object-bytes-0", objects=render_obj(2, 0))
render_table("object-bytes-odd", objects=render_obj(2, 5 * PAGE + 1))
render_table("object-bytes-2-63", objects=render_obj(2, 1 << 63))
render_table("object-bytes-less", rule="R-pagemap", objects=render_obj(2, 4 * PAGE))
render_table("object-bytes-more", rule="R-pagemap", objects=render_obj(2, 6 * PAGE))
render_table("object-kept-bytes", cls=ACCEPT, objects=render_obj(1, 0))
render_table("object-kept-2-64", cls=ACCEPT,
             objects=lambda o: [o[0], amdimg.render_obj(M64), o[2], amdimg.render_obj(M64)])
render_table("object-order", rule="R-pagemap", objects=lambda o: o[::-1])
render_table("object-gone", objects=lambda o: o[:2])
render_table("object-new", cls=ACCEPT, objects=lambda o: o + [amdimg.render_obj(PAGE)])


def last_render(m):
    """The last target, which is that of object 2 of file 9, and its pages file."""
    t = m.targets[-1]
    name = amdimg.render_pages_name(t.id >> 32, 129, t.id & 0xffffffff)
    return t, pick(m.files, lambda f: m.name(f) == name)


def drop_last_render(m):
    t, _ = last_render(m)
    del m.ops[t.first_op:], m.lanes[t.first_lane:]
    m.targets.remove(t)


def keep_last_render(m):
    """The contents become a file of their own."""
    _, f = last_render(m)
    data = b"".join(m.chunk_data(m.chunks[r.chunk])
                    for r in m.refs[f.first_ref:f.first_ref + f.nr_refs])
    del m.refs[f.first_ref:f.first_ref + f.nr_refs]
    for g in m.files:
        if g.kind in ckread.WITH_PAGES and g.first_ref > f.first_ref:
            g.first_ref -= f.nr_refs
    f.kind, f.first_ref, f.nr_refs, f.target_off = 1, 0, 0, 0
    m.verbatim[m.name(f)] = amdimg.sized(data)
    m.fix_file(f)


def set_render(what, value):
    return lambda m: setattr(last_render(m)[1], what, value)


add("render-kept", "R-gpu", ACCEPT, None, both(keep_last_render, drop_last_render))
add("render-kept-target", "R-gpu", CORRUPT, "targets", keep_last_render)
add("render-target-missing", "R-gpu", CORRUPT, "targets", drop_last_render)
add("render-target-object", "R-gpu", CORRUPT, "targets",
    lambda m: setattr(last_render(m)[0], "id", 9 << 32 | 3))
add("render-target-file", "R-pagemap", CORRUPT, "targets",
    lambda m: setattr(last_render(m)[0], "id", 10 << 32 | 2))
add("render-head", "R-file", ACCEPT, None, set_render("target_off", 12345))
add("render-feature-missing", "R-feature", CORRUPT, "header", both(last_render, incompat_flip(256)))
add("feature-headed-extra", "R-feature", CORRUPT, "header", incompat_flip(256))
add("render-target-len", "R-file", CORRUPT, "files", set_render("target_len", 8))
add("render-size-no-head", "R-file", CORRUPT, "files", set_render("size_bytes", 2 << 20))
add("render-checksum", "R-file", CORRUPT, "files", set_render("checksum", 1))


@mutator("render-pages-kind-4", "R-gpu", CORRUPT, "targets")
def _(m):
    f = last_render(m)[1]
    f.kind, f.target_off = 4, 0


@mutator("render-kfd", "R-gpu", CORRUPT, "targets")
def _(m):
    """/dev/kfd becomes file 7, too; the order of targets and of names stays"""
    t = pick(m.targets, lambda t: t.id >> 32 == 8)
    f, table = (pick(m.files, lambda f: m.name(f) == name)
                for name in (amdimg.pages_name(8, 0x1a), amdimg.table_name(8)))
    data = m.verbatim.pop(b"amdgpu-kfd-8.img")
    m.strings[table.name_off + len(b"amdgpu-kfd-")] = ord("7")
    m.verbatim[b"amdgpu-kfd-7.img"] = data
    t.id = 7 << 32 | 0x1a
    m.strings[f.name_off + len(b"amdgpu-pages-")] = ord("7")


@mutator("render-op-short", "R-pagemap", CORRUPT, "targets")
def _(m):
    """the last page of an object has no op"""
    m.ops[last_render(m)[0].first_op].nr_pages -= 1
    m.fix_sums()


# ---- files of which a part of the last page is left out ----------------------------------------

def cut(m, n=1):
    """pages-N.img of ckwrite.with_cut(): 1 has one byte of its last page."""
    return pick(m.files, lambda f: m.name(f) == b"pages-%d.img" % n)


def cut_case(name, rule="R-file", cls=CORRUPT, section="files", n=1, **fields):
    def change(m):
        f = cut(m, n)
        for key, value in fields.items():
            setattr(f, key, value(getattr(f, key)) if callable(value) else value)
    add("cut-" + name, rule, cls, section, change)


cut_case("size-page-less", size_bytes=lambda v: v - 1)
cut_case("size-page-whole", cls=ACCEPT, section=None, size_bytes=lambda v: v + PAGE - 1)
cut_case("size-more", size_bytes=lambda v: v + PAGE)
cut_case("size-0", size_bytes=0)
cut_case("size-max", size_bytes=M64)
cut_case("size-of-none", n=2, size_bytes=1)
cut_case("size-of-none-max", n=2, size_bytes=M64)
cut_case("checksum", checksum=lambda v: v ^ 1)
cut_case("first-ref", first_ref=lambda v: v + 1)
cut_case("nr-refs", nr_refs=lambda v: v - 1)
cut_case("target-off", target_off=1)
cut_case("target-len", target_len=1)
cut_case("kind-2", kind=2)
cut_case("kind-4", kind=4)
cut_case("kind-7", kind=7)
add("cut-feature-missing", "R-feature", CORRUPT, "header", both(cut, incompat_flip(512)))
add("feature-cut-extra", "R-feature", CORRUPT, "header", incompat_flip(512))


@mutator("packed-overlap-byte", "R-chunk", CORRUPT, "chunks")
def _(m):
    packed_pair(m)[1].pack_off -= 1


@mutator("packed-overlap-page", "R-chunk", CORRUPT, "chunks")
def _(m):
    """a raw chunk on the page on which the one before it ends"""
    for a, b in zip(m.chunks, m.chunks[1:]):
        if b.codec == RAW and a.base == b.base and chunk_end(a) % PAGE and a.codec != ZERO:
            b.pack_off = chunk_end(a) // PAGE * PAGE
            return
    raise Skip()


@mutator("packed-raw", "R-chunk", CORRUPT, "chunks")
def _(m):
    """a raw chunk that begins within a page"""
    off = len(m.pack) + 5
    m.pack += bytes(2 * PAGE)
    m.pack[off:off + PAGE] = data = ckwrite.pattern(95, 1)
    m.chunks.append(Chunk(off, PAGE, 1, RAW, 0, ckread.xxh64(data)))


@mutator("packed-crosses-extent", "R-chunk", CORRUPT, "chunks")
def _(m):
    """a byte of a compressed chunk lies in the next extent"""
    data, raw = b"\x43" * (2 * PAGE), ckwrite.lz4_run(0x43, 2 * PAGE)
    extent = m.header["extent_bytes"]
    end = (len(m.pack) + len(raw) + extent) // extent * extent
    add_chunk(m, LZ4, data, raw, off=end - len(raw) + 1)
    m.pack += bytes(-len(m.pack) % PAGE)


@mutator("packed-ends-at-extent", "R-chunk", ACCEPT)
def _(m):
    data, raw = b"\x43" * (2 * PAGE), ckwrite.lz4_run(0x43, 2 * PAGE)
    extent = m.header["extent_bytes"]
    end = (len(m.pack) + len(raw) + extent) // extent * extent
    add_chunk(m, LZ4, data, raw, off=end - len(raw))
    del m.pack[end:]


@mutator("packed-past-end", "R-chunk", CORRUPT, "chunks")
def _(m):
    data, raw = b"\x43" * (2 * PAGE), ckwrite.lz4_run(0x43, 2 * PAGE)
    end = len(m.pack) + PAGE
    add_chunk(m, LZ4, data, raw, off=end - len(raw) + 1)
    del m.pack[end:]


@mutator("packed-gap", "R-padding", ACCEPT)
def _(m):
    """zeros between two packed chunks"""
    last = pick(m.chunks[::-1], lambda c: within_page(c) and not c.base)
    if any(c.pack_off > last.pack_off for c in m.chunks) or (chunk_end(last) + 3) // PAGE != (
            chunk_end(last) // PAGE):
        raise Skip()
    shift(m, last, 3)


@mutator("packed-gap-byte", "R-padding", CORRUPT, "pack")
def _(m):
    """the gap of packed-gap is not zero"""
    MUTATORS["packed-gap"].change(m)
    m.pack[pick(m.chunks[::-1], within_page).pack_off - 1] = 1


def pack_file(name, change, rule="R-pack"):
    add("pack-" + name, rule, CORRUPT, "pack", on_disk=True,
        change=lambda out: change(os.path.join(out, ckread.PACK)))


def grow(path, extra):
    with open(path, "ab") as f:
        f.write(bytes(extra))


pack_file("longer-1", lambda path: grow(path, 1))
pack_file("longer-page", lambda path: grow(path, PAGE))
pack_file("shorter-1", lambda path: os.truncate(path, os.path.getsize(path) - 1))
pack_file("header-only", lambda path: os.truncate(path, PAGE))
pack_file("empty", lambda path: os.truncate(path, 0))
pack_file("cut-header", lambda path: os.truncate(path, 63))


# ---- the directory ------------------------------------------------------------------------------

def to_fifo(path):
    os.unlink(path)
    os.mkfifo(path)


def to_directory(path):
    os.unlink(path)
    os.mkdir(path)


def to_symlink(path):
    """A link to the very bytes that should be here."""
    os.rename(path, path + ".moved")
    os.symlink(os.path.basename(path) + ".moved", path)


def to_socket(path):
    os.unlink(path)
    os.mknod(path, 0o140600)


def first_regular(out, image):
    """The first regular file that is, or is not, an image, and has contents."""
    opened = ckread.opened(out)
    for f, name in zip(opened.files, opened.names):
        if f[13] == 1 and f[0] and is_image(name) == image:
            opened.close()
            return os.path.join(os.fsencode(out), name).decode("utf-8", "surrogateescape")
    raise Skip()


def first_image(out):
    return first_regular(out, True)


def first_unread(out):
    return first_regular(out, False)


def flip_first(path):
    with open(path, "r+b") as f:
        byte = f.read(1)
        f.seek(0)
        f.write(bytes([byte[0] ^ 1]))


ODD_KINDS = (("fifo", to_fifo), ("directory", to_directory), ("symlink", to_symlink),
             ("socket", to_socket))
OTHER_KINDS = (("missing", os.unlink), ("longer", lambda path: grow(path, 1)),
               ("flipped", flip_first))
for _file, _rule, _cls, _section, _path, _kinds in (
        ("idx", "R-length", CORRUPT, "header", lambda out: os.path.join(out, ckread.IDX),
         ODD_KINDS),
        ("pack", "R-pack", CORRUPT, "pack", lambda out: os.path.join(out, ckread.PACK),
         ODD_KINDS + OTHER_KINDS[:1]),
        ("file", "R-file", CORRUPT, "files", first_image, ODD_KINDS + OTHER_KINDS),
        ("unread", "R-unread", ACCEPT, None, first_unread, ODD_KINDS + OTHER_KINDS)):
    for _kind, _make in _kinds:
        add("%s-%s" % (_file, _kind), _rule, _cls, _section, on_disk=True,
            change=lambda out, make=_make, path=_path: make(path(out)))


# ---- plans that leave the mappings --------------------------------------------------------------

def move_last_pages(m, t, address):
    """The last op of a target goes to address, and its pagemap says so too."""
    drop_plan_extras(m)
    op = m.ops[t.first_op + t.nr_ops - 1]
    nr = op.nr_pages
    op.place = address | op.place & 4095

    def change(runs):
        keep = t.nr_pages - nr
        out = []
        for vaddr, n, flags in runs:
            here = min(n, keep)
            keep -= here
            if here:
                out.append((vaddr, here, flags))
            if n > here:
                done = sum(r[1] for r in out if r[0] >= address)
                out.append((address + done * PAGE, n - here, flags))
        return out
    change_runs(m, t, change)


@mutator("plan-outside", "R-op", RESTORE)
def _(m):
    """a task's last pages go to where no mapping is; the pagemap agrees with the plan"""
    move_last_pages(m, pick(m.targets, lambda t: task(t) and t.nr_ops), 0x7fff80000000)


@mutator("plan-kernel", "R-op", RESTORE)
def _(m):
    """a task's last pages go to above the end of any user address space"""
    move_last_pages(m, pick(m.targets, lambda t: task(t) and t.nr_ops), 1 << 62)


@mutator("plan-shmem-outside", "R-op", RESTORE)
def _(m):
    """a shared object's last pages go to behind its end"""
    move_last_pages(m, pick(m.targets, lambda t: shmem(t) and t.nr_ops), 1 << 45)


# ---- command ------------------------------------------------------------------------------------

def make(name, fast, out):
    """OUT is FAST broken by the mutator; Skip if FAST has not got what it breaks."""
    try:
        MUTATORS[name].apply(fast, out)
    except Skip:
        shutil.rmtree(out, ignore_errors=True)
        raise


def main(argv):
    if argv[1:] == ["list"]:
        for m in MUTATORS.values():
            section = m.section if isinstance(m.section, str) else "|".join(m.section or ("-",))
            print("%-28s %-12s %-12s %s" % (m.name, m.rule, m.cls, section))
    elif len(argv) == 4 and argv[1] in MUTATORS:
        try:
            make(argv[1], argv[2], argv[3])
        except Skip:
            print("the image has not got what %s breaks" % argv[1], file=sys.stderr)
            return 77
    else:
        print(__doc__, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))

#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""
A reader of fast images that shares nothing with the C code: it was written from SPEC.md alone
and holds every rule of that page. Structs, order and names follow the page's sections.

    ckread.py check FAST                       every rule; exit 0, 3 (corrupt) or 4 (unsupported)
    ckread.py extract FAST OUT                 section 6: the dump back
    ckread.py dump-target FAST KIND ID OUT     section 7: (address, page) records of one target
    ckread.py show FAST                        the tables as text

A violation is one line: corrupt|unsupported <section>[<i>] at <offset>: <rule>: <reason>, where
<section> is header, sections (the section table), the name of a section, or pack.
The exit code is the class of the first one. A directory that holds no ckfast.idx is not a fast
image, and one whose bases are not there cannot be read: exit code 1.
"""
import bisect
import functools
import os
import re
import stat
import struct
import sys

sys.dont_write_bytecode = True

import lz4.block
import xxhash
import zstandard

import amdimg
import criuimg
import gpuimg

PAGE = 4096
HUGE = 2 << 20
IDX, PACK = "ckfast.idx", "ckfast.pack"

HEADER = struct.Struct("<8sHHIQQQ16sQIIII40sQ")
SECTION = struct.Struct("<IIQQQ")
CHUNK = struct.Struct("<QIHBBQ")
REF = struct.Struct("<I")
FILE = struct.Struct("<QQQIIIIQQQQHHB11s")
TARGET = struct.Struct("<QQQQIIIIII")
OP = struct.Struct("<QIHH")
LANE = struct.Struct("<QQQQII")
HUGE_RANGE = struct.Struct("<QII")
BASE = struct.Struct("<16sQQIH10s")
STORAGE = struct.Struct("<QIHBB")
PACK_HEADER = struct.Struct("<8sHHI16sQ16sQ")

SECTIONS = {1: ("strings", 1), 2: ("chunks", 24), 3: ("refs", 4), 4: ("files", 88),
            5: ("targets", 56), 6: ("ops", 16), 7: ("lanes", 40), 8: ("huge", 16),
            9: ("bases", 48)}
STRUCTS = {"chunks": CHUNK, "refs": REF, "files": FILE, "targets": TARGET, "ops": OP,
           "lanes": LANE, "huge": HUGE_RANGE, "bases": BASE}

S_STORAGE = (1 << 31) + 1

ZERO, RAW, LZ4, ZSTD, BF16 = 0, 1, 2, 3, 4
F_REGULAR, F_PAGES, F_LINK, F_SIZED, F_HEADED, F_CUT = 1, 2, 3, 4, 5, 6
WITH_PAGES, WITH_HEAD = (F_PAGES, F_SIZED, F_HEADED, F_CUT), (F_SIZED, F_HEADED)
HEAD = 8  # bytes before the chunks of a file of kind 4 or 5
T_TASK, T_SHMEM, T_DEVICE = 1, 2, 3
OP_INHERIT, OP_DIRECT = 1, 2
INCOMPAT = {LZ4: 1, ZSTD: 2, BF16: 4}
INCOMPAT_BASES, INCOMPAT_DEVICES, INCOMPAT_PACKED, INCOMPAT_PAGE_SUMS = 8, 16, 32, 64
INCOMPAT_SIZED_PAGES, INCOMPAT_HEADED_PAGES, INCOMPAT_CUT_PAGES = 128, 256, 512
KNOWN_INCOMPAT = (sum(INCOMPAT.values()) | INCOMPAT_BASES | INCOMPAT_DEVICES
                  | INCOMPAT_PACKED | INCOMPAT_PAGE_SUMS | INCOMPAT_SIZED_PAGES
                  | INCOMPAT_HEADED_PAGES | INCOMPAT_CUT_PAGES)

CORRUPT, UNSUPPORTED = "corrupt", "unsupported"
EXIT = {CORRUPT: 3, UNSUPPORTED: 4}
MAX_VIOLATIONS = 50


def xxh64(data):
    return xxhash.xxh3_64_intdigest(data)


def xxh128(data):
    """Low 64 bits first: the 128-bit integer, little-endian."""
    return xxhash.xxh3_128_intdigest(data).to_bytes(16, "little")


def round64(n):
    return (n + 63) & ~63


class PageSum:
    """The checksum of a pages file: that of the hashes of its pages."""

    def __init__(self):
        self.digest = xxhash.xxh3_64()

    def update(self, data):
        for off in range(0, len(data), PAGE):
            self.digest.update(xxh64(data[off:off + PAGE]).to_bytes(8, "little"))

    def intdigest(self):
        return self.digest.intdigest()


def page_sum(data):
    got = PageSum()
    got.update(data)
    return got.intdigest()


@functools.lru_cache(maxsize=None)
def zero_xxh64(nr_pages):
    return xxh64(bytes(nr_pages * PAGE))


class NotFast(Exception):
    """No ckfast.idx: not a fast image."""


class NoBase(Exception):
    """A base is missing, or there is another image in its place: neither class of violation."""


class Stop(Exception):
    """A violation after which nothing more can be read."""


class Undecodable(Exception):
    pass


def decode_chunk(codec, stored, size):
    """The size bytes that a chunk decodes to, never more than that in memory."""
    if codec == ZERO:
        return bytes(size)
    if codec == RAW:
        if len(stored) != size:
            raise Undecodable("raw chunk of %d bytes" % len(stored))
        return stored
    if codec == LZ4:
        try:
            data = lz4.block.decompress(stored, uncompressed_size=size)
        except lz4.block.LZ4BlockError as e:
            raise Undecodable("lz4: %s" % e) from None
    elif codec == BF16:
        data = bf16_words(stored, size)
    else:
        data = zstd_frame(stored, size)
    if len(data) != size:
        raise Undecodable("decodes to %d bytes, want %d" % (len(data), size))
    return data


def zstd_frame_bytes(stored):
    """The length of the frame that stored starts with: its header, blocks and checksum."""
    pos = zstandard.frame_header_size(stored)
    last = False
    while not last:
        head = int.from_bytes(stored[pos:pos + 3], "little")
        if pos + 3 > len(stored):
            raise Undecodable("zstd frame cut short")
        last, rle = head & 1, head >> 1 & 3 == 1
        pos += 3 + (1 if rle else head >> 3)
    return pos + (4 if stored[4] & 4 else 0)


def zstd_frame(stored, size):
    """One frame in one piece: its window needs no memory of its own, whatever its size."""
    try:
        if stored[:4] != b"\x28\xb5\x2f\xfd":
            raise Undecodable("no zstd frame")
        params = zstandard.get_frame_parameters(stored)
        if params.dict_id:
            raise Undecodable("zstd frame with a dictionary")
        if params.content_size not in (zstandard.CONTENTSIZE_UNKNOWN, size):
            raise Undecodable("zstd frame declares %d bytes, want %d"
                              % (params.content_size, size))
        if zstd_frame_bytes(stored) != len(stored):
            raise Undecodable("zstd frame of %d bytes in %d"
                              % (zstd_frame_bytes(stored), len(stored)))
        decoder = zstandard.ZstdDecompressor(max_window_size=1 << 31)
        return decoder.decompress(stored, max_output_size=size)
    except zstandard.ZstdError as e:
        raise Undecodable("zstd: %s" % e) from None


def bf16_planes(stored, size):
    """The planes of section 4.2.1, decoded."""
    if len(stored) < 8 or stored[0] not in (2, 4) or len(stored) < 8 + 8 * stored[0]:
        raise Undecodable("bf16: bad head")
    word_bytes, pos = stored[0], 8 + 8 * stored[0]
    if any(stored[1:8]):
        raise Undecodable("bf16: reserved bytes are not zero")
    planes = []
    for p in range(word_bytes):
        length, codec, reserved = struct.unpack_from("<IB3s", stored, 8 + 8 * p)
        data, nr_words = stored[pos:pos + length], size // word_bytes
        if reserved.strip(b"\0") or len(data) != length or codec not in (RAW, ZSTD):
            raise Undecodable("bf16: bad entry of plane %d" % p)
        if codec == ZSTD and not 1 <= length < nr_words:
            raise Undecodable("bf16: plane %d of %d bytes" % (p, length))
        planes.append(decode_chunk(codec, data, nr_words))
        pos += length
    if pos != len(stored):
        raise Undecodable("bf16: the planes end at %d of %d" % (pos, len(stored)))
    return planes


def bf16_words(stored, size):
    """All words at once, as one number: each is turned right by one bit."""
    planes = bf16_planes(stored, size)
    width = len(planes)
    mixed = bytearray(size)
    for p, plane in enumerate(planes):
        mixed[width - 1 - p::width] = plane
    words = int.from_bytes(mixed, "little")
    lowest = int.from_bytes((1).to_bytes(width, "little") * (size // width), "little")
    turned = (words & ~lowest) >> 1 | (words & lowest) << 8 * width - 1
    return turned.to_bytes(size, "little")


def base_path_ok(path):
    """R-base 3."""
    names = path.split(b"/")
    while names and names[0] == b"..":
        del names[0]
    return bool(names) and all(1 <= len(n) <= 255 and b"\0" not in n and n not in (b".", b"..")
                               for n in names)


def merge(runs):
    """(start, end) runs in ascending order, joined where they touch."""
    out = []
    for start, end in runs:
        if out and out[-1][1] == start:
            out[-1][1] = end
        else:
            out.append([start, end])
    return [tuple(r) for r in out]


class Image:
    """A fast image. open() never raises for content: see .violations; Stop ends a stage."""

    def __init__(self, path):
        self.path = path
        self.violations = []
        self.sections = {}
        self.pack_fd = -1
        self.base_fds = []

    def close(self):
        for fd in [self.pack_fd] + self.base_fds:
            if fd >= 0:
                os.close(fd)
        self.pack_fd, self.base_fds = -1, []

    # -- reporting --

    def bad(self, where, off, rule, reason, cls=CORRUPT):
        section, index = where if isinstance(where, tuple) else (where, None)
        if len(self.violations) < MAX_VIOLATIONS:
            self.violations.append((cls, section, index, off, rule, reason))

    def stop(self, where, off, rule, reason, cls=CORRUPT):
        self.bad(where, off, rule, reason, cls)
        raise Stop()

    def stop_if_bad(self):
        if self.violations:
            raise Stop()

    def entry(self, name, i):
        """Where entry i of a section is, for bad()."""
        offset, size = self.sections[name][:2]
        return (name, i), offset + i * size

    def bad_entry(self, name, i, rule, reason, cls=CORRUPT):
        where, off = self.entry(name, i)
        self.bad(where, off, rule, reason, cls)

    # -- files of the directory --

    def open_file(self, name, where, rule, off=0):
        """An fd of a regular file of the image, or Stop; never follows, never blocks."""
        try:
            fd = os.open(os.path.join(os.fsencode(self.path), name),
                         os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as e:
            self.stop(where, off, rule, "cannot be opened: %s" % e.strerror)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            self.stop(where, off, rule, "not a regular file")
        return fd

    # -- section 3 --

    def open(self):
        idx = os.path.join(self.path, IDX)
        if not os.path.lexists(idx):
            raise NotFast("%s: not a fast image: no %s" % (self.path, IDX))
        fd = self.open_file(os.fsencode(IDX), "header", "R-length")
        with os.fdopen(fd, "rb") as f:
            self.idx_len = os.fstat(fd).st_size
            self.read_header(f)
            self.read_table(f)
            self.read_sections(f)
        self.check_padding()

    def read_header(self, f):
        raw = f.read(HEADER.size)
        if len(raw) < HEADER.size:
            self.stop("header", 0, "R-length", "%d bytes, want at least 128" % len(raw))
        (magic, self.major, self.minor, header_bytes, idx_bytes, self.incompat, self.compat,
         self.image_id, self.pack_bytes, page_bytes, self.extent_bytes, self.nr_sections,
         self.max_chunk_pages, reserved, self.header_checksum) = HEADER.unpack(raw)
        self.raw_header = raw
        if magic != b"CKFASTIX":
            self.stop("header", 0, "R-magic", "got %r" % magic)
        if self.major != 1:
            self.stop("header", 8, "R-version", "major version %d" % self.major,
                      UNSUPPORTED if self.major > 1 else CORRUPT)
        if header_bytes != 128:
            self.stop("header", 12, "R-header", "header_bytes %d, want 128" % header_bytes)
        if idx_bytes != self.idx_len:
            self.stop("header", 16, "R-length", "idx_bytes %d, the file has %d"
                      % (idx_bytes, self.idx_len))
        if not 1 <= self.nr_sections <= 64:
            self.stop("header", 72, "R-sections", "nr_sections %d" % self.nr_sections)
        self.table_end = 128 + self.nr_sections * SECTION.size
        if self.table_end > self.idx_len:
            self.stop("header", 72, "R-sections", "the section table does not fit")
        self.raw_table = f.read(self.nr_sections * SECTION.size)
        if xxh64(raw[:120] + self.raw_table) != self.header_checksum:
            self.stop("header", 120, "R-checksum", "bad header checksum")
        if self.incompat & ~KNOWN_INCOMPAT:
            self.stop("header", 24, "R-feature", "unknown incompat bits %#x"
                      % (self.incompat & ~KNOWN_INCOMPAT), UNSUPPORTED)
        if page_bytes != PAGE:
            self.stop("header", 64, "R-header", "page_bytes %d" % page_bytes, UNSUPPORTED)
        if self.extent_bytes not in (4 << 20, 8 << 20, 16 << 20):
            self.bad("header", 68, "R-extent", "extent_bytes %d" % self.extent_bytes)
        if self.pack_bytes % PAGE or self.pack_bytes < PAGE:
            self.bad("header", 56, "R-pack", "pack_bytes %d" % self.pack_bytes)
        if not 1 <= self.max_chunk_pages <= 1024:
            self.bad("header", 76, "R-chunk", "max_chunk_pages %d" % self.max_chunk_pages)
        if reserved.strip(b"\0"):
            self.bad("header", 80, "R-reserved", "reserved bytes are not zero")
        if xxh128(self.raw_table) != self.image_id:
            self.bad("header", 40, "R-id", "image_id is not that of the section table")
        self.stop_if_bad()

    def read_table(self, f):
        """Places and sizes of all sections, before anything is read or allocated for one."""
        self.table = []
        end, last_type = self.table_end, -1
        for i in range(self.nr_sections):
            kind, entry_bytes, offset, count, checksum = SECTION.unpack_from(
                self.raw_table, i * SECTION.size)
            where, off = ("sections", i), 128 + i * SECTION.size
            if kind <= last_type:
                self.stop(where, off, "R-sections", "type %d after %d" % (kind, last_type))
            if kind not in SECTIONS and kind < 1 << 31:
                self.stop(where, off, "R-sections", "unknown section type %d" % kind,
                          UNSUPPORTED)
            if kind in SECTIONS and entry_bytes != SECTIONS[kind][1]:
                self.stop(where, off + 4, "R-sections", "entry_bytes %d, want %d"
                          % (entry_bytes, SECTIONS[kind][1]))
            if offset != round64(end):
                self.stop(where, off + 8, "R-sections", "offset %d, want %d"
                          % (offset, round64(end)))
            if offset > self.idx_len or count * entry_bytes > self.idx_len - offset:
                self.stop(where, off + 16, "R-sections", "%d entries of %d bytes do not fit"
                          % (count, entry_bytes))
            last_type, end = kind, offset + count * entry_bytes
            self.table.append((kind, entry_bytes, offset, count, checksum))
        if end != self.idx_len:
            self.stop("header", 16, "R-sections", "the sections end at %d, the file at %d"
                      % (end, self.idx_len))
        want = set(SECTIONS) - (set() if self.incompat & INCOMPAT_BASES else {9})
        wrong = want ^ {t[0] for t in self.table if t[0] in SECTIONS}
        if wrong:
            self.stop("header", 72, "R-sections", "section of type %d %s"
                      % (min(wrong), "missing" if min(wrong) in want else "is not wanted"))

    def read_sections(self, f):
        for i, (kind, entry_bytes, offset, count, checksum) in enumerate(self.table):
            f.seek(offset)
            data = f.read(count * entry_bytes)
            if xxh64(data) != checksum:
                self.bad(("sections", i), 128 + i * SECTION.size + 24, "R-checksum",
                         "bad section checksum")
                continue
            if kind == S_STORAGE:
                self.check_storage(i, entry_bytes, offset, count, data)
            if kind not in SECTIONS:
                continue
            name = SECTIONS[kind][0]
            rows = data
            if name in STRUCTS:
                rows = list(STRUCTS[name].iter_unpack(data))
            self.sections[name] = (offset, entry_bytes, rows)
        self.stop_if_bad()
        self.strings = self.sections["strings"][2]
        self.chunks = self.sections["chunks"][2]
        self.refs = [r[0] for r in self.sections["refs"][2]]
        self.files = self.sections["files"][2]
        self.targets = self.sections["targets"][2]
        self.ops = self.sections["ops"][2]
        self.lanes = self.sections["lanes"][2]
        self.huge = self.sections["huge"][2]
        self.bases = self.sections["bases"][2] if "bases" in self.sections else []

    def check_storage(self, i, entry_bytes, offset, count, data):
        """Section 4.10."""
        if entry_bytes != STORAGE.size:
            self.stop(("sections", i), offset, "R-sections", "entry_bytes %d" % entry_bytes)
        if count != 1:
            self.stop(("sections", i), offset, "R-storage", "%d entries" % count)
        speed, _, cores, measured, reserved = STORAGE.unpack(data)
        if not speed or not cores or measured > 1:
            self.bad(("storage", 0), offset, "R-storage", "%d bytes/s, %d cores, measured %d"
                     % (speed, cores, measured))
        if reserved:
            self.bad(("storage", 0), offset, "R-reserved", "reserved byte is not zero")

    def check_padding(self):
        with open(os.path.join(self.path, IDX), "rb") as f:
            end = self.table_end
            for i, (_, entry_bytes, offset, count, _) in enumerate(self.table):
                f.seek(end)
                if f.read(offset - end).strip(b"\0"):
                    self.bad(("sections", i), end, "R-padding", "bytes before it are not zero")
                end = offset + count * entry_bytes

    # -- section 4: what the tables say --

    def check_tables(self):
        self.check_bases()
        self.stop_if_bad()
        self.check_chunks()
        self.stop_if_bad()
        self.check_refs()
        self.check_files()
        self.check_targets()
        self.stop_if_bad()
        self.check_ops()
        self.stop_if_bad()
        self.check_inherit()
        self.check_lanes()
        self.check_huge()
        self.stop_if_bad()

    def check_bases(self):
        """R-base 1 (but for their chunks), 2 and 3; fills .base_paths."""
        self.base_paths, ids = [], set()
        if self.incompat & INCOMPAT_BASES and not 1 <= len(self.bases) <= 255:
            self.bad(*self.entry("bases", 0), "R-base", "%d entries" % len(self.bases))
        for i, (ident, pack_bytes, off, extent, size, reserved) in enumerate(self.bases):
            def bad(reason, rule="R-base"):
                self.bad_entry("bases", i, rule, reason)

            if reserved.strip(b"\0"):
                bad("reserved bytes are not zero", "R-reserved")
            if pack_bytes % PAGE or pack_bytes < PAGE:
                bad("pack_bytes %d" % pack_bytes)
            if extent not in (4 << 20, 8 << 20, 16 << 20):
                bad("extent_bytes %d" % extent)
            if ident in ids:
                bad("image_id that an entry before has")
            ids.add(ident)
            path = self.string(off, size)
            self.base_paths.append(path)
            if not 1 <= size <= 4095 or path is None or not base_path_ok(path):
                bad("path %r" % path)

    def check_chunks(self):
        """R-chunk 1 to 4 and 6, R-feature, and that each base has chunks."""
        end, zero_pages, seen_stored, codecs, last_base = PAGE, 0, False, set(), 0
        pack_bytes, extent_bytes = self.pack_bytes, self.extent_bytes
        for i, (pack_off, stored, pages, codec, base, checksum) in enumerate(self.chunks):
            def bad(reason, cls=CORRUPT, rule="R-chunk"):
                self.bad_entry("chunks", i, rule, reason, cls)

            if codec > BF16:
                bad("codec %d" % codec, UNSUPPORTED)
                continue
            codecs.add(codec)
            if not 1 <= pages <= self.max_chunk_pages:
                bad("nr_pages %d, max_chunk_pages %d" % (pages, self.max_chunk_pages))
                continue
            if codec == ZERO:
                if pack_off or stored or base:
                    bad("zero chunk with stored bytes")
                if seen_stored:
                    bad("zero chunk after a stored one")
                if pages <= zero_pages:
                    bad("zero chunks not in ascending order of nr_pages")
                if checksum != zero_xxh64(pages):
                    bad("checksum of a zero chunk", rule="R-chunk")
                zero_pages = pages
                continue
            seen_stored = True
            if base > len(self.bases) or base < last_base:
                bad("base %d of %d, after %d" % (base, len(self.bases), last_base))
                continue
            if base > last_base + 1:
                self.bad_entry("bases", last_base, "R-base", "no chunk lies in it")
            if base > last_base:
                pack_bytes, extent_bytes = self.bases[base - 1][1], self.bases[base - 1][3]
                last_base, end = base, PAGE
            if codec == RAW and stored != pages * PAGE:
                bad("raw chunk of %d bytes, want %d" % (stored, pages * PAGE))
            if codec in INCOMPAT and not 1 <= stored < pages * PAGE:
                bad("stored_bytes %d of %d" % (stored, pages * PAGE))
            if pack_off < PAGE or codec == RAW and pack_off % PAGE:
                bad("pack_off %d" % pack_off)
            elif pack_off < end:
                bad("pack_off %d, the chunk before ends at %d" % (pack_off, end))
            if pack_off + stored > pack_bytes:
                bad("ends at %d, pack_bytes %d" % (pack_off + stored, pack_bytes))
            last = pack_off + max(stored, 1) - 1
            if pack_off // extent_bytes != last // extent_bytes:
                bad("crosses the border of an extent")
            end = pack_off + stored
        if last_base < len(self.bases):
            self.bad_entry("bases", last_base, "R-base", "no chunk lies in it")
        mask = sum(INCOMPAT.values()) | INCOMPAT_BASES | INCOMPAT_PACKED
        want = sum(bit for codec, bit in INCOMPAT.items() if codec in codecs)
        want |= INCOMPAT_BASES if self.bases else 0
        want |= INCOMPAT_PACKED if any(c[0] % PAGE for c in self.chunks) else 0
        if self.incompat & mask != want and not any(v[0] == UNSUPPORTED for v in self.violations):
            self.bad("header", 24, "R-feature", "incompat %#x, the chunks need %#x"
                     % (self.incompat & mask, want))

    def check_refs(self):
        for i, chunk in enumerate(self.refs):
            if chunk >= len(self.chunks):
                self.bad_entry("refs", i, "R-ref", "chunk %d of %d" % (chunk, len(self.chunks)))

    def string(self, off, size):
        return None if off + size > len(self.strings) else self.strings[off:off + size]

    def check_files(self):
        """R-file; fills .names."""
        self.names, next_ref, last_name = [], 0, None
        for i, entry in enumerate(self.files):
            (size, _, _, nsec, mode, _, _, name_off, first_ref, nr_refs, target_off, name_len,
             target_len, kind, reserved) = entry

            def bad(reason, rule="R-file"):
                self.bad_entry("files", i, rule, reason)

            name = self.string(name_off, name_len)
            self.names.append(name)
            if not 1 <= name_len <= 255 or name is None:
                bad("name at %d, %d bytes" % (name_off, name_len))
                name = None
            elif b"\0" in name or b"/" in name or name in (b".", b"..", b"ckfast.idx",
                                                           b"ckfast.pack"):
                bad("name %r" % name)
            if name is not None:
                if last_name is not None and name <= last_name:
                    bad("name %r after %r" % (name, last_name))
                last_name = name
            if reserved.strip(b"\0"):
                bad("reserved bytes are not zero", "R-reserved")
            if nsec >= 10 ** 9:
                bad("mtime_nsec %d" % nsec)
            if mode > 0o7777:
                bad("mode %#o" % mode)
            if not F_REGULAR <= kind <= F_CUT:
                bad("kind %d" % kind)
                continue
            if kind in WITH_PAGES:
                head = HEAD if kind in WITH_HEAD else 0
                if first_ref != next_ref or nr_refs > len(self.refs) - next_ref:
                    bad("refs %d + %d, want from %d of %d"
                        % (first_ref, nr_refs, next_ref, len(self.refs)))
                else:
                    refs = self.refs[first_ref:first_ref + nr_refs]
                    next_ref += nr_refs
                    pages = sum(self.chunks[r][2] for r in refs if r < len(self.chunks))
                    left = head + pages * PAGE - size
                    if not 0 <= left < (PAGE if kind == F_CUT else 1):
                        bad("size_bytes %d, its chunks hold %d" % (size, pages * PAGE))
            elif first_ref or nr_refs:
                bad("refs of a file of kind %d" % kind)
            if kind == F_LINK:
                target = self.string(target_off, target_len)
                if not 1 <= target_len <= 4095 or target is None:
                    bad("target at %d, %d bytes" % (target_off, target_len))
                else:
                    if b"\0" in target:
                        bad("target %r" % target)
                    if xxh64(target) != entry[1]:
                        bad("checksum of the target")
                if size != target_len:
                    bad("size_bytes %d, target_len %d" % (size, target_len))
            elif target_off and kind != F_HEADED or target_len:
                bad("target of a file of kind %d" % kind)
        if (self.incompat & INCOMPAT_PAGE_SUMS
                and all(f[13] not in WITH_PAGES for f in self.files)):
            self.bad("header", 24, "R-feature", "bit 6 without a file of pages")
        for bit, kind in ((INCOMPAT_SIZED_PAGES, F_SIZED), (INCOMPAT_HEADED_PAGES, F_HEADED),
                          (INCOMPAT_CUT_PAGES, F_CUT)):
            if bool(self.incompat & bit) != any(f[13] == kind for f in self.files):
                self.bad("header", 24, "R-feature", "bit %d does not say whether there is a file "
                         "of kind %d" % (bit.bit_length() - 1, kind))
        if next_ref != len(self.refs):
            self.bad_entry("refs", next_ref, "R-file", "refs %d to %d belong to no file"
                           % (next_ref, len(self.refs) - 1))

    def check_targets(self):
        """R-target, but for nr_pages, which is summed with the ops."""
        last, next_op, next_lane = None, 0, 0
        for i, (ident, _, first_op, nr_ops, first_lane, nr_lanes, kind, file, parent,
                reserved) in enumerate(self.targets):
            def bad(reason, cls=CORRUPT, rule="R-target"):
                self.bad_entry("targets", i, rule, reason, cls)

            if kind not in (T_TASK, T_SHMEM, T_DEVICE):
                bad("kind %d" % kind, UNSUPPORTED)
                continue
            if reserved:
                bad("reserved bytes are not zero", rule="R-reserved")
            if last is not None and (kind, ident) <= last:
                bad("(kind %d, id %d) after (%d, %d)" % ((kind, ident) + last))
            last = (kind, ident)
            if first_op != next_op or nr_ops > len(self.ops) - next_op:
                bad("ops %d + %d, want from %d of %d"
                    % (first_op, nr_ops, next_op, len(self.ops)))
            else:
                next_op += nr_ops
            if first_lane != next_lane or nr_lanes > len(self.lanes) - next_lane:
                bad("lanes %d + %d, want from %d of %d"
                    % (first_lane, nr_lanes, next_lane, len(self.lanes)))
            else:
                next_lane += nr_lanes
            if not nr_ops and nr_lanes:
                bad("lanes without ops")
            if file >= len(self.files) or self.files[file][13] != F_REGULAR:
                bad("file %d is not a file of kind 1" % file)
            if parent:
                if kind != T_TASK:
                    bad("parent %d of a target of kind %d" % (parent, kind))
                elif (parent > len(self.targets) or parent - 1 == i
                      or self.targets[parent - 1][6] != T_TASK):
                    bad("parent %d" % parent)
        if not self.violations:
            self.check_circles()
            devices = any(t[6] == T_DEVICE for t in self.targets)
            if devices != bool(self.incompat & INCOMPAT_DEVICES):
                self.bad("header", 24, "R-feature", "bit 4 does not say whether there is device "
                         "memory")
            if next_op != len(self.ops):
                self.bad_entry("ops", next_op, "R-target", "belongs to no target")
            if next_lane != len(self.lanes):
                self.bad_entry("lanes", next_lane, "R-target", "belongs to no target")

    def check_circles(self):
        """R-target: from each target, the parents lead to one without a parent."""
        ends = set()
        for i in range(len(self.targets)):
            path = []
            while i is not None and i not in ends and i not in path:
                path.append(i)
                parent = self.targets[i][8]
                i = parent - 1 if parent else None
            if i in path:
                self.bad_entry("targets", i, "R-target", "its parents form a circle")
            ends.update(path)

    def target_ops(self, i):
        first, nr = self.targets[i][2:4]
        return self.ops[first:first + nr]

    def check_ops(self):
        """R-op 1 to 3 and 6, and nr_pages of R-target."""
        for t, target in enumerate(self.targets):
            end = total = 0
            for i in range(target[2], target[2] + target[3]):
                place, chunk, first, pages = self.ops[i]
                addr, flags = place & ~0xfff, place & 0xfff

                def bad(reason, rule="R-op"):
                    self.bad_entry("ops", i, rule, reason)

                if flags & ~3:
                    bad("flags %#x" % flags, "R-reserved")
                elif flags and target[6] == T_DEVICE:
                    bad("flags %#x of device memory" % flags, "R-gpu")
                if chunk >= len(self.chunks):
                    bad("chunk %d of %d" % (chunk, len(self.chunks)))
                    continue
                if not pages or first + pages > self.chunks[chunk][2]:
                    bad("pages %d + %d of a chunk of %d" % (first, pages, self.chunks[chunk][2]))
                if flags & OP_DIRECT and self.chunks[chunk][3] not in (ZERO, RAW):
                    bad("direct with codec %d" % self.chunks[chunk][3])
                if flags & OP_DIRECT and self.chunks[chunk][4]:
                    bad("direct with base %d" % self.chunks[chunk][4])
                if addr < end:
                    bad("address %#x, the op before ends at %#x" % (addr, end))
                end = addr + pages * PAGE
                if end > 1 << 63:
                    bad("ends at %#x" % end)
                total += pages
            if total != target[1]:
                self.bad_entry("targets", t, "R-target", "nr_pages %d, its ops have %d"
                               % (target[1], total))

    def check_inherit(self):
        """R-op 4, page by page."""
        for target in self.targets:
            first, nr, parent = target[2], target[3], target[8]
            inherits = [i for i in range(first, first + nr) if self.ops[i][0] & OP_INHERIT]
            if not inherits:
                continue
            if not parent:
                self.bad_entry("ops", inherits[0], "R-op", "inherit without a parent target")
                continue
            have = {}
            for place, chunk, page, pages in self.target_ops(parent - 1):
                for k in range(pages):
                    have[(place >> 12) + k] = (chunk, page + k)
            for i in inherits:
                place, chunk, page, pages = self.ops[i]
                for k in range(pages):
                    if have.get((place >> 12) + k) != (chunk, page + k):
                        self.bad_entry("ops", i, "R-op", "the parent has another page at %#x"
                                       % ((place & ~0xfff) + k * PAGE))
                        break

    def check_lanes(self):
        """R-lane."""
        for t, target in enumerate(self.targets):
            next_op, end_op = target[2], target[2] + target[3]
            for i in range(target[4], target[4] + target[5]):
                first, nr, read_bytes, fill_bytes, lane_target, reserved = self.lanes[i]

                def bad(reason, rule="R-lane"):
                    self.bad_entry("lanes", i, rule, reason)

                if reserved:
                    bad("reserved bytes are not zero", "R-reserved")
                if lane_target != t:
                    bad("target %d, want %d" % (lane_target, t))
                if first != next_op or not 1 <= nr <= end_op - first:
                    bad("ops %d + %d, want from %d to %d" % (first, nr, next_op, end_op))
                    next_op = end_op
                    break
                next_op = first + nr
                ops = self.ops[first:next_op]
                want = sum(self.chunks[c][1] for c in {op[1] for op in ops})
                if read_bytes != want:
                    bad("read_bytes %d, want %d" % (read_bytes, want))
                want = sum(op[3] for op in ops) * PAGE
                if fill_bytes != want:
                    bad("fill_bytes %d, want %d" % (fill_bytes, want))
            if next_op != end_op:
                self.bad_entry("targets", t, "R-lane", "ops %d to %d are in no lane"
                               % (next_op, end_op - 1))

    def target_runs(self, t):
        return merge((op[0] & ~0xfff, (op[0] & ~0xfff) + op[3] * PAGE)
                     for op in self.target_ops(t))

    def check_huge(self):
        """R-huge."""
        last, runs_of = None, {}
        for i, (addr, nr, t) in enumerate(self.huge):
            def bad(reason):
                self.bad_entry("huge", i, "R-huge", reason)

            if t >= len(self.targets) or self.targets[t][6] != T_TASK:
                bad("target %d is no task" % t)
                continue
            if addr % HUGE:
                bad("address %#x" % addr)
            if not nr:
                bad("nr_huge 0")
            if last is not None and (t, addr) <= last:
                bad("not after the range before it")
            elif last is not None and t == last[0] and addr == last[1]:
                bad("touches the range before it")
            end = addr + nr * HUGE
            last = (t, end)
            runs = runs_of.setdefault(t, None) or self.target_runs(t)
            runs_of[t] = runs
            pos = bisect.bisect_right(runs, (addr, 1 << 65)) - 1
            if nr and (pos < 0 or runs[pos][1] < end):
                bad("not every page of %#x to %#x is filled" % (addr, end))

    # -- section 5 --

    def open_pack(self):
        self.pack_fd = self.open_file(os.fsencode(PACK), "pack", "R-pack")
        raw = os.pread(self.pack_fd, PAGE, 0)
        size = os.fstat(self.pack_fd).st_size
        if len(raw) < PAGE:
            self.stop("pack", 0, "R-pack", "%d bytes, want at least %d" % (len(raw), PAGE))
        (magic, major, minor, extent_bytes, image_id, pack_bytes, reserved,
         checksum) = PACK_HEADER.unpack_from(raw)
        if magic != b"CKFASTPK":
            self.stop("pack", 0, "R-magic", "got %r" % magic)
        if major != 1:
            self.stop("pack", 8, "R-version", "major version %d" % major,
                      UNSUPPORTED if major > 1 else CORRUPT)
        if checksum != xxh64(raw[:56]):
            self.stop("pack", 56, "R-checksum", "bad checksum of the pack header")
        if extent_bytes != self.extent_bytes:
            self.bad("pack", 12, "R-extent", "extent_bytes %d, the index says %d"
                     % (extent_bytes, self.extent_bytes))
        if image_id != self.image_id:
            self.bad("pack", 16, "R-packid", "the pack of another index")
        if pack_bytes != self.pack_bytes:
            self.bad("pack", 32, "R-pack", "pack_bytes %d, the index says %d"
                     % (pack_bytes, self.pack_bytes))
        if size != self.pack_bytes:
            self.bad("pack", 32, "R-pack", "the file has %d bytes, want %d"
                     % (size, self.pack_bytes))
        if reserved.strip(b"\0"):
            self.bad("pack", 40, "R-reserved", "reserved bytes are not zero")
        if raw[64:].strip(b"\0"):
            self.bad("pack", 64, "R-padding", "bytes after the pack header are not zero")
        self.stop_if_bad()

    def open_base(self, n):
        """R-base 4 and 5: the pack of a base, by no link, and that of no other image."""
        ident, pack_bytes, _, extent_bytes = self.bases[n][:4]
        what = "base %d, %s, at %r" % (n + 1, ident.hex(), self.base_paths[n])
        fd = os.open(self.path, os.O_PATH | os.O_DIRECTORY)
        try:
            for name in self.base_paths[n].split(b"/"):
                inner = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=fd)
                os.close(fd)
                fd = inner
            pack = os.open(PACK, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=fd)
        except OSError as e:
            raise NoBase("%s: %s" % (what, e.strerror)) from None
        finally:
            os.close(fd)
        self.base_fds.append(pack)
        if not stat.S_ISREG(os.fstat(pack).st_mode) or os.fstat(pack).st_size < PAGE:
            raise NoBase("%s: no pack" % what)
        raw = os.pread(pack, 64, 0)
        magic, major, _, extent, image_id, size, _, checksum = PACK_HEADER.unpack(raw)
        if (magic, major, checksum) != (b"CKFASTPK", 1, xxh64(raw[:56])):
            raise NoBase("%s: no pack header" % what)
        if image_id != ident:
            raise NoBase("%s: there is another image, %s" % (what, image_id.hex()))
        if (size, extent) != (pack_bytes, extent_bytes) or os.fstat(pack).st_size != size:
            raise NoBase("%s: another pack" % what)

    @functools.lru_cache(maxsize=16)
    def chunk_data(self, i):
        """The decoded and checked bytes of a chunk; Undecodable if they are not to be had."""
        pack_off, stored, pages, codec, base, checksum = self.chunks[i]
        if codec == ZERO:
            return bytes(pages * PAGE)
        fd = self.base_fds[base - 1] if base else self.pack_fd
        data = decode_chunk(codec, os.pread(fd, stored, pack_off), pages * PAGE)
        if xxh64(data) != checksum:
            raise Undecodable("bad checksum")
        return data

    def check_data(self):
        """R-data of every chunk and R-padding of the pack."""
        end = PAGE
        for i, (pack_off, stored, _, codec, base, _) in enumerate(self.chunks):
            if codec == ZERO:
                continue
            try:
                self.chunk_data(i)
            except Undecodable as e:
                self.bad_entry("chunks", i, "R-data", str(e))
            if not base:
                self.check_pack_zero(end, pack_off)
                end = pack_off + stored
        self.check_pack_zero(end, self.pack_bytes)

    def check_pack_zero(self, off, end):
        while off < end:
            data = os.pread(self.pack_fd, min(1 << 20, end - off), off)
            if not data or data.strip(b"\0"):
                self.bad("pack", off, "R-padding", "padding is not zero")
                return
            off += len(data)

    # -- section 6 --

    def chunks_data(self, i):
        """The chunks of file i, decoded."""
        entry = self.files[i]
        for ref in self.refs[entry[8]:entry[8] + entry[9]]:
            yield self.chunk_data(ref)

    def file_data(self, i):
        """The contents of file i in parts."""
        entry = self.files[i]
        if entry[13] in WITH_PAGES:
            if entry[13] in WITH_HEAD:
                head = entry[10] if entry[13] == F_HEADED else entry[0] - HEAD
                yield head.to_bytes(HEAD, "little")
            left = entry[0]
            for data in self.chunks_data(i):
                yield data[:left] if entry[13] == F_CUT else data
                left = max(left - len(data), 0)
            return
        where, off = self.entry("files", i)
        fd = self.open_file(self.names[i], where, "R-file", off)
        try:
            while True:
                data = os.read(fd, 1 << 20)
                if not data:
                    return
                yield data
        finally:
            os.close(fd)

    def is_unread(self, i):
        """R-unread: a regular file that is no image; what is there now need not be what was."""
        name = self.names[i]
        return self.files[i][13] == F_REGULAR and not (len(name) > 4 and name.endswith(b".img"))

    def is_there(self, i):
        """True if there is a regular file of that name, whatever is in it."""
        try:
            mode = os.lstat(os.path.join(os.fsencode(self.path), self.names[i])).st_mode
        except FileNotFoundError:
            return False
        return stat.S_ISREG(mode)

    def check_contents(self):
        for i, entry in enumerate(self.files):
            if entry[13] == F_LINK or self.is_unread(i):
                continue
            pages = entry[13] in WITH_PAGES
            by_page = pages and self.incompat & INCOMPAT_PAGE_SUMS
            size = HEAD if entry[13] in WITH_HEAD else 0
            digest = PageSum() if by_page else xxhash.xxh3_64()
            try:
                for data in self.chunks_data(i) if pages else self.file_data(i):
                    digest.update(data)
                    size += len(data)
            except Stop:
                continue
            except Undecodable:
                continue
            if not 0 <= size - entry[0] < (PAGE if entry[13] == F_CUT else 1):
                self.bad_entry("files", i, "R-file", "%d bytes, want %d" % (size, entry[0]))
            elif digest.intdigest() != entry[1]:
                self.bad_entry("files", i, "R-file", "bad checksum of the contents")

    def check_pagemaps(self):
        """R-op 5: the pages of a target are those of its pagemap."""
        self.tables, self.headed = [], set()
        for t, target in enumerate(self.targets):
            ident, kind, file = target[0], target[6], target[7]
            name = b"pagemap-%s%d.img" % (b"shmem-" if kind == T_SHMEM else b"", ident)
            if kind == T_DEVICE:
                name = (gpuimg.table_name(ident) if ident < 1 << 32
                        else amdimg.render_name(ident >> 32) if self.is_render(t)
                        else amdimg.table_name(ident >> 32))
            if self.names[file] != name:
                self.bad_entry("targets", t, "R-pagemap", "its pagemap is %r, want %r"
                               % (self.names[file], name))
                continue
            try:
                if kind == T_DEVICE and self.is_render(t):
                    self.check_render(t, b"".join(self.file_data(file)))
                    continue
                if kind == T_DEVICE and ident >= 1 << 32:
                    self.check_amd(t, b"".join(self.file_data(file)))
                    continue
                if kind == T_DEVICE:
                    self.check_device(t, b"".join(self.file_data(file)))
                    continue
                _, runs = criuimg.parse_pagemap(b"".join(self.file_data(file)))
            except Stop:
                continue
            except criuimg.Malformed as e:
                self.bad_entry("targets", t, "R-pagemap", "its pagemap, at %d: %s" % (e.off, e))
                continue
            want = [(v, v + n * PAGE) for v, n, f in runs
                    if f & (criuimg.PE_PRESENT | criuimg.PE_PARENT) and n]
            if merge(want) != self.target_runs(t):
                self.bad_entry("targets", t, "R-pagemap",
                               "its pages are not those of its pagemap")

    def check_device(self, t, data):
        """R-gpu of section 10, and R-op 5 for device memory."""
        ident = self.targets[t][0]
        try:
            _, allocs = gpuimg.parse(data, ident)
        except gpuimg.Bad as e:
            self.bad_entry("targets", t, e.rule, "its table, at %d: %s" % (e.off, e),
                           UNSUPPORTED if e.unsupported else CORRUPT)
            return
        self.tables.append(allocs)
        if merge((a[0], a[0] + a[1]) for a in allocs
                 if not gpuimg.is_import(a)) != self.target_runs(t):
            self.bad_entry("targets", t, "R-pagemap", "its pages are not those of its table")
        size = gpuimg.pages_bytes(allocs)
        name = gpuimg.pages_name(ident)
        pages = self.files[self.names.index(name)] if name in self.names else None
        if size and (pages is None or pages[13] != F_PAGES):
            self.bad_entry("targets", t, "R-gpu", "no %r of kind 2" % name)
        elif size and pages[0] != size:
            self.bad_entry("targets", t, "R-gpu", "%r has %d bytes, want %d"
                           % (name, pages[0], size))

    def check_amd(self, t, data):
        """R-gpu of section 10.3, and R-op 5 for objects with contents."""
        ident, gpu = self.targets[t][0] >> 32, self.targets[t][0] & 0xffffffff
        try:
            sizes = amdimg.parse(data).get(gpu)
        except amdimg.Bad as e:
            self.bad_entry("targets", t, "R-gpu", "its table: %s" % e)
            return
        if not sizes:
            self.bad_entry("targets", t, "R-gpu", "its table has nothing of GPU %04x" % gpu)
            return
        if merge(amdimg.places(sizes)) != self.target_runs(t):
            self.bad_entry("targets", t, "R-pagemap", "its pages are not those of its table")
        name = amdimg.pages_name(ident, gpu)
        pages = self.files[self.names.index(name)] if name in self.names else None
        if pages is None or pages[13] != F_SIZED:
            self.bad_entry("targets", t, "R-gpu", "no %r of kind 4" % name)
        elif pages[0] != HEAD + sum(sizes):
            self.bad_entry("targets", t, "R-gpu", "%r has %d bytes, want %d"
                           % (name, pages[0], HEAD + sum(sizes)))

    def is_render(self, t):
        """True for a target of a render node's object: its table says so."""
        ident, kind, file = self.targets[t][0], self.targets[t][6], self.targets[t][7]
        return (kind == T_DEVICE and ident >= 1 << 32
                and amdimg.render_ident(self.names[file]) is not None)

    def check_render(self, t, data):
        """R-gpu of section 10.4, and R-op 5 for one object."""
        ident, n = self.targets[t][0] >> 32, self.targets[t][0] & 0xffffffff
        if amdimg.table_name(ident) in self.names:
            self.bad_entry("targets", t, "R-gpu", "file %d is /dev/kfd, too" % ident)
            return
        try:
            minor, sizes = amdimg.parse_render(data, ident)
        except amdimg.Bad as e:
            self.bad_entry("targets", t, "R-gpu", "its table: %s" % e)
            return
        size = sizes[n] if n < len(sizes) else 0
        if not 0 < size <= 1 << 62 or size % PAGE:
            self.bad_entry("targets", t, "R-gpu", "object %d of %d, %d bytes"
                           % (n, len(sizes), size))
            return
        if self.target_runs(t) != [(0, size)]:
            self.bad_entry("targets", t, "R-pagemap", "its pages are not those of its object")
        name = amdimg.render_pages_name(ident, minor, n)
        self.headed.add(name)
        pages = self.files[self.names.index(name)] if name in self.names else None
        if pages is None or pages[13] != F_HEADED:
            self.bad_entry("targets", t, "R-gpu", "no %r of kind 5" % name)
        elif pages[0] != HEAD + size:
            self.bad_entry("targets", t, "R-gpu", "%r has %d bytes, want %d"
                           % (name, pages[0], HEAD + size))

    def check_files_with_heads(self):
        """R-gpu of sections 10.3 and 10.4: each file of kind 4 or 5 is that of a target."""
        sized = {amdimg.pages_name(target[0] >> 32, target[0] & 0xffffffff)
                 for t, target in enumerate(self.targets)
                 if target[6] == T_DEVICE and target[0] >= 1 << 32 and not self.is_render(t)}
        for i, name in enumerate(self.names):
            if (self.files[i][13] == F_SIZED and name not in sized
                    or self.files[i][13] == F_HEADED and name not in self.headed):
                self.bad("targets", self.sections["targets"][0], "R-gpu", "none for %r" % name)

    def check_tables_of_devices(self):
        """Imports without an owner; a table without a target: R-op 5."""
        try:
            gpuimg.check_owners(self.tables)
        except gpuimg.Bad as e:
            self.bad("targets", self.sections["targets"][0], e.rule, str(e))
        have = {gpuimg.table_name(t[0]) for t in self.targets
                if t[6] == T_DEVICE and t[0] < 1 << 32}
        for i, name in enumerate(self.names):
            if (re.fullmatch(rb"ckfast-gpu-(0|[1-9][0-9]*)\.img", name) and name not in have
                    and self.files[i][13] == F_REGULAR):
                self.bad("targets", self.sections["targets"][0], "R-pagemap",
                         "none for %r" % name)

    # -- all --

    def check(self):
        """Every rule; returns the violations, most telling first."""
        try:
            self.open()
            self.stop_if_bad()
            self.check_tables()
            self.open_pack()
            for n in range(len(self.bases)):
                self.open_base(n)
            self.check_data()
            self.check_contents()
            self.check_pagemaps()
            self.check_tables_of_devices()
            self.check_files_with_heads()
        except Stop:
            pass
        return self.violations

    def find_target(self, kind, ident):
        for t, target in enumerate(self.targets):
            if (target[6], target[0]) == (kind, ident):
                return t
        return None

    def target_pages(self, t):
        """(address, page) of every page of a target, in ascending order."""
        for place, chunk, first, pages in self.target_ops(t):
            data = self.chunk_data(chunk)
            for k in range(pages):
                at = (first + k) * PAGE
                yield (place & ~0xfff) + k * PAGE, data[at:at + PAGE]

    def extract(self, out):
        """Section 6 into the new directory out."""
        os.mkdir(out)
        for i, entry in enumerate(self.files):
            (size, checksum, mtime_sec, nsec, mode, uid, gid) = entry[:7]
            path = os.path.join(os.fsencode(out), self.names[i])
            if self.is_unread(i) and not self.is_there(i):
                continue
            if entry[13] == F_LINK:
                os.symlink(self.string(entry[10], entry[12]), path)
            else:
                with open(path, "xb") as f:
                    for data in self.file_data(i):
                        f.write(data)
            try:
                os.chown(path, uid, gid, follow_symlinks=False)
            except PermissionError:
                if os.geteuid() == 0:
                    raise
                # As the program does it: the file is ours, and its group gets what all have.
                mode = mode & ~0o6070 | (mode << 3 & mode & 0o070)
            if entry[13] != F_LINK:
                os.chmod(path, mode)
            if mtime_sec >> 63:
                mtime_sec -= 1 << 64
            when = mtime_sec * 10 ** 9 + nsec
            os.utime(path, ns=(when, when), follow_symlinks=False)


def message(violation):
    cls, section, index, off, rule, reason = violation
    place = section if index is None else "%s[%d]" % (section, index)
    return "%s %s at %d: %s: %s" % (cls, place, off, rule, reason)


def check(path):
    """The violations of the image at path."""
    image = Image(path)
    try:
        return image.check()
    finally:
        image.close()


def opened(path):
    """The image at path, every rule checked; None, with its violations printed, if it is bad."""
    image = Image(path)
    if not image.check():
        return image
    for violation in image.violations:
        print(message(violation), file=sys.stderr)
    image.close()
    return None


def show(image):
    print("version %d.%d incompat %#x id %s pack %d extent %d max_chunk_pages %d" % (
        image.major, image.minor, image.incompat, image.image_id.hex(), image.pack_bytes,
        image.extent_bytes, image.max_chunk_pages))
    for i, row in enumerate(image.bases):
        print("bases[%d] %s %r pack %d" % (i, row[0].hex(), image.base_paths[i], row[1]))
    for name in ("chunks", "files", "targets", "ops", "lanes", "huge"):
        for i, row in enumerate(image.sections[name][2]):
            extra = " %r" % image.names[i] if name == "files" else ""
            if name == "ops":
                row = (hex(row[0]),) + row[1:]
            print("%s[%d]%s %s" % (name, i, extra, " ".join(map(str, row))))


def main(argv):
    verbs = {"check": 1, "extract": 2, "dump-target": 4, "show": 1}
    if len(argv) < 2 or argv[1] not in verbs or len(argv) != 2 + verbs[argv[1]]:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        image = Image(argv[2])
        image.check()
    except (NotFast, NoBase) as e:
        print(e, file=sys.stderr)
        return 1
    if image.violations:
        for violation in image.violations:
            print(message(violation), file=sys.stderr)
        return EXIT[image.violations[0][0]]
    if argv[1] == "extract":
        image.extract(argv[3])
    elif argv[1] == "show":
        show(image)
    elif argv[1] == "dump-target":
        t = image.find_target(int(argv[3], 0), int(argv[4], 0))
        if t is None:
            print("no such target", file=sys.stderr)
            return 1
        with open(argv[5], "xb") as f:
            for addr, page in image.target_pages(t):
                f.write(struct.pack("<Q", addr) + page)
    image.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))

# SPDX-License-Identifier: MIT
"""
CRIU's image files as far as the tests need them: the framing of a .img file, a small protobuf
encoder and decoder (varints and length-delimited fields only), and the pagemap in its two forms
(until 4.1: nr_pages is field 2; from 4.2: field 2 is 0 and field 5 counts).
"""
import struct

PAGE = 4096
COMMON_MAGIC = 0x54564319
SERVICE_MAGIC = 0x55105940
MAGIC = {
    "inventory": 0x58313116, "pstree": 0x50273030, "pagemap": 0x56084025, "core": 0x55053847,
    "mm": 0x57492820, "ids": 0x54432030, "memfd": 0x48453499, "files": 0x56303138,
    "ipcns-shm": 0x46283044, "stats": 0x57093306,
}

PE_PARENT, PE_LAZY, PE_PRESENT = 1, 2, 4

VMA_REGULAR, VMA_STACK, VMA_HEAP = 1 << 0, 1 << 1, 1 << 5
VMA_FILE_PRIVATE, VMA_ANON_SHARED, VMA_ANON_PRIVATE = 1 << 6, 1 << 8, 1 << 9
VMA_SYSVIPC, VMA_MEMFD, VMA_GUARD = 1 << 10, 1 << 14, 1 << 16

MAP_SHARED, MAP_PRIVATE, MAP_ANON, MAP_GROWSDOWN, MAP_HUGETLB = 1, 2, 0x20, 0x100, 0x40000
MADV_HUGEPAGE, MADV_NOHUGEPAGE, MADV_DONTFORK = 14, 15, 10


class Malformed(Exception):
    """A file that is not what its name says; .off is where in the file."""

    def __init__(self, off, reason):
        super().__init__(reason)
        self.off = off


# ---- protobuf ---------------------------------------------------------------------------------

def varint(n):
    n &= (1 << 64) - 1
    out = bytearray()
    while n > 0x7f:
        out.append(n & 0x7f | 0x80)
        n >>= 7
    out.append(n)
    return bytes(out)


def zigzag(n):
    return (n << 1) ^ (n >> 63)


def encode(fields):
    """fields: (number, int | bool | bytes | str) pairs in the order in which they are written."""
    out = bytearray()
    for number, value in fields:
        if isinstance(value, str):
            value = value.encode()
        if isinstance(value, (bytes, bytearray)):
            out += varint(number << 3 | 2) + varint(len(value)) + value
        else:
            out += varint(number << 3) + varint(int(value))
    return bytes(out)


def read_varint(buf, pos):
    value = shift = 0
    while True:
        if pos >= len(buf) or shift > 63:
            raise Malformed(pos, "bad varint")
        byte = buf[pos]
        pos += 1
        value |= (byte & 0x7f) << shift
        if byte < 0x80:
            return value & (1 << 64) - 1, pos
        shift += 7


def decode(buf):
    """The fields of a message: {number: [values]}; the last value of a plain field counts."""
    fields = {}
    pos = 0
    while pos < len(buf):
        key, pos = read_varint(buf, pos)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, pos = read_varint(buf, pos)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
            value, pos = int.from_bytes(buf[pos:pos + size], "little"), pos + size
        elif wire == 2:
            size, pos = read_varint(buf, pos)
            value, pos = bytes(buf[pos:pos + size]), pos + size
        else:
            raise Malformed(pos, "wire type %d" % wire)
        if number == 0 or pos > len(buf):
            raise Malformed(pos, "bad field")
        fields.setdefault(number, []).append(value)
    return fields


# ---- image files ------------------------------------------------------------------------------

def image(kind, messages):
    """A .img file: magics, then each message after its length."""
    if kind == "inventory":
        out = bytearray(struct.pack("<I", MAGIC[kind]))
    else:
        common = SERVICE_MAGIC if kind == "stats" else COMMON_MAGIC
        out = bytearray(struct.pack("<II", common, MAGIC[kind]))
    for message in messages:
        out += struct.pack("<I", len(message)) + message
    return bytes(out)


def pagemap_entry(vaddr, nr_pages, flags, form="4.2"):
    """form "4.1" | "4.2" | "old" (in_parent and no flags, as before CRIU 3)."""
    if form == "old":
        fields = [(1, vaddr), (2, nr_pages)]
        return encode(fields + [(3, 1)] if flags & PE_PARENT else fields)
    if form == "4.1":
        return encode([(1, vaddr), (2, nr_pages), (4, flags)])
    return encode([(1, vaddr), (2, 0), (4, flags), (5, nr_pages)])


def pagemap(pages_id, runs, form="4.2"):
    """runs: (vaddr, nr_pages, flags)."""
    return image("pagemap", [encode([(1, pages_id)])]
                 + [pagemap_entry(v, n, f, form) for v, n, f in runs])


def parse_pagemap(buf):
    """(pages_id, [(vaddr, nr_pages, flags)]) of a pagemap file; Malformed if it is none."""
    if len(buf) < 8 or struct.unpack_from("<II", buf) != (COMMON_MAGIC, MAGIC["pagemap"]):
        raise Malformed(0, "bad pagemap magic")
    pos, pages_id, runs = 8, None, []
    while pos < len(buf):
        if len(buf) - pos < 4:
            raise Malformed(pos, "record cut short")
        size, = struct.unpack_from("<I", buf, pos)
        if size > len(buf) - pos - 4:
            raise Malformed(pos, "record of %d bytes does not fit" % size)
        fields = decode(buf[pos + 4:pos + 4 + size])
        if pages_id is None:
            if 1 not in fields:
                raise Malformed(pos, "no pages_id")
            pages_id = fields[1][-1]
        else:
            if 1 not in fields or 2 not in fields:
                raise Malformed(pos, "entry without vaddr or nr_pages")
            flags = fields[4][-1] if 4 in fields else 0
            if fields.get(3, [0])[-1]:
                flags |= PE_PARENT
            elif 4 not in fields:
                flags = PE_PRESENT
            runs.append((fields[1][-1], fields.get(5, fields[2])[-1], flags))
        pos += 4 + size
    if pages_id is None:
        raise Malformed(pos, "no head")
    return pages_id, runs

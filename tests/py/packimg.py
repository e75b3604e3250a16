# SPDX-License-Identifier: MIT
"""
Pages as CRIU 4.3 compresses them. Field 6 of a pagemap entry holds the sizes of its blocks (field 1,
packed), their sum (field 2) and the pages of a block (field 3). A block of zeros has size 0 and is
not stored, one that LZ4 does not make smaller is stored as it is. The flag PE_ALIGNED of an entry
says that its bytes begin on a page of the file.

    packimg.py DUMP PAGES     makes all pages files of a plain dump compressed ones, with blocks of
                              PAGES pages
"""
import os
import sys

sys.dont_write_bytecode = True

import lz4.block

import criuimg
from criuimg import PAGE, PE_PARENT, PE_PRESENT, encode, varint

PE_ALIGNED = 8
VERSION = 3     # of an inventory with compressed pages: CRIU 4.2 knows 1 and 2


def blocks_field(sizes, block_pages, total=None, extra=()):
    """The message of field 6."""
    packed = b"".join(varint(size) for size in sizes)
    return encode([(1, packed), (2, sum(sizes) if total is None else total), (3, block_pages)]
                  + list(extra))


def parse_blocks(message):
    """What blocks_field() made."""
    fields, sizes, pos = criuimg.decode(message), [], 0
    packed = fields[1][0]
    while pos < len(packed):
        size, pos = criuimg.read_varint(packed, pos)
        sizes.append(size)
    return {"sizes": sizes, "block_pages": fields[3][-1], "total": fields[2][-1]}


def entry(vaddr, nr_pages, flags, blocks=None):
    fields = [(1, vaddr), (2, 0), (4, flags), (5, nr_pages)]
    return encode(fields + ([(6, blocks)] if blocks is not None else []))


def pack_block(data, acceleration=1):
    """The stored bytes of a block."""
    if not data.strip(b"\0"):
        return b""
    packed = lz4.block.compress(data, mode="fast", store_size=False, acceleration=acceleration)
    return packed if len(packed) < len(data) * 7 // 8 else data


def pack_run(data, block_pages, acceleration=1):
    """The stored blocks of the pages of an entry."""
    size = block_pages * PAGE
    return [pack_block(data[i:i + size], acceleration) for i in range(0, len(data), size)]


class Packer:
    """Compresses the pages of a pagemap, entry by entry."""

    def __init__(self, pages, block_pages, acceleration=1):
        self.pages, self.at = pages, 0
        self.block_pages, self.acceleration = block_pages, acceleration
        self.entries, self.out = [], bytearray()

    def add(self, vaddr, nr_pages, flags):
        """An entry whose blocks are all stored as they are has no sizes, but begins on a page."""
        if not flags & PE_PRESENT:
            self.entries.append(entry(vaddr, nr_pages, flags))
            return
        data = self.pages[self.at:self.at + nr_pages * PAGE]
        self.at += nr_pages * PAGE
        blocks = pack_run(data, self.block_pages, self.acceleration)
        sizes = [len(block) for block in blocks]
        if sum(sizes) == len(data) or sizes[:1] == [min(self.block_pages * PAGE, len(data))]:
            flags |= PE_ALIGNED
            self.out += bytes(-len(self.out) % PAGE)
        field = None if sum(sizes) == len(data) else blocks_field(sizes, self.block_pages)
        self.entries.append(entry(vaddr, nr_pages, flags, field))
        self.out += b"".join(blocks)


def replace(path, data):
    """Other contents of a file; owner, mode and time stay."""
    st = os.stat(path)
    os.chmod(path, 0o600)
    with open(path, "wb") as f:
        f.write(data)
    os.chmod(path, st.st_mode & 0o7777)
    os.utime(path, ns=(st.st_atime_ns, st.st_mtime_ns))


def contents(path):
    with open(path, "rb") as f:
        return f.read()


def pack_inventory(path, version=VERSION):
    fields = criuimg.decode(contents(path)[8:])
    fields[1] = [version]
    message = encode([(n, v) for n, values in sorted(fields.items()) for v in values])
    replace(path, criuimg.image("inventory", [message]))


def pack_dump(dump, block_pages, acceleration=1):
    """A plain dump becomes a compressed one."""
    for name in sorted(os.listdir(dump)):
        path = os.path.join(dump, name)
        if not name.startswith("pagemap-") or not os.path.isfile(path):
            continue
        try:
            pages_id, runs = criuimg.parse_pagemap(contents(path))
        except criuimg.Malformed:
            continue
        pages = os.path.join(dump, "pages-%d.img" % pages_id)
        packer = Packer(contents(pages), block_pages, acceleration)
        for run in runs:
            packer.add(*run)
        replace(path, criuimg.image("pagemap", [encode([(1, pages_id)])] + packer.entries))
        replace(pages, bytes(packer.out))
    pack_inventory(os.path.join(dump, "inventory.img"))


def main(argv):
    if len(argv) != 3 or not argv[2].isdigit():
        print(__doc__, file=sys.stderr)
        return 2
    pack_dump(argv[1], int(argv[2]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))

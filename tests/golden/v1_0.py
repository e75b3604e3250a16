#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""
Makes the golden image of version 1.0: a little of everything that SPEC.md knows, in less than
40 KiB.

    v1_0.py OUT     makes the image, and prints what tests/unit/test_golden.c has to expect of it

Other versions of the compression libraries give other bytes, and with them another image. The one
that is kept was made once; this says what is in it.
"""
import os
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "py"))

import ckread
import criuimg
from ckread import LZ4, PAGE, RAW, ZSTD, xxh64
from ckwrite import Builder, mm_file, pattern, pstree_file

DIRECT, INHERIT = 2, 1
TASK, SHMEM = 1, 2
HUGE = 2 << 20
LOW, MID, HIGH = 0x10000, 0x20000, 0x7f0000000000

# What is filled, as (kind, id, address, pages): the mappings of the tasks, and the shared object.
AREAS = ((TASK, 1, LOW, 4), (TASK, 1, MID, 16), (TASK, 1, HIGH, 2048), (TASK, 7, LOW, 4),
         (TASK, 7, MID, 17), (SHMEM, 77, 0, 13))


def records(word, period, nr_pages):
    """Pages full of records of 64 bytes that come again after `period` of them."""
    return b"".join(b"%-16s%8d%8x........ ....... ....... .....\n\n" % (word, i % period, i % period)
                    for i in range(nr_pages * PAGE // 64))


def golden():
    b = Builder(max_chunk_pages=512)
    b.model.header["minor"] = b.model.pack_header["minor"] = 0
    zero1, zero512 = b.zero(1), b.zero(512)
    raw = b.chunk(RAW, pattern(1, 3))
    lz4 = b.chunk(LZ4, records(b"lz4", 64, 8))
    zstd = b.chunk(ZSTD, records(b"zstd", 997, 256))
    own = b.chunk(RAW, pattern(2, 1))

    # The parent: direct ops, a chunk on both sides of a hole, one chunk four times, two huge ranges
    # (half of the second is zeros), three lanes.
    b.target(TASK, 1, [
        (LOW, raw, 0, 3, DIRECT),
        (LOW + 3 * PAGE, zero1, 0, 1, DIRECT),
        (MID, lz4, 0, 5, 0),
        (MID + 9 * PAGE, lz4, 5, 3, 0),
        (HIGH, zstd, 0, 256, 0),
        (HIGH + HUGE // 2, zstd, 0, 256, 0),
        (HIGH + 2 * HUGE, zero512, 0, 512, 0),
        (HIGH + 3 * HUGE, zstd, 0, 256, 0),
        (HIGH + 3 * HUGE + HUGE // 2, zstd, 0, 256, 0),
    ], cuts=(4, 6), pages_id=1)
    # The child: what its parent has at the same place and elsewhere, a page of its own, a page that
    # its pagemap leaves to a parent dump.
    b.target(TASK, 7, [
        (LOW, raw, 0, 3, INHERIT | DIRECT),
        (LOW + 3 * PAGE, own, 0, 1, 0),
        (MID, lz4, 0, 5, INHERIT),
        (MID + 5 * PAGE, lz4, 5, 3, 0),
        (MID + 16 * PAGE, raw, 1, 1, 0),
    ], parent=(TASK, 1), cuts=(2,), pages_id=2, in_parent=(4,))
    b.target(TASK, 9, [], pages_id=4)
    b.target(SHMEM, 77, [
        (0, own, 0, 1, 0),
        (5 * PAGE, lz4, 0, 8, 0),
    ], pages_id=3)
    b.huge = [(HIGH, 1, (TASK, 1)), (HIGH + 2 * HUGE, 2, (TASK, 1))]

    b.file(b"pages-1.img", handles=[raw, zero1, lz4, zstd, zstd, zero512, zstd, zstd])
    b.file(b"pages-2.img", handles=[raw, own, lz4])
    b.file(b"pages-3.img", handles=[own, lz4])
    b.file(b"pages-4.img", handles=[])
    b.file(b"inventory.img", criuimg.image("inventory", [criuimg.encode([(1, 2), (2, 1)])]))
    b.file(b"pstree.img", pstree_file([(1, 0), (7, 1), (9, 1)]))
    b.file(b"mm-1.img", mm_file([(LOW, LOW + 4 * PAGE), (MID, MID + 16 * PAGE),
                                 (HIGH, HIGH + 4 * HUGE)]), mode=0o600, uid=1000, gid=100)
    b.file(b"mm-7.img", mm_file([(LOW, LOW + 4 * PAGE), (MID, MID + 17 * PAGE)]))
    b.file(b"mm-9.img", mm_file([(LOW, LOW + 4 * PAGE)]))
    b.file(b"parent", link=b"../previous")
    b.file(b"empty", b"", mtime_sec=(1 << 64) - 5)
    b.file(b"other.bin", b"kept as it is\x00\xff", mode=0o4751, mtime_sec=0, mtime_nsec=0)
    return b.finish()


def area(image, kind, ident, start, pages):
    """The hash of some pages of a target, 0 where it has none."""
    target = dict(image.target_pages(image.find_target(kind, ident)))
    data = b"".join(target.get(start + i * PAGE, bytes(PAGE)) for i in range(pages))
    return xxh64(data)


def report(model, path, areas):
    """Prints what is in the image that was made of the model."""
    for name in ("ckfast.idx", "ckfast.pack"):
        with open(os.path.join(path, name), "rb") as f:
            print("%-11s 0x%016x" % (name, xxh64(f.read())))
    print("pages of all chunks but zeros: %d"
          % sum(c.nr_pages for c in model.chunks if c.codec != ckread.ZERO))
    image = ckread.opened(path)
    for kind, ident, start, pages in areas:
        print("target %d %d, %d pages at 0x%x: 0x%016x"
              % (kind, ident, pages, start, area(image, kind, ident, start, pages)))
    image.close()
    for f in model.files:
        print("kind %d, %s: %d bytes, 0x%016x" % (f.kind, model.name(f).decode(), f.size_bytes,
                                                f.checksum))
        if f.kind in ckread.WITH_PAGES and model.page_sums:
            refs = model.refs[f.first_ref:f.first_ref + f.nr_refs]
            data = b"".join(model.chunk_data(model.chunks[r.chunk]) for r in refs)
            head = {4: len(data), 5: f.target_off}.get(f.kind)
            head = b"" if head is None else head.to_bytes(8, "little")
            print("    its contents: 0x%016x" % xxh64((head + data)[:f.size_bytes]))


def save_one(argv, doc, make_model, areas):
    """Saves an image, and says what to expect of it."""
    if len(argv) != 2:
        print(doc, file=sys.stderr)
        return 2
    model = make_model()
    model.save(argv[1])
    report(model, argv[1], areas)
    return 0


if __name__ == "__main__":
    sys.exit(save_one(sys.argv, __doc__, golden, AREAS))

#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""
Makes the golden image of version 1.1, with what is not in version 1.0: weights in planes, chunks
that lie in a base, memory of two devices, and the storage that it was made for. Less than 100 KiB.

    v1_1.py OUT     makes OUT/fast and its base OUT/base, and prints what tests/unit/test_golden.c
                    has to expect of the first

As with v1_0.py, other versions of the compression libraries make another image.
"""
import os
import struct
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "py"))

import ckread
import criuimg
from ckread import BF16, LZ4, PAGE, RAW, ZSTD, xxh64
from ckwrite import (Builder, Section, compress, float_planes, join_planes, mm_file, pattern,
                     pstree_file)
from v1_0 import HIGH, HUGE, LOW, TASK, records, report

DEVICE = 3
MID = 0x40000

AREAS = ((TASK, 5, LOW, 24), (TASK, 5, MID, 34), (DEVICE, 5, HIGH, 1024),
         (DEVICE, 5, HIGH + 8 * HUGE, 512))


def new_builder():
    b = Builder(max_chunk_pages=512)
    b.model.header["minor"] = b.model.pack_header["minor"] = 1
    return b


def system_files(b, pid, vmas):
    b.file(b"inventory.img", criuimg.image("inventory", [criuimg.encode([(1, 2), (2, 1)])]))
    b.file(b"pstree.img", pstree_file([(pid, 0)]))
    b.file(b"mm-%d.img" % pid, mm_file(vmas))


def base_image():
    """Two chunks that the other image takes from here: all of one, and parts of the other."""
    b = new_builder()
    raw = b.chunk(RAW, pattern(11, 2))
    zstd = b.chunk(ZSTD, records(b"base", 499, 64))
    b.target(TASK, 3, [(LOW, raw, 0, 2, 0), (MID, zstd, 0, 64, 0)])
    b.file(b"pages-1.img", handles=[raw, zstd])
    system_files(b, 3, [(LOW, LOW + 2 * PAGE), (MID, MID + 64 * PAGE)])
    return b.finish()


def halves(nr_pages):
    """bf16 numbers of one exponent, signs and mantissas in no order."""
    return b"".join((0x3c00 | xxh64(b"%d" % i) & 0x807f).to_bytes(2, "little")
                    for i in range(nr_pages * PAGE // 2))


def singles(nr_pages):
    """float numbers below 1."""
    return b"".join(struct.pack("<f", (i % 251) / 256) for i in range(nr_pages * PAGE // 4))


def weights(b, width, data):
    """A chunk of numbers of so many bytes; planes that get no shorter are kept as they are."""
    parts = []
    for plane in float_planes(width, data):
        packed = compress(ZSTD, plane)
        parts.append((ZSTD, packed) if len(packed) < len(plane) else (RAW, plane))
    return b.chunk(BF16, data, join_planes(parts))


def golden(base):
    b = new_builder()
    number = b.base(base, b"../base")
    far_raw, far_zstd = (b.base_chunk(number, c) for c in base.chunks)
    raw = b.chunk(RAW, pattern(12, 3))
    half, single = weights(b, 2, halves(16)), weights(b, 4, singles(2))
    lz4 = b.chunk(LZ4, records(b"lz4", 64, 8))
    zstd = b.chunk(ZSTD, records(b"zstd", 997, 256))

    b.target(TASK, 5, [
        (LOW, raw, 0, 3, 0),
        (LOW + 3 * PAGE, half, 0, 16, 0),
        (LOW + 20 * PAGE, single, 0, 2, 0),
        (LOW + 22 * PAGE, far_raw, 0, 2, 0),
        (MID, far_zstd, 3, 20, 0),
        (MID + 22 * PAGE, far_zstd, 60, 4, 0),
        (MID + 26 * PAGE, lz4, 0, 8, 0),
    ], cuts=(4,), pages_id=1)
    b.file(b"pages-1.img", handles=[raw, half, single, far_raw, far_zstd, far_zstd, lz4])
    # On the first device two huge pages' worth, on the second one.
    b.device(5, [(HIGH, 2 * HUGE), (HIGH + 8 * HUGE, HUGE)], [
        (HIGH, far_zstd, 0, 64, 0),
        (HIGH + 64 * PAGE, half, 0, 16, 0),
        (HIGH + 80 * PAGE, b.zero(432), 0, 432, 0),
        (HIGH + HUGE, zstd, 0, 256, 0),
        (HIGH + HUGE + 256 * PAGE, zstd, 0, 256, 0),
        (HIGH + 8 * HUGE, lz4, 0, 8, 0),
        (HIGH + 8 * HUGE + 8 * PAGE, b.zero(504), 0, 504, 0),
    ], cuts=(3, 5))
    system_files(b, 5, [(LOW, LOW + 24 * PAGE), (MID, MID + 34 * PAGE)])
    b.model.extra = [Section(ckread.S_STORAGE, ckread.STORAGE.size,
                             ckread.STORAGE.pack(3000000000, 2, 2, 0, 0))]
    return b.finish()


def as_ckfast_does(model):
    """The paths of bases come after the strings of files."""
    path = bytes(model.strings[:model.bases[0].path_len])
    model.strings = model.strings[len(path):] + path
    model.bases[0].path_off = len(model.strings) - len(path)
    for f in model.files:
        f.name_off -= len(path)
    return model


def save_both(argv, doc, base, make_model, areas):
    """Saves an image and its base, and says what to expect of the image."""
    if len(argv) != 2:
        print(doc, file=sys.stderr)
        return 2
    model = as_ckfast_does(make_model(base))
    os.mkdir(argv[1])
    base.save(os.path.join(argv[1], "base"))
    model.save(os.path.join(argv[1], "fast"))
    report(model, os.path.join(argv[1], "fast"), areas)
    return 0


if __name__ == "__main__":
    sys.exit(save_both(sys.argv, __doc__, base_image(), golden, AREAS))

#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""
Makes the golden image of version 1.2: chunks that begin and end within pages of the pack, of every
codec, in the own pack and in a base, with raw ones and a few unused bytes between them. Less than
100 KiB.

    v1_2.py OUT     makes OUT/fast and its base OUT/base, and prints what tests/unit/test_golden.c
                    has to expect of the first

As with v1_0.py, other versions of the compression libraries make another image.
"""
import os
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "py"))

from ckread import LZ4, PAGE, RAW, ZSTD
from ckwrite import Builder, pattern
from v1_0 import LOW, TASK, records
from v1_1 import MID, halves, save_both, singles, system_files, weights

AREAS = ((TASK, 5, LOW, 41), (TASK, 5, MID, 96))


def new_builder():
    return Builder(max_chunk_pages=512, packed=True)


def base_image():
    """Two chunks on one page, of which the other image takes the second."""
    b = new_builder()
    first, second = b.chunk(LZ4, records(b"first", 3, 4)), b.chunk(ZSTD, records(b"base", 499, 64))
    b.target(TASK, 3, [(LOW, first, 0, 4, 0), (MID, second, 0, 64, 0)])
    b.file(b"pages-1.img", handles=[first, second])
    system_files(b, 3, [(LOW, LOW + 4 * PAGE), (MID, MID + 64 * PAGE)])
    return b.finish()


def golden(base):
    b = new_builder()
    number = b.base(base, b"../base")
    far = b.base_chunk(number, base.chunks[-1])
    small = [b.chunk(ZSTD, records(b"%d" % i, 1 + i, 2)) for i in range(4)]
    raw = b.chunk(RAW, pattern(31, 2))
    half, single = weights(b, 2, halves(8)), weights(b, 4, singles(2))
    b.model.pack += bytes(5)
    lz4 = b.chunk(LZ4, records(b"lz4", 64, 8))
    last = b.chunk(RAW, pattern(32, 1))

    ops = [(LOW + 2 * i * PAGE, c, 0, 2, 0) for i, c in enumerate(small)] + [
        (LOW + 8 * PAGE, raw, 0, 2, 0),
        (LOW + 10 * PAGE, half, 0, 8, 0),
        (LOW + 19 * PAGE, single, 0, 2, 0),
        (LOW + 24 * PAGE, lz4, 0, 8, 0),
        (LOW + 32 * PAGE, lz4, 2, 5, 0),
        (LOW + 40 * PAGE, last, 0, 1, 0),
        (MID, far, 0, 64, 0),
        (MID + 70 * PAGE, far, 9, 20, 0),
    ]
    b.target(TASK, 5, ops, cuts=(3, 8), pages_id=1)
    b.file(b"pages-1.img", handles=[op[1] for op in ops])
    system_files(b, 5, [(LOW, LOW + 41 * PAGE), (MID, MID + 96 * PAGE)])
    return b.finish()


if __name__ == "__main__":
    sys.exit(save_both(sys.argv, __doc__, base_image(), golden, AREAS))

#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""
Makes the golden image of version 1.3: a pages file whose checksum is made of those of its pages,
with zeros, compressed and raw pages in it, and one that is empty. Less than 30 KiB.

    v1_3.py OUT     makes the image, and prints what tests/unit/test_golden.c has to expect of it

As with v1_0.py, other versions of the compression libraries make another image.
"""
import os
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "py"))

from ckread import LZ4, PAGE, RAW, ZSTD
from ckwrite import Builder, pattern
from v1_0 import LOW, SHMEM, TASK, records, save_one
from v1_1 import system_files

AREAS = ((TASK, 5, LOW, 30),)


def golden():
    b = Builder(max_chunk_pages=512, packed=True, page_sums=True)
    lz4 = b.chunk(LZ4, records(b"lz4", 64, 8))
    raw = b.chunk(RAW, pattern(41, 3))
    zstd = b.chunk(ZSTD, records(b"zstd", 97, 9))
    ops = [
        (LOW, raw, 0, 3, 0),
        (LOW + 3 * PAGE, b.zero(2), 0, 2, 0),
        (LOW + 5 * PAGE, lz4, 0, 8, 0),
        (LOW + 13 * PAGE, b.zero(5), 0, 5, 0),
        (LOW + 20 * PAGE, zstd, 0, 9, 0),
    ]
    b.target(TASK, 5, ops, cuts=(2,), pages_id=1)
    b.target(SHMEM, 6, [], pages_id=2)
    b.file(b"pages-1.img", handles=[op[1] for op in ops])
    b.file(b"pages-2.img", handles=[])
    system_files(b, 5, [(LOW, LOW + 30 * PAGE)])
    return b.finish()


if __name__ == "__main__":
    sys.exit(save_one(sys.argv, __doc__, golden, AREAS))

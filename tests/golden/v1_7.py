#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""
Makes the golden image of version 1.7: two pages files that CRIU had compressed, of which one ends
within a page and one has no bytes; their pages are in the plan, but in no file. Less than 40 KiB.

    v1_7.py OUT     makes the image, and prints what tests/unit/test_golden.c has to expect of it

As with v1_0.py, other versions of the compression libraries make another image.
"""
import os
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "py"))

from ckread import LZ4, PAGE, RAW
from ckwrite import Builder, pattern
from v1_0 import LOW, TASK, records, save_one
from v1_1 import system_files

AREAS = ((TASK, 5, LOW, 11), (2, 77, 0, 2))


def golden():
    b = Builder(max_chunk_pages=512, packed=True, page_sums=True, minor=7)
    lz4 = b.chunk(LZ4, records(b"lz4", 64, 8))
    zero = b.zero(3)
    stored = b.chunk(RAW, pattern(71, 2))
    b.target(TASK, 5, [(LOW, lz4, 0, 8, 0), (LOW + 8 * PAGE, zero, 0, 3, 0)], pages_id=1)
    b.target(2, 77, [(0, zero, 0, 2, 0)], pages_id=2)
    b.file(b"pages-1.img", handles=[stored], kind=6, cut=1000)
    b.file(b"pages-2.img", handles=[], kind=6)
    system_files(b, 5, [(LOW, LOW + 11 * PAGE)])
    return b.finish()


if __name__ == "__main__":
    sys.exit(save_one(sys.argv, __doc__, golden, AREAS))

#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""
Makes the golden image of version 1.6: buffer objects of a render node, of which two are in the pack
behind heads of different kinds, and one is a file of its own. Less than 40 KiB.

    v1_6.py OUT     makes the image, and prints what tests/unit/test_golden.c has to expect of it

As with v1_0.py, other versions of the compression libraries make another image.
"""
import os
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "py"))

import amdimg
from ckread import LZ4, PAGE, RAW
from ckwrite import Builder, pattern
from v1_0 import LOW, TASK, records, save_one
from v1_1 import system_files

GPU, MINOR, FILE = 0x1a, 128, 9
SIZES = [13 * PAGE, PAGE, 3 * PAGE]
AREAS = ((TASK, 5, LOW, 8), (3, amdimg.target_id(FILE, 0), 0, 13),
         (3, amdimg.target_id(FILE, 2), 0, 3))


def golden():
    b = Builder(max_chunk_pages=512, packed=True, page_sums=True, minor=6)
    lz4 = b.chunk(LZ4, records(b"lz4", 64, 8))
    raw = b.chunk(RAW, pattern(61, 3))
    b.target(TASK, 5, [(LOW, lz4, 0, 8, 0)], pages_id=1)
    b.file(b"pages-1.img", handles=[lz4])
    b.render(FILE, GPU, MINOR, SIZES,
             {0: (SIZES[0], [lz4, b.zero(5)], (1,)), 2: (0x7ffd12345678, [raw], ())})
    b.file(amdimg.render_pages_name(FILE, MINOR, 1), amdimg.sized(pattern(62, 1)))
    system_files(b, 5, [(LOW, LOW + 8 * PAGE)])
    return b.finish()


if __name__ == "__main__":
    sys.exit(save_one(sys.argv, __doc__, golden, AREAS))

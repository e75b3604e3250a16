#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""
Makes the golden image of version 1.5: memory of two AMD GPUs, of which one is in the pack and one
is a file of its own. Less than 40 KiB.

    v1_5.py OUT     makes the image, and prints what tests/unit/test_golden.c has to expect of it

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

GPU, KEPT, FILE = 0x1a, 0xbeef, 7
MIB2 = amdimg.MIB2
DEVICE = (3, amdimg.target_id(FILE, GPU))
AREAS = ((TASK, 5, LOW, 8), (*DEVICE, 0, 13), (*DEVICE, MIB2, 3))


def golden():
    b = Builder(max_chunk_pages=512, packed=True, page_sums=True, minor=5)
    lz4 = b.chunk(LZ4, records(b"lz4", 64, 8))
    raw = b.chunk(RAW, pattern(51, 3))
    b.target(TASK, 5, [(LOW, lz4, 0, 8, 0)], pages_id=1)
    b.file(b"pages-1.img", handles=[lz4])
    b.amd(FILE, 5, [GPU, KEPT],
          [(GPU, 13 * PAGE, amdimg.VRAM), (KEPT, PAGE, amdimg.GTT), (GPU, PAGE, amdimg.DOORBELL),
           (GPU, 3 * PAGE, amdimg.GTT)],
          {GPU: ([lz4, b.zero(5), raw], (2,))})
    b.file(amdimg.pages_name(FILE, KEPT), amdimg.sized(pattern(52, 1)))
    system_files(b, 5, [(LOW, LOW + 8 * PAGE)])
    return b.finish()


if __name__ == "__main__":
    sys.exit(save_one(sys.argv, __doc__, golden, AREAS))

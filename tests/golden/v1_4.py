#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""
Makes the golden image of version 1.4: device memory that two tasks share, one way and the other, and
memory that one of them has alone. Less than 30 KiB.

    v1_4.py OUT     makes the image, and prints what tests/unit/test_golden.c has to expect of it

As with v1_0.py, other versions of the compression libraries make another image.
"""
import os
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "py"))

from ckread import LZ4, PAGE, RAW
from ckwrite import Builder, pattern
from gpuimg import FLAG_IMPORT, FLAG_SHARED
from v1_0 import HIGH, HUGE, LOW, TASK, records, save_one
from v1_1 import DEVICE, system_files

AREAS = ((TASK, 5, LOW, 3), (DEVICE, 5, HIGH, 512), (DEVICE, 5, HIGH + 2 * HUGE, 512),
         (DEVICE, 6, HIGH + 4 * HUGE, 1024))
IDS = b"shared memory, 1", b"shared memory, 2"
IMPORT = FLAG_SHARED | FLAG_IMPORT


def golden():
    b = Builder(max_chunk_pages=512, packed=True, page_sums=True)
    raw = b.chunk(RAW, pattern(51, 3))
    lz4 = b.chunk(LZ4, records(b"shared", 64, 8))
    b.target(TASK, 5, [(LOW, raw, 0, 3, 0)], pages_id=1)
    b.file(b"pages-1.img", handles=[raw])
    # A name of memory that is nowhere mapped, too.
    b.device(5, [(HIGH, HUGE), (HIGH + 2 * HUGE, HUGE, FLAG_SHARED, IDS[0]),
                 (1 << 62, HUGE, IMPORT, IDS[1])], [
        (HIGH, raw, 0, 3, 0),
        (HIGH + 3 * PAGE, b.zero(509), 0, 509, 0),
        (HIGH + 2 * HUGE, lz4, 0, 8, 0),
        (HIGH + 2 * HUGE + 8 * PAGE, b.zero(504), 0, 504, 0),
    ], cuts=(2,))
    b.device(6, [(HIGH, HUGE, IMPORT, IDS[0]), (HIGH + 4 * HUGE, 2 * HUGE, FLAG_SHARED, IDS[1])], [
        (HIGH + 4 * HUGE, b.zero(512), 0, 512, 0),
        (HIGH + 5 * HUGE, lz4, 0, 8, 0),
        (HIGH + 5 * HUGE + 8 * PAGE, b.zero(504), 0, 504, 0),
    ])
    system_files(b, 5, [(LOW, LOW + 3 * PAGE)])
    return b.finish()


if __name__ == "__main__":
    sys.exit(save_one(sys.argv, __doc__, golden, AREAS))

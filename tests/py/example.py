#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""
The worked example of SPEC.md: makes its image, and compares every byte with the dumps on that page.

    example.py          compares
    example.py dump     prints the dumps as SPEC.md has them, but for the remarks
"""
import os
import re
import sys

sys.dont_write_bytecode = True

import criuimg
from ckread import LZ4, PAGE, RAW, IDX, PACK
from ckwrite import Builder, lz4_run, mm_file, pstree_file

SPEC = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "SPEC.md")
TITLE = "A worked example"
LOW = 0x10000
COLUMNS = 58  # of a line without its remark


def model():
    """One task: a raw page, two pages of zeros, a hole, and three pages in two compressed chunks."""
    b = Builder(max_chunk_pages=16, packed=True, page_sums=True)
    raw = b.chunk(RAW, b"a page, unpacked" * (PAGE // 16))
    long = b.chunk(LZ4, b"A" * 2 * PAGE, lz4_run(ord("A"), 2 * PAGE))
    short = b.chunk(LZ4, b"B" * PAGE, lz4_run(ord("B"), PAGE))
    zero = b.zero(2)
    b.target(1, 5, [(LOW, raw, 0, 1, 0), (LOW + PAGE, zero, 0, 2, 0),
                    (LOW + 4 * PAGE, long, 0, 2, 0), (LOW + 6 * PAGE, short, 0, 1, 0)])
    b.file(b"pages-1.img", handles=[raw, zero, long, short])
    b.file(b"inventory.img", criuimg.image("inventory", [criuimg.encode([(1, 2), (2, 1)])]))
    b.file(b"mm-5.img", mm_file([(LOW, LOW + 7 * PAGE)]))
    b.file(b"pstree.img", pstree_file([(5, 0)]))
    b.model.header["minor"] = b.model.pack_header["minor"] = 7
    return b.finish()


def dump(data):
    """Lines of 16 bytes; for all but the first of equal lines a star; the length at the end."""
    out, last = [], None
    for off in range(0, len(data), 16):
        row = data[off:off + 16]
        if row != last:
            out.append("%08x  %-23s  %s" % (off, row[:8].hex(" "), row[8:].hex(" ")))
        elif out[-1] != "*":
            out.append("*")
        last = row
    return [line.rstrip() for line in out] + ["%08x" % len(data)]


def dumps():
    """(file name, lines of its dump) in the order of SPEC.md."""
    idx, pack = model().build()
    return [(IDX, dump(idx)), (PACK, dump(pack))]


def written():
    """All lines of dumps in the section of SPEC.md, without their remarks."""
    with open(SPEC, encoding="utf-8") as f:
        text = f.read()
    section = re.search(r"^## [0-9]+\. %s$(.*?)(?=^## )" % TITLE, text, re.M | re.S)
    return [line[:COLUMNS].rstrip() for line in section.group(1).splitlines()
            if re.match(r"[0-9a-f]{8}( |$)|\*$", line)] if section else []


def difference():
    """What is wrong in SPEC.md, or None."""
    want = [line for _, lines in dumps() for line in lines]
    got = written()
    for i, line in enumerate(want):
        if i >= len(got) or got[i] != line:
            return "line %d of the dumps in SPEC.md: got %r, want %r" \
                % (i + 1, got[i] if i < len(got) else "none", line)
    return None if len(got) == len(want) else "SPEC.md has %d lines more" % (len(got) - len(want))


def main(argv):
    if argv[1:] == ["dump"]:
        for name, lines in dumps():
            print("\n".join([name, *lines, ""]))
        return 0
    wrong = difference()
    if wrong:
        print(wrong, file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))

# SPDX-License-Identifier: MIT
"""Makes an incremental dump out of a full one, also where the kernel cannot track dirty memory.

    split.py DUMP OUT       OUT/dump is DUMP with every other run of its pages only in the parent
                            dump OUT/parent, whose pages at all other places are rubbish
"""

import os
import shutil
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "py"))

import criuimg  # noqa: E402

# Runs are cut, so that even one long run is split.
MAX_RUN = 37
PAGE = criuimg.PAGE


def cut(runs):
    for vaddr, nr, flags in runs:
        for at in range(0, nr, MAX_RUN):
            yield vaddr + at * PAGE, min(MAX_RUN, nr - at), flags


def form_of(data):
    """The form of the pagemap's entries: 4.2 has a nr_pages of its own in field 5."""
    first = 12 + int.from_bytes(data[8:12], "little")
    size = int.from_bytes(data[first:first + 4], "little")
    return "4.2" if 5 in criuimg.decode(data[first + 4:first + 4 + size]) else "4.1"


def split(dump, parent, name):
    with open(os.path.join(dump, name), "rb") as f:
        data = f.read()
    pages_id, runs = criuimg.parse_pagemap(data)
    if not runs:
        return
    pages = "pages-%d.img" % pages_id
    ours, theirs = [], []
    with open(os.path.join(parent, pages), "rb") as source, \
            open(os.path.join(dump, pages), "wb") as here, \
            open(os.path.join(parent, pages + ".new"), "wb") as there:
        for i, (vaddr, nr, flags) in enumerate(cut(runs)):
            stored = source.read(nr * PAGE) if flags & criuimg.PE_PRESENT else b""
            if not stored or i % 2:
                ours.append((vaddr, nr, flags))
                here.write(stored)
                there.write(b"\xee" * len(stored))
            else:
                ours.append((vaddr, nr, criuimg.PE_PARENT))
                there.write(stored)
            theirs.append((vaddr, nr, flags))
    os.rename(os.path.join(parent, pages + ".new"), os.path.join(parent, pages))
    for where, what in ((dump, ours), (parent, theirs)):
        with open(os.path.join(where, name), "wb") as f:
            f.write(criuimg.pagemap(pages_id, what, form_of(data)))


def main(source, out):
    dump, parent = os.path.join(out, "dump"), os.path.join(out, "parent")
    for where in (dump, parent):
        shutil.copytree(source, where, symlinks=True)
    os.symlink("../parent", os.path.join(dump, "parent"))
    for name in sorted(os.listdir(source)):
        if name.startswith("pagemap-"):
            split(dump, parent, name)


main(*sys.argv[1:])

#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""
Dumps through ckfast and back. Good ones: converted with every codec and extent size, with one
thread and with four (equal bytes), read by the independent reader, every page of every target
compared with what the generator knows, extracted by both readers, and every file compared with
its original: bytes, mode, owner, mtime, links. Odd ones: the same, but for what no image can hold
as it is, which convert names. Bad ones: refused with one line and the right exit
code, nothing left behind, nothing touched.

    roundtrip.py [SEED …]      seeds to try (default 1 to 10), and all odd and bad dumps
"""
import json
import os
import re
import shutil
import sys
import tarfile

sys.dont_write_bytecode = True

import ckread
import criuimg
import gendump
import packimg
import tool
from ckread import PAGE
from tool import Failure, ckfast, expect

MATRIX = [("auto", "4M"), ("raw", "8M"), ("lz4", "4M"), ("zstd", "16M"), ("auto", "16M"),
          ("lz4", "8M"), ("bf16", "4M")]
# Where the file system answers first, or the caller took the wrong directory, 1 will do as well.
SYSTEM = {"pages-missing", "in-parent-dangling", "pages-id-absent", "in-parent-no-link",
          "parent-loop"}
# What convert says, to the letter, of dumps that are no corrupt ones: a file of theirs is none.
SAYS = {
    "pages-fifo": (4, "pages-1.img is not a regular file"),
    "pages-directory": (4, "pages-1.img is not a regular file"),
    "pagemap-fifo": (4, "pagemap-1.img is not a regular file"),
    "pagemap-directory": (4, "pagemap-1.img is not a regular file"),
    "inventory-directory": (4, "inventory.img is not a regular file"),
    "gpu-pages-fifo": (4, "ckfast-gpu-pages-5.img is not a regular file"),
    "gpu-table-fifo": (4, "ckfast-gpu-5.img is not a regular file"),
    "amd-pages-fifo": (4, "amdgpu-pages-7-001a.img is not a regular file"),
    "amd-table-fifo": (4, "amdgpu-kfd-7.img is not a regular file"),
    "render-pages-fifo": (4, "amdgpu-drm-pages-9-128-0000.img is not a regular file"),
    "render-table-fifo": (4, "amdgpu-renderD-9.img is not a regular file"),
    "no-pagemap": (3, "incomplete dump: there is no pagemap-*.img; if criu dump failed, its log "
                      "says why, and the process has to be dumped again"),
}
# How that ends for compressed pages: where in the pagemap an entry is depends on the LZ4 at hand.
ENDS = {
    "packed-newer": (4, "field 6.4 is that of a newer CRIU"),
    "packed-newer-entry": (4, "field 7 is that of a newer CRIU"),
    "packed-number": (3, "field 6 holds no blocks"),
    "packed-block-of-0": (3, "blocks of 0 pages, want 1 to 1024"),
    "packed-size-over": (3, "block 0 has 4097 bytes, more than its 1 pages"),
    "packed-block-long": (3, "do not decode to exactly 1 pages"),
    "packed-parent-short": (3, "the file ends before the pages of its pagemap do"),
}
ALREADY = "this is a fast image already; ckfast extract makes a dump of it again"
NOT_FAST = ("not a fast image: there is no ckfast.idx; ckfast convert makes a fast image of a "
            "dump")
STALE = ("a dump was written over an older fast image here: what is left of that, ckfast.* and "
         "README.ckfast, is left out, and best removed")


def check_truth(fast, out, truth):
    """Every page of every target, and no page more."""
    image = ckread.Image(fast)
    violations = image.check()
    expect(not violations, "ckread: " + "; ".join(map(ckread.message, violations[:3])))
    want_targets = {(t["kind"], t["id"]) for t in truth["targets"]}
    have_targets = {(t[6], t[0]) for t in image.targets}
    expect(want_targets == have_targets, "targets %s, want %s" % (have_targets, want_targets))
    with open(os.path.join(out, "truth.bin"), "rb") as pages:
        for target in truth["targets"]:
            what = "target %d %d" % (target["kind"], target["id"])
            have = image.target_pages(image.find_target(target["kind"], target["id"]))
            for start, nr, off in target["runs"]:
                pages.seek(off)
                for addr in range(start, start + nr * PAGE, PAGE):
                    place, page = next(have, (None, None))
                    expect(place == addr, "%s: page %s, want %#x" % (what, place, addr))
                    expect(page == pages.read(PAGE), "%s: other bytes at %#x" % (what, addr))
            expect(next(have, None) is None, "%s: pages too many" % what)
    plan = (sum(1 for op in image.ops if op[0] & 1), sum(1 for op in image.ops if op[0] & 2),
            len(image.huge), len(image.lanes))
    image.close()
    return plan


def convert(dump, fast, codec, extent, threads, bases=()):
    """Dumps here are small: 256 MiB and 48 bytes a page are 300 MiB at the very most."""
    done = ckfast("convert", dump, fast, "--amd", "--codec", codec, "--profile", "ssd",
                  "--extent-size", extent, "--threads", str(threads),
                  *(arg for base in bases for arg in ("--base", base)))
    expect(done.code == 0, "convert %s %s: exit %d: %s" % (codec, extent, done.code,
                                                           done.err.strip()))
    expect(done.peak_kib < tool.PEAK_KIB, "convert took %d KiB" % done.peak_kib)


def same_bytes(a, b):
    """Two images of the same dump are the same bytes, whatever made them."""
    expect(sorted(os.listdir(a)) == sorted(os.listdir(b)), "other files with other threads")
    for name in os.listdir(a):
        with open(os.path.join(a, name), "rb") as f, open(os.path.join(b, name), "rb") as g:
            expect(f.read() == g.read(), "%s depends on the number of threads" % name)


def based(work, fast, out, truth):
    """The dump that fast was made of once more, on top of fast: next to nothing is stored again."""
    dump, top = os.path.join(out, truth["dump"]), os.path.join(work, "based")
    back = os.path.join(work, "back")
    convert(dump, top, "zstd", "8M", 1, [fast])
    convert(dump, top + "-t4", "zstd", "8M", 4, [fast])
    same_bytes(top, top + "-t4")
    check_truth(top, out, truth)
    for args in (("verify", top), ("extract", top, back), ("flatten", top, top + "-flat")):
        done = ckfast(*args)
        expect(done.code == 0, "%s: exit %d: %s" % (args[0], done.code, done.err.strip()))
    same_dump(dump, back, "extract")
    check_truth(top + "-flat", out, truth)
    for path in (top, top + "-t4", top + "-flat", back):
        shutil.rmtree(path)


def good(work, seed, options=None, matrix=None):
    """One seed through the whole way; returns what the plan had."""
    out = os.path.join(work, "dumps")
    truth = gendump.make(seed, out, options)
    dump = os.path.join(out, truth["dump"])
    before = tool.picture(out)
    notes = []
    for i, (codec, extent) in enumerate(matrix or MATRIX):
        fast = os.path.join(work, "fast-%d" % i)
        convert(dump, fast, codec, extent, 1)
        convert(dump, fast + "-t4", codec, extent, 4)
        same_bytes(fast, fast + "-t4")
        shutil.rmtree(fast + "-t4")
        notes.append(check_truth(fast, out, truth))
        done = ckfast("verify", fast)
        expect(done.code == 0, "verify: exit %d: %s" % (done.code, done.err.strip()))
        back = os.path.join(work, "back")
        done = ckfast("extract", fast, back)
        expect(done.code == 0, "extract: exit %d: %s" % (done.code, done.err.strip()))
        same_dump(dump, back, "extract")
        shutil.rmtree(back)
        if i == 0:
            image = ckread.opened(fast)
            image.extract(back)
            image.close()
            same_dump(dump, back, "ckread extract")
            shutil.rmtree(back)
            based(work, fast, out, truth)
        shutil.rmtree(fast)
    changed = tool.difference(before, tool.picture(out))
    expect(changed is None, "convert touched the dump: %s" % changed)
    return "%s; inherit, direct, huge, lanes %s" % (json.dumps(truth["features"]), notes[0])


def same_dump(dump, back, what):
    different = tool.difference(tool.picture(dump), tool.picture(back))
    expect(different is None, "%s: %s" % (what, different))


def said(dump, *messages):
    """What convert writes to stderr."""
    return "".join("ckfast convert: %s: %s\n" % (dump, message) for message in messages)


def straighten(dump):
    """Makes the dump what it would have to be to come back from an image as it is."""
    for name in os.listdir(dump):
        path = os.path.join(dump, name)
        if os.path.islink(path):
            if name.endswith(".img"):
                os.replace(os.path.realpath(path), path)
        elif os.path.isdir(path):
            os.rmdir(path)
        elif not os.path.isfile(path) or name in (ckread.IDX, ckread.PACK):
            os.unlink(path)


def odd(work, name):
    """A dump that convert takes, with one warning for each entry that the image has not as it is."""
    out, fast = os.path.join(work, "dumps"), os.path.join(work, "fast")
    make, entries = gendump.ODD[name]
    make(out)
    dump = os.path.join(out, "dump")
    before = tool.picture(out)
    done = ckfast("convert", dump, fast, "--amd")
    want = said(dump, *(STALE if what == gendump.STALE else "%s %s" % (entry, what)
                        for entry, what in entries))
    expect((done.code, done.err) == (0, want), "exit %d: %s" % (done.code, done.err))
    changed = tool.difference(before, tool.picture(out))
    expect(changed is None, "convert touched the dump: %s" % changed)
    expect(ckfast("verify", fast).code == 0, "verify")
    expect(ckfast("extract", fast, os.path.join(work, "back")).code == 0, "extract")
    image = ckread.opened(fast)
    expect(image is not None, "ckread refuses it")
    image.extract(os.path.join(work, "mine"))
    image.close()
    straighten(dump)
    same_dump(dump, os.path.join(work, "back"), "extract")
    same_dump(dump, os.path.join(work, "mine"), "ckread extract")


def bad(work, name):
    """A dump that convert has to refuse."""
    out = os.path.join(work, "dumps")
    gendump.make_bad(name, out)
    dump, place = os.path.join(out, "dump"), os.path.join(work, "place")
    os.mkdir(place)
    before = tool.picture(out)
    done = ckfast("convert", dump, os.path.join(place, "fast"), "--amd")
    codes = (1, 3, 4) if name in SYSTEM else (3, 4)
    if done.code not in codes:
        raise Failure("exit %d: %s" % (done.code, done.err.strip()))
    expect(os.listdir(place) == [], "left behind: %s" % os.listdir(place))
    expect(len(tool.lines(done.err)) == 1, "not one line: %r" % done.err)
    if name in SAYS:
        expect((done.code, done.err) == (SAYS[name][0], said(dump, SAYS[name][1])),
               "exit %d: %s" % (done.code, done.err))
    if name in ENDS:
        expect(done.code == ENDS[name][0] and done.err.endswith(ENDS[name][1] + "\n"),
               "exit %d: %s" % (done.code, done.err))
    expect(done.out == "", "results of a failure: %r" % done.out)
    expect(done.wall_s < 20, "took %.1f s" % done.wall_s)
    expect(done.peak_kib < tool.PEAK_KIB, "took %d KiB" % done.peak_kib)
    changed = tool.difference(before, tool.picture(out))
    expect(changed is None, "convert touched the dump: %s" % changed)
    return "exit %d: %s" % (done.code, done.err.strip().replace(work, ""))


# Corners that a seed may miss, each by name.
CORNERS = {
    "only-shmem": {"tasks": 0, "shmem": 3},
    "one-page": {"tasks": 1, "pages": 1, "levels": 1, "shmem": 0},
    "form-old": {"form": "old", "levels": 3, "tasks": 2},
    "form-4.1": {"form": "4.1", "levels": 3, "tasks": 3, "shmem": 2},
    "form-4.2": {"form": "4.2", "levels": 3, "tasks": 3, "shmem": 2},
    "all-zero": {"content": "zero", "huge": 1, "tasks": 2},
    "hugetlb-guard": {"hugetlb": 1, "guard": 1, "tasks": 2, "cow": 1, "levels": 1},
    "fragmented": {"fragmented": 1, "pages": 2000, "tasks": 1},
    "cow-huge": {"cow": 1, "huge": 1, "tasks": 5, "levels": 1, "content": "mix"},
    "gpu": {"gpu": 2, "tasks": 3, "levels": 1, "pages": 400, "content": "mix"},
    "gpu-meta": {"gpu": 1, "tasks": 1, "levels": 2, "pages": 40, "meta": 1, "content": "repeat"},
    "gpu-weights": {"gpu": 2, "tasks": 2, "levels": 1, "pages": 200, "content": "bf16"},
    "gpu-zero": {"gpu": 2, "tasks": 2, "levels": 1, "pages": 40, "content": "zero"},
    "amd": {"amd": 2, "tasks": 3, "levels": 1, "pages": 400, "content": "mix"},
    "amd-gpu": {"amd": 2, "gpu": 2, "tasks": 2, "levels": 2, "pages": 40, "content": "repeat"},
    "amd-weights": {"amd": 2, "tasks": 2, "levels": 1, "pages": 40, "content": "bf16", "meta": 1},
    "render": {"render": 2, "tasks": 2, "levels": 1, "pages": 400, "content": "mix"},
    "render-amd": {"render": 2, "amd": 2, "gpu": 1, "tasks": 2, "levels": 2, "pages": 40,
                   "content": "repeat"},
    "unknown-meta": {"unknown": 1, "meta": 1, "tasks": 1, "pages": 40},
}


def empty_pages(work):
    """A task without pages (an empty pages file), and a dump in which nothing is but a file."""
    out = os.path.join(work, "dumps")
    truth = gendump.make(3, out, {"tasks": 1, "pages": 1, "levels": 1, "shmem": 0, "huge": 0,
                                  "hugetlb": 0, "guard": 0, "fragmented": 0, "unknown": 0})
    dump = os.path.join(out, "0")
    pid = truth["targets"][0]["id"]
    with open(os.path.join(dump, "pagemap-%d.img" % pid), "wb") as f:
        f.write(gendump.criuimg.pagemap(1, []))
    os.truncate(os.path.join(dump, "pages-1.img"), 0)
    truth["targets"][0]["runs"] = []
    fast, back = os.path.join(work, "fast"), os.path.join(work, "back")
    convert(dump, fast, "auto", "4M", 2)
    check_truth(fast, out, truth)
    expect(ckfast("extract", fast, back).code == 0, "extract")
    same_dump(dump, back, "extract")


def big_extra_pages(work):
    """Pages at the end of a pages file that no pagemap names come back all the same."""
    out = os.path.join(work, "dumps")
    truth = gendump.make(4, out, {"tasks": 1, "levels": 1, "pages": 40, "shmem": 0, "huge": 0})
    pages = os.path.join(out, "0", "pages-1.img")
    os.chmod(pages, 0o600)
    with open(pages, "ab") as f:
        f.write(b"\7" * (3 * PAGE))
    fast, back = os.path.join(work, "fast"), os.path.join(work, "back")
    convert(os.path.join(out, "0"), fast, "auto", "4M", 2)
    check_truth(fast, out, truth)
    expect(ckfast("extract", fast, back).code == 0, "extract")
    same_dump(os.path.join(out, "0"), back, "extract")


def hostile_names(work):
    """Names that are none of a terminal's business: one line, no control bytes in it."""
    out = os.path.join(work, "dumps")
    gendump.base_dump(out)
    name = b"a\nckfast: all is well\x1b[2J\xff.img"
    shown = r"a\x0ackfast: all is well\x1b[2J\xff"
    for fifo, code, words in (
            (name[:-len(b".img")], 0, shown + " is a FIFO: left out"),
            (name, 4, shown.replace(r"\x0a", "?").replace(r"\x1b", "?") +
             ".img is not a regular file, but a FIFO; CRIU reads images")):
        os.mkfifo(os.path.join(os.fsencode(out), b"dump", fifo))
        done = ckfast("convert", os.path.join(out, "dump"), os.path.join(work, "fast"))
        want = said(os.path.join(out, "dump"), words)
        expect((done.code, done.err) == (code, want), "exit %d: %r" % (done.code, done.err))
        shutil.rmtree(os.path.join(work, "fast"), ignore_errors=True)
        os.unlink(os.path.join(os.fsencode(out), b"dump", fifo))
    with open(os.path.join(os.fsencode(out), b"dump", name), "wb") as f:
        f.write(b"kept")
    convert(os.path.join(out, "dump"), os.path.join(work, "fast"), "auto", "4M", 1)
    with open(os.path.join(os.fsencode(work), b"fast", name), "ab") as f:
        f.write(b"!")
    done = ckfast("verify", os.path.join(work, "fast"))
    expect(done.code == 3, "exit %d: %s" % (done.code, done.err))
    expect("\x1b" not in done.err and len(tool.lines(done.err)) == 1, "%r" % done.err)
    done = ckfast("inspect", os.path.join(out, "dump"))
    expect("\x1b" not in done.out + done.err, "inspect: %r" % (done.out + done.err))


def overwrite(work):
    """An existing FAST is kept without --force and replaced with it."""
    out, fast = os.path.join(work, "dumps"), os.path.join(work, "fast")
    truth = gendump.make(5, out, {"tasks": 1, "pages": 40, "levels": 1, "shmem": 0, "huge": 0,
                                  "amd": 0, "render": 0})
    dump = os.path.join(out, truth["dump"])
    convert(dump, fast, "raw", "4M", 1)
    before = tool.picture(fast)
    done = ckfast("convert", dump, fast, "--codec", "zstd")
    expect(done.code in (1, 2) and len(tool.lines(done.err)) == 1, "exit %d %r"
           % (done.code, done.err))
    expect(tool.difference(before, tool.picture(fast)) is None, "touched without --force")
    done = ckfast("convert", dump, fast, "--codec", "zstd", "--force")
    expect(done.code == 0, "--force: exit %d: %s" % (done.code, done.err))
    check_truth(fast, out, truth)
    expect(sorted(os.listdir(work)) == ["dumps", "fast"], "left: %s" % os.listdir(work))


def says(verb, code, subject, message, *args):
    done = ckfast(verb, *args)
    want = "ckfast %s: %s: %s\n" % (verb, subject, message)
    expect((done.code, done.err) == (code, want),
           "%s: exit %d: %r, want %r" % (" ".join(args), done.code, done.err, want))


def destinations(work):
    """What may not be replaced is the subject of the message, which says what may be."""
    out, fast, back, foreign, tar = (os.path.join(work, name) for name in
                                     ("dumps", "fast", "back", "foreign", "dump.tar"))
    truth = gendump.make(5, out, {"tasks": 1, "pages": 40, "levels": 1, "shmem": 0, "huge": 0,
                                  "amd": 0, "render": 0})
    dump = os.path.join(out, truth["dump"])
    for path in (fast, back, foreign):
        os.mkdir(path)
    with open(os.path.join(foreign, "precious"), "w") as f:
        f.write("precious")
    exists = "exists already: --force replaces it"
    no_force = "exists already, and --force would not replace it: it "
    no_fast = no_force + "is neither empty nor a fast image, as it holds no ckfast.idx"
    no_dump = no_force + "is neither empty nor a dump, as it holds no inventory.img"
    # An empty directory is as good as none.
    convert(dump, fast, "raw", "4M", 1)
    check_truth(fast, out, truth)
    says("convert", 1, fast, exists, dump, fast)
    says("convert", 1, fast + "//", exists, dump, fast + "//")
    says("convert", 1, foreign, no_fast, dump, foreign)
    says("convert", 1, foreign, no_fast, "--force", dump, foreign)
    done = ckfast("extract", fast, back)
    expect(done.code == 0, "extract: exit %d: %s" % (done.code, done.err))
    same_dump(dump, back, "extract")
    says("extract", 1, back, exists, fast, back)
    says("extract", 1, foreign, no_dump, "--force", fast, foreign)
    says("flatten", 1, foreign, no_fast, "--force", fast, foreign)
    os.mkdir(os.path.join(back, "more"))
    says("extract", 1, back, no_force + "holds more than a dump does", "--force", fast, back)
    os.rmdir(os.path.join(back, "more"))
    says("convert", 1, os.path.join(foreign, "precious"), "exists already and is not a directory",
         "--force", dump, os.path.join(foreign, "precious"))
    # An archive becomes an archive.
    with tarfile.open(tar, "w") as t:
        t.add(dump, "checkpoint")
    no_file = "names a directory, but the result is an archive: name a file"
    is_dir = "is a directory, but the result is an archive: name a file"
    says("convert", 1, os.path.join(work, "new/"), no_file, tar, os.path.join(work, "new/"))
    says("convert", 1, foreign, is_dir, "--force", tar, foreign)
    says("convert", 1, tar, exists, tar, tar)
    expect(ckfast("convert", tar, tar + ".fast").code == 0, "an archive")
    says("convert", 1, tar + ".fast", exists, tar, tar + ".fast")
    says("convert", 1, tar + ".fast", ALREADY, tar + ".fast", tar + ".again")
    says("extract", 1, tar, exists, tar + ".fast", tar)
    expect(sorted(os.listdir(work)) == ["back", "dump.tar", "dump.tar.fast", "dumps", "fast",
                                        "foreign"] and os.listdir(foreign) == ["precious"],
           "left: %s" % os.listdir(work))


def not_this_kind(work):
    """A dump is taken for an image, nothing for a dump, and what a failed dump has left."""
    out, left, fast = (os.path.join(work, name) for name in ("dumps", "left", "fast"))
    truth = gendump.make(5, out, {"tasks": 1, "pages": 40, "levels": 1, "shmem": 0, "huge": 0,
                                  "amd": 0, "render": 0})
    dump = os.path.join(out, truth["dump"])
    says("verify", 1, dump, NOT_FAST, dump)
    says("extract", 1, dump, NOT_FAST, dump, fast)
    says("flatten", 1, dump, NOT_FAST, dump, fast)
    os.mkdir(left)
    says("convert", 1, left, "not a CRIU dump: there is neither inventory.img nor a pagemap", left,
         fast)
    # An image of something else is none of CRIU's.
    with open(os.path.join(left, "debian.img"), "wb") as f:
        f.write(b"QFI\xfb" * 16)
    says("convert", 1, left, "not a CRIU dump: there is neither inventory.img nor a pagemap", left,
         fast)
    for name, magic in (("dump.log", b""), ("fdinfo-2.img", b"\x19\x43\x56\x54"),
                        ("stats-dump.img", b"\x40\x59\x10\x55")):
        with open(os.path.join(left, name), "wb") as f:
            f.write(magic)
        says("convert", 3, left, "incomplete dump: there is no inventory.img; if criu dump "
             "failed, its log says why, and the process has to be dumped again", left, fast)
        os.unlink(os.path.join(left, name))
    says("convert", 1, left + "-not", "cannot open: No such file or directory", left + "-not", fast)
    expect(not os.path.exists(fast), "left behind")


def damage_is_named(work):
    """An operator is told which file is damaged, and what to do."""
    out, fast = os.path.join(work, "dumps"), os.path.join(work, "fast")
    truth = gendump.make(5, out, {"tasks": 1, "pages": 40, "levels": 1, "shmem": 0, "huge": 0,
                                  "amd": 0, "render": 0})
    convert(os.path.join(out, truth["dump"]), fast, "raw", "4M", 1)
    for name, off, want in (
            (ckread.IDX, 170, r"ckfast\.idx is damaged: corrupt header at 0: R-checksum: "),
            (ckread.PACK, 4096, r"(pages-\d+\.img: )?corrupt chunks\[\d+\] at 4096: wrong "
                                r"checksum of the raw data at this offset of ckfast\.pack, ")):
        path = os.path.join(fast, name)
        before = gendump.contents(path)
        with open(path, "r+b") as f:
            f.seek(off)
            f.write(bytes([before[off] ^ 1]))
        for args in (("verify", fast), ("extract", fast, os.path.join(work, "back"))):
            done = ckfast(*args)
            whole = "ckfast %s: %s: %s.*; convert the dump again\n" % (
                args[0], re.escape(fast), want)
            expect(done.code == 3 and re.fullmatch(whole, done.err),
                   "exit %d: %r" % (done.code, done.err))
        gendump.rewrite(path, before)
    expect(ckfast("verify", fast).code == 0, "the test itself left damage")


def amd_not_asked(work):
    """Without --amd the memory of AMD GPUs stays as it is, good or bad."""
    for make in (gendump.amd_base, gendump.BAD["amd-gpu-twice"], gendump.render_base,
                 gendump.BAD["render-gpu-0"]):
        out, fast, back = (os.path.join(work, name) for name in ("dumps", "fast", "back"))
        make(out)
        dump = os.path.join(out, "dump")
        done = ckfast("convert", dump, fast)
        expect((done.code, done.err) == (0, ""), "exit %d: %s" % (done.code, done.err))
        image = ckread.opened(fast)
        expect(image is not None and all(t[6] == ckread.T_TASK for t in image.targets), "targets")
        image.close()
        for args in (("verify", fast), ("inspect", fast), ("extract", fast, back)):
            done = ckfast(*args)
            expect(done.code == 0, "%s: exit %d: %s" % (args[0], done.code, done.err))
        same_dump(dump, back, "extract")
        for path in (out, fast, back):
            shutil.rmtree(path)


def pack_all(out, block_pages, acceleration=1):
    for name in os.listdir(out):
        if name.isdigit():
            packimg.pack_dump(os.path.join(out, name), block_pages, acceleration)


def plain_and_packed(work, seed, options, block_pages, acceleration=1):
    """
    A dump whose pages CRIU has compressed: its image has the memory of the plain dump, in the same
    chunks, and gives the compressed dump back.
    """
    plain, out = os.path.join(work, "plain"), os.path.join(work, "dumps")
    truth = gendump.make(seed, plain, options)
    shutil.copytree(plain, out, symlinks=True)
    pack_all(out, block_pages, acceleration)
    dump = os.path.join(out, truth["dump"])
    before = tool.picture(out)
    fasts = [os.path.join(work, name) for name in ("fast", "fast-t4", "fast-plain")]
    convert(dump, fasts[0], "lz4", "4M", 1)
    convert(dump, fasts[1], "lz4", "4M", 4)
    convert(os.path.join(plain, truth["dump"]), fasts[2], "lz4", "4M", 2)
    same_bytes(fasts[0], fasts[1])
    check_truth(fasts[0], plain, truth)
    images = [ckread.opened(fast) for fast in fasts[::2]]
    filled = [[image.chunks[c][2::3] for c in sorted({op[1] for op in image.ops})]
              for image in images]
    expect(filled[0] == filled[1], "other chunks than those of plain pages")
    for image in images:
        image.close()
    images = [fasts[0]]
    done = ckfast("flatten", fasts[0], os.path.join(work, "flat"))
    expect(done.code == 0, "flatten: exit %d: %s" % (done.code, done.err.strip()))
    images.append(os.path.join(work, "flat"))
    convert(dump, os.path.join(work, "based"), "zstd", "8M", 2, [fasts[2]])
    images.append(os.path.join(work, "based"))
    for fast in images:
        back, mine = os.path.join(work, "back"), os.path.join(work, "mine")
        for args in (("verify", fast), ("extract", fast, back), ("inspect", fast)):
            done = ckfast(*args)
            expect(done.code == 0, "%s: exit %d: %s" % (args[0], done.code, done.err.strip()))
        same_dump(dump, back, "extract")
        image = ckread.opened(fast)
        image.extract(mine)
        image.close()
        same_dump(dump, mine, "ckread extract")
        shutil.rmtree(back)
        shutil.rmtree(mine)
    changed = tool.difference(before, tool.picture(out))
    expect(changed is None, "convert touched the dump: %s" % changed)


# seed, features, pages of a block, acceleration of LZ4
PACKED = {
    "page": (31, {"tasks": 3, "pages": 400, "content": "mix", "levels": 1, "meta": 1}, 1),
    "page-fast": (32, {"tasks": 2, "pages": 400, "content": "mix", "levels": 1}, 1, 50),
    "page-parents": (33, {"tasks": 3, "pages": 400, "levels": 3, "shmem": 3, "cow": 1}, 1),
    "region": (34, {"tasks": 3, "pages": 2000, "content": "mix", "levels": 1, "unknown": 1}, 64),
    "region-parents": (35, {"tasks": 3, "pages": 400, "levels": 3, "shmem": 2}, 64),
    "region-2": (36, {"tasks": 2, "pages": 400, "content": "text", "levels": 2}, 2),
    "region-1024": (37, {"tasks": 1, "pages": 4000, "content": "mix", "levels": 2, "huge": 1}, 1024),
    "fragmented": (38, {"tasks": 2, "pages": 2000, "fragmented": 1, "levels": 2}, 3),
    "zero": (39, {"tasks": 2, "pages": 400, "content": "zero", "levels": 1}, 64),
    "random": (40, {"tasks": 2, "pages": 400, "content": "random", "levels": 1}, 1),
    "hugetlb": (41, {"tasks": 2, "pages": 400, "hugetlb": 1, "guard": 1, "cow": 1}, 64),
    "devices": (42, {"tasks": 2, "pages": 40, "gpu": 2, "amd": 2, "levels": 1}, 1),
}


def packed(work, name):
    plain_and_packed(work, *PACKED[name])


def packed_over_plain(work):
    """A compressed dump whose parent is plain, and a plain one whose parent is compressed."""
    for packs in ("0", "1"):
        out, fast, back = (os.path.join(work, name + packs) for name in ("dumps", "fast", "back"))
        truth = gendump.make(43, out, {"tasks": 2, "pages": 400, "levels": 2, "shmem": 1})
        packimg.pack_dump(os.path.join(out, packs), 64)
        convert(os.path.join(out, "1"), fast, "auto", "4M", 2)
        check_truth(fast, out, truth)
        expect(ckfast("extract", fast, back).code == 0, "extract")
        same_dump(os.path.join(out, "1"), back, "extract")


def packed_in_place(work):
    """In its own place: a dump becomes an image, and a dump again; and a newer dump over it is one."""
    for block_pages in (1, 64):
        out = os.path.join(work, "dumps-%d" % block_pages)
        truth = gendump.make(44, out, {"tasks": 2, "pages": 400, "levels": 1, "unknown": 0,
                                       "amd": 0, "gpu": 0})
        packimg.pack_dump(os.path.join(out, "0"), block_pages)
        place, saved = os.path.join(out, "0"), os.path.join(out, "saved")
        shutil.copytree(place, saved, symlinks=True)
        done = ckfast("convert", "--in-place", "--json", place)
        expect(done.code == 0, "in place: exit %d: %s" % (done.code, done.err.strip()))
        told = json.loads(done.out)
        expect(told["zero_bytes"] + told["dup_bytes"] + told["base_bytes"] <= told["page_bytes"]
               and told["compressed_files"] and told["compressed_bytes"]
               == sum(os.path.getsize(os.path.join(saved, name)) for name in os.listdir(saved)
                      if name.startswith("pages-")), done.out)
        check_truth(place, out, truth)
        for args in (("--in-place", place), (place, place + "-twice")):
            done = ckfast("convert", *args)
            expect(done.code == 1 and done.err == said(place, ALREADY),
                   "twice: exit %d: %s" % (done.code, done.err.strip()))
        newer = os.path.join(out, "newer")
        shutil.copytree(place, newer, symlinks=True)
        shutil.copytree(saved, newer, symlinks=True, dirs_exist_ok=True)
        done = ckfast("convert", newer, newer + "-fast")
        expect(done.code == 0 and done.err == said(newer, STALE),
               "newer: exit %d: %s" % (done.code, done.err.strip()))
        check_truth(newer + "-fast", out, truth)
        done = ckfast("extract", "--in-place", place)
        expect(done.code == 0, "extract in place: exit %d: %s" % (done.code, done.err.strip()))
        same_dump(saved, place, "extract in place")


def packed_damaged(work):
    """The bytes of a compressed pages file are checked, although no restore reads them."""
    out, fast = os.path.join(work, "dumps"), os.path.join(work, "fast")
    dump, _, pages = gendump.packed_base(out)
    convert(dump, fast, "raw", "4M", 1)
    expect(not os.path.exists(os.path.join(fast, os.path.basename(pages))), "it is in the image")
    image = ckread.opened(fast)
    entry = image.files[image.names.index(os.path.basename(pages).encode())]
    expect((entry[0], entry[13]) == (os.path.getsize(pages), ckread.F_CUT), "another entry")
    last = image.chunks[image.refs[entry[8] + entry[9] - 1]]
    expect(last[0] == max(chunk[0] for chunk in image.chunks), "not behind what is restored")
    image.close()
    with open(os.path.join(fast, ckread.PACK), "r+b") as f:
        f.seek(last[0] + 50)
        f.write(b"damage")
    expect(ckread.check(fast), "ckread accepts it")
    for args in (("verify", fast), ("extract", fast, os.path.join(work, "back"))):
        done = ckfast(*args)
        expect(done.code == 3 and ckread.PACK in done.err,
               "%s: exit %d: %s" % (args[0], done.code, done.err))
    expect(not os.path.exists(os.path.join(work, "back")), "left behind")


def packed_stray(work):
    """Of an older dump: CRIU reads neither, and the file is longer than the pagemap says."""
    out, fast, back = (os.path.join(work, name) for name in ("dumps", "fast", "back"))
    dump, pagemap, pages = gendump.packed_base(out)
    messages = gendump.records(gendump.contents(pagemap))
    messages[0] = criuimg.encode([(1, 77)])
    gendump.rewrite(os.path.join(dump, "pagemap-4999.img"), criuimg.image("pagemap", messages))
    gendump.rewrite(os.path.join(dump, "pages-77.img"), gendump.contents(pages) + b"more")
    done = ckfast("convert", dump, fast)
    expect(done.code == 0 and "pagemap-4999.img" in done.err,
           "exit %d: %s" % (done.code, done.err.strip()))
    expect(ckfast("verify", fast).code == 0, "verify")
    expect(ckfast("extract", fast, back).code == 0, "extract")
    os.unlink(os.path.join(dump, "pagemap-4999.img"))
    same_dump(dump, back, "extract")


def run(cases, seeds, full=True):
    for seed in seeds:
        matrix = MATRIX if full else MATRIX[seed % len(MATRIX):][:2] or MATRIX[:2]
        cases.case("roundtrip seed %d" % seed, good, seed, None, matrix)
    for i, (name, options) in enumerate(CORNERS.items()):
        cases.case("roundtrip " + name, good, 100 + i, options, MATRIX if full else MATRIX[:1])
    for name in PACKED:
        cases.case("packed " + name, packed, name)
    for function in (empty_pages, big_extra_pages, hostile_names, overwrite, destinations,
                     not_this_kind, damage_is_named, amd_not_asked,
                     packed_over_plain, packed_in_place, packed_damaged, packed_stray):
        cases.case("roundtrip " + function.__name__.replace("_", "-"), function)
    for name in gendump.ODD:
        cases.case("odd dump " + name, odd, name)
    for name in gendump.BAD:
        cases.case("bad dump " + name, bad, name)


def main(argv):
    cases = tool.Cases()
    run(cases, [int(a) for a in argv[1:]] or range(1, 11))
    return cases.end()


if __name__ == "__main__":
    sys.exit(main(sys.argv))

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
import shutil
import sys

sys.dont_write_bytecode = True

import ckread
import gendump
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


def run(cases, seeds, full=True):
    for seed in seeds:
        matrix = MATRIX if full else MATRIX[seed % len(MATRIX):][:2] or MATRIX[:2]
        cases.case("roundtrip seed %d" % seed, good, seed, None, matrix)
    for i, (name, options) in enumerate(CORNERS.items()):
        cases.case("roundtrip " + name, good, 100 + i, options, MATRIX if full else MATRIX[:1])
    for function in (empty_pages, big_extra_pages, hostile_names, overwrite, amd_not_asked):
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

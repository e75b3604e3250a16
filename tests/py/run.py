#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""
All tests that rest on the independent reader. Fixed seeds; --long tries more of everything.
CKFAST names the program under test (default build/bin/ckfast); only the group `reader` does
without. One line for each case, the last one counts them; the exit code is 1 if a case failed.

    run.py [--long] [reader | broken | flips | roundtrip]...
"""
import os
import re
import sys

sys.dont_write_bytecode = True

import ckread
import ckwrite
import example
import gendump
import mutate
import roundtrip
import tool
from tool import Skipped, ckfast, expect


# ---- the reader by itself ---------------------------------------------------------------------

def reader_accepts(work, model):
    out = os.path.join(work, "fast")
    model.save(out)
    violations = ckread.check(out)
    expect(not violations, "; ".join(map(ckread.message, violations[:3])))


def reader_accepts_golden(_, name):
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "golden", name)
    violations = ckread.check(path)
    expect(not violations, "; ".join(map(ckread.message, violations[:3])))


def example_is_in_spec(_):
    wrong = example.difference()
    expect(wrong is None, wrong)


def rules_are_in_index(_):
    """The last section of SPEC.md names each rule of the page, and no other."""
    with open(example.SPEC, encoding="utf-8") as f:
        text, index = f.read().rsplit("\n## ", 1)
    used = set(re.findall(r"\bR-[a-z]+", text)) | {m.rule for m in mutate.MUTATORS.values() if m.rule}
    listed = set(re.findall(r"^\| (R-[a-z]+) \|", index, re.M))
    expect(used == listed, "in one of page and index only: " + " ".join(sorted(used ^ listed)))


def reader_refuses(work, fast, name):
    """The reader holds each rule: the mutator's class, section and rule, exactly."""
    m = mutate.MUTATORS[name]
    out = os.path.join(work, "out")
    try:
        mutate.make(name, fast, out)
    except mutate.Skip:
        raise Skipped("the image has not got it") from None
    violations = ckread.check(out)
    if m.cls in (mutate.ACCEPT, mutate.RESTORE):
        expect(not violations, "; ".join(map(ckread.message, violations[:3])))
        return
    expect(violations, "ckread finds nothing")
    cls, section, _, _, rule, _ = violations[0]
    sections = m.section if isinstance(m.section, tuple) else (m.section or section,)
    expect((cls, rule) == (m.cls, m.rule) and section in sections,
           "ckread: " + ckread.message(violations[0]))


# ---- both readers ------------------------------------------------------------------------------

def both_accept(work, model):
    out = os.path.join(work, "fast")
    model.save(out)
    expect(not ckread.check(out), "ckread refuses it")
    done = ckfast("verify", out)
    expect(done.code == 0, "verify: exit %d: %s" % (done.code, done.err.strip()))
    mine, theirs = os.path.join(work, "mine"), os.path.join(work, "theirs")
    image = ckread.opened(out)
    image.extract(mine)
    image.close()
    done = ckfast("extract", out, theirs)
    expect(done.code == 0, "extract: exit %d: %s" % (done.code, done.err.strip()))
    roundtrip.same_dump(mine, theirs, "extract")


# What a message may name instead of the place in the index: the file that is wrong.
FILES = {"header": re.compile(r"ckfast\.idx"), "pack": re.compile(r"ckfast\.pack"),
         "files": re.compile(r".*"),
         "targets": re.compile(r"(pagemap|ckfast-gpu)-.*\.img|gpu-(header|devices|allocs)")}


def agree(out, violations, done, sections=()):
    """
    ckfast's answer to an image against the independent reader's. sections: others than the
    reader's that are as good.
    """
    expect(done.peak_kib < tool.PEAK_KIB, "took %d KiB" % done.peak_kib)
    if not violations:
        expect(done.code == 0, "ckread accepts it, verify: exit %d: %s"
               % (done.code, done.err.strip()))
        return ""
    cls, section = violations[0][:2]
    both = "%s; verify: exit %d: %s" % (ckread.message(violations[0]), done.code,
                                        done.err.strip().replace(out, "FAST"))
    expect(done.code in (3, 4), both)
    said = tool.shape(done.err)
    expect(said is not None, "not of the agreed form: " + both)
    expect(ckread.EXIT[said[0]] == done.code and said[0] == cls, both)
    expect(said[1] == section or said[1] in sections
           or section in FILES and FILES[section].fullmatch(said[1])
           and said[1] not in ckread.STRUCTS, both)
    return done.err.strip().splitlines()[0].replace(out, "FAST")


def both_refuse(work, fast, name):
    out = os.path.join(work, "out")
    try:
        mutate.make(name, fast, out)
    except mutate.Skip:
        raise Skipped("the image has not got it") from None
    done = ckfast("verify", out)
    if mutate.MUTATORS[name].cls == mutate.RESTORE:
        expect(done.code in (0, 3), "verify: exit %d: %s" % (done.code, done.err.strip()))
        return done.err.strip()
    sections = mutate.MUTATORS[name].section
    return agree(out, ckread.check(out), done, sections if isinstance(sections, tuple) else ())


def extract_refuses(work, fast, name):
    """No file outside of the target, none left of a broken image."""
    out, place = os.path.join(work, "out"), os.path.join(work, "place")
    mutate.make(name, fast, out)
    os.mkdir(place)
    before = tool.picture(work, times=False)
    done = ckfast("extract", out, os.path.join(place, "dump"))
    expect(done.code in (3, 4), "exit %d: %s" % (done.code, done.err.strip()))
    changed = tool.difference(before, tool.picture(work, times=False))
    expect(changed is None, "left behind: %s" % changed)


def unread_copied(work, fast, name):
    """A file that CRIU does not read may have changed: both readers give back what is there."""
    out, mine, theirs = (os.path.join(work, name) for name in ("out", "mine", "theirs"))
    flat, third = os.path.join(work, "flat"), os.path.join(work, "third")
    mutate.make(name, fast, out)
    image = ckread.opened(out)
    image.extract(mine)
    image.close()
    said = ""
    for args in (("verify", out), ("extract", out, theirs), ("flatten", out, flat),
                 ("verify", flat), ("extract", flat, third)):
        done = ckfast(*args)
        expect(done.code == 0 and "CRIU does not read" in done.err,
               "%s: exit %d: %s" % (args[0], done.code, done.err.strip()))
        said = said or done.err.strip().replace(out, "FAST")
    roundtrip.same_dump(mine, theirs, "extract")
    roundtrip.same_dump(mine, third, "flatten")
    return said


# ---- truncations and flips -----------------------------------------------------------------------

def refused(out, what):
    """A broken image of any kind: both refuse it; the class is of no interest here."""
    expect(ckread.check(out), "ckread accepts %s" % what)
    done = ckfast("verify", out)
    expect(done.code in (3, 4), "%s: verify: exit %d: %s" % (what, done.code, done.err.strip()))
    expect(tool.shape(done.err), "%s: no message of the agreed form: %r" % (what, done.err))


def truncations(work, fast, name, step):
    model = ckwrite.Model.load(fast)
    out = os.path.join(work, "out")
    model.save(out)
    path = os.path.join(out, name)
    with open(path, "rb") as f:
        whole = f.read()
    borders = set(range(0, len(whole), step)) | set(range(0, min(len(whole), 200), 8))
    borders |= {len(whole) - 1, 4095, 4096, 4097, 127, 128, 129}
    for size in sorted(b for b in borders if b < len(whole)):
        with open(path, "wb") as f:
            f.write(whole[:size])
        refused(out, "%s of %d bytes" % (name, size))
    return "%d lengths" % len(borders)


def flips(work, model, name, step):
    """One bit of a byte of a file the other way round, for every step-th byte."""
    out = os.path.join(work, "out")
    model.save(out)
    path = os.path.join(out, name)
    with open(path, "rb") as f:
        whole = bytearray(f.read())
    with open(path, "r+b") as f:
        for off in range(0, len(whole), step):
            bit = 1 << off % 8
            f.seek(off)
            f.write(bytes([whole[off] ^ bit]))
            f.flush()
            refused(out, "bit %d of byte %d of %s" % (off % 8, off, name))
            f.seek(off)
            f.write(bytes([whole[off]]))
            f.flush()
    return "%d flips" % len(range(0, len(whole), step))


def tiny():
    """A small image in which every table has an entry."""
    b = ckwrite.Builder(max_chunk_pages=512)
    zero = b.zero(1)
    packed = b.chunk(ckread.LZ4, b"\x41" * (512 * 4096), ckwrite.lz4_run(0x41, 512 * 4096))
    raw = b.chunk(ckread.RAW, ckwrite.pattern(1, 1))
    b.target(1, 5, [(1 << 21, packed, 0, 512, 0), (2 << 21, zero, 0, 1, 2)])
    b.target(1, 6, [(1 << 21, packed, 0, 512, 1), (2 << 21, raw, 0, 1, 0)], parent=(1, 5))
    b.huge = [(1 << 21, 1, (1, 5))]
    b.file(b"pages-1.img", handles=[packed, zero])
    b.file(b"mm-5.img", ckwrite.mm_file([(1 << 21, 3 << 21)]))
    b.file(b"mm-6.img", ckwrite.mm_file([(1 << 21, 3 << 21)]))
    b.file(b"pstree.img", ckwrite.pstree_file([(5, 0), (6, 5)]))
    b.file(b"parent", link=b"../0")
    return b.finish()


# ---- bases --------------------------------------------------------------------------------------

def save_based(work):
    bases, model = ckwrite.based()
    fast = os.path.join(work, "fast")
    model.save(fast)
    for path, base in bases:
        base.save(os.path.normpath(os.path.join(os.fsencode(fast), path)).decode())
    return fast


def based_accepted(work):
    fast = save_based(work)
    expect(not ckread.check(fast), "ckread refuses it")
    done = ckfast("verify", fast)
    expect(done.code == 0, "verify: exit %d: %s" % (done.code, done.err.strip()))
    mine, theirs = os.path.join(work, "mine"), os.path.join(work, "theirs")
    flat, third = os.path.join(work, "flat"), os.path.join(work, "third")
    image = ckread.opened(fast)
    image.extract(mine)
    image.close()
    for args in (("extract", fast, theirs), ("flatten", fast, flat), ("verify", flat)):
        done = ckfast(*args)
        expect(done.code == 0, "%s: exit %d: %s" % (args[0], done.code, done.err.strip()))
    roundtrip.same_dump(mine, theirs, "extract")
    image = ckread.opened(flat)
    expect(image is not None and not image.bases, "ckread refuses what flatten made")
    image.extract(third)
    image.close()
    roundtrip.same_dump(mine, third, "flatten")


def based_refuses(work, name):
    """Each rule about bases, on an image that has some; both readers agree."""
    out = os.path.join(work, "out")
    try:
        mutate.make(name, save_based(work), out)
    except mutate.Skip:
        raise Skipped("the image has not got it") from None
    m = mutate.MUTATORS[name]
    violations = ckread.check(out)
    expect(violations, "ckread finds nothing")
    cls, section, _, _, rule, _ = violations[0]
    expect((cls, rule, section) == (m.cls, m.rule, m.section),
           "ckread: " + ckread.message(violations[0]))
    return agree(out, violations, ckfast("verify", out))


def base_missing(work, how):
    """A base that is not there, or is not what was meant: neither corrupt nor unsupported."""
    fast, one, two = save_based(work), os.path.join(work, "one"), os.path.join(work, "two")
    named = os.path.join(work, "elsewhere")
    os.rename(one, named)
    if how == "link":
        os.symlink("elsewhere", one)
    elif how == "other":
        ckwrite.random_image(3).save(one)
    elif how == "swapped":
        os.rename(two, one)
    elif how == "fifo":
        os.mkdir(one)
        os.mkfifo(os.path.join(one, ckread.PACK))
    try:
        ckread.check(fast)
        raise tool.Failure("ckread finds nothing")
    except ckread.NoBase:
        pass
    ident = ckwrite.golden().image_id().hex()
    for args in (("verify", fast), ("extract", fast, os.path.join(work, "dump")),
                 ("flatten", fast, os.path.join(work, "flat"))):
        done = ckfast(*args)
        expect(done.code == (3 if how == "fifo" else 1), "%s: exit %d: %s"
               % (args[0], done.code, done.err.strip()))
        expect(len(tool.lines(done.err)) == 1 and "base 1" in done.err and ident in done.err
               and "../one" in done.err, done.err)
        if how != "swapped":
            done = ckfast(args[0], "--base", named, *args[1:])
            expect(done.code == 0, "%s --base: exit %d: %s" % (args[0], done.code,
                                                               done.err.strip()))
    done = ckfast("inspect", fast)
    expect(done.code == 0 and "missing" in done.out, "inspect: exit %d: %s" % (done.code, done.out))
    return ckfast("verify", fast).err.strip()


def run_based(cases):
    cases.case("based", based_accepted)
    for how in ("gone", "link", "other", "swapped", "fifo"):
        cases.case("base " + how, base_missing, how)
    for name in BASED:
        cases.case("based " + name, based_refuses, name)


# ---- all --------------------------------------------------------------------------------------

# What needs an image with bases to break.
UNBASED = [name for name in mutate.MUTATORS if not name.startswith("base-")]
BASED = [name for name in mutate.MUTATORS if name.startswith("base-")]


MADE_FOR = {"gpu": ckwrite.with_device, "packed": ckwrite.packed, "amd": ckwrite.with_amd,
            "render": ckwrite.with_render, "cut": ckwrite.with_cut}


def image_for(cases, fast, name):
    """The image that a mutator is tried with: others for device memory and for packed chunks."""
    kind = name.split("-")[0]
    if kind not in MADE_FOR:
        return fast
    path = os.path.join(cases.tmp, kind)
    if not os.path.exists(path):
        MADE_FOR[kind]().save(path)
    return path


def run_reader(cases, fast):
    cases.case("reader golden", reader_accepts, ckwrite.golden())
    for name in ("v1.0", "v1.1/fast", "v1.1/base", "v1.2/fast", "v1.2/base", "v1.3", "v1.4",
                 "v1.5", "v1.6", "v1.7"):
        cases.case("reader of " + name, reader_accepts_golden, name)
    cases.case("example in SPEC.md", example_is_in_spec)
    cases.case("index of SPEC.md", rules_are_in_index)
    cases.case("reader example", reader_accepts, example.model())
    cases.case("reader device", reader_accepts, ckwrite.with_device())
    cases.case("reader packed", reader_accepts, ckwrite.packed())
    cases.case("reader amd", reader_accepts, ckwrite.with_amd())
    cases.case("reader render", reader_accepts, ckwrite.with_render())
    cases.case("reader cut", reader_accepts, ckwrite.with_cut())
    for seed in range(20):
        cases.case("reader random %d" % seed, reader_accepts, ckwrite.random_image(seed))
    for name in UNBASED:
        cases.case("reader " + name, reader_refuses, image_for(cases, fast, name), name)


def run_broken(cases, fast, long):
    cases.case("both golden", both_accept, ckwrite.golden())
    cases.case("both example", both_accept, example.model())
    cases.case("both device", both_accept, ckwrite.with_device())
    cases.case("both packed", both_accept, ckwrite.packed())
    cases.case("both amd", both_accept, ckwrite.with_amd())
    cases.case("both render", both_accept, ckwrite.with_render())
    cases.case("both cut", both_accept, ckwrite.with_cut())
    for seed in range(60 if long else 12):
        cases.case("both random %d" % seed, both_accept, ckwrite.random_image(seed))
    for name in UNBASED:
        cases.case("both " + name, both_refuse, image_for(cases, fast, name), name)
    for name in ("file-name-climb", "file-name-slash", "file-name-dotdot", "file-fifo",
                 "file-symlink", "data-chunk-checksum", "file-regular-checksum", "pack-of-another"):
        cases.case("extract " + name, extract_refuses, fast, name)
    for name in mutate.MUTATORS:
        if name.startswith("unread-"):
            cases.case("unread " + name, unread_copied, fast, name)
    run_based(cases)
    run_converted(cases, long)


def run_converted(cases, long):
    """The mutators once more, on an image that ckfast itself made."""
    out = os.path.join(cases.tmp, "dumps")
    truth = gendump.make(6, out, {"tasks": 3, "pages": 300, "levels": 1, "shmem": 2, "cow": 1,
                                   "huge": 1, "content": "mix", "unknown": 1, "meta": 0,
                                   "hugetlb": 1, "guard": 1, "gpu": 0, "amd": 0,
                                   "render": 0})
    fast = os.path.join(cases.tmp, "converted")
    done = ckfast("convert", os.path.join(out, truth["dump"]), fast)
    if done.code:
        print("convert: exit %d: %s" % (done.code, done.err.strip()))
        cases.failed += 1
        return
    for name in UNBASED if long else UNBASED[::6]:
        cases.case("converted " + name, both_refuse, fast, name)


def run_flips(cases, fast, long):
    cases.case("truncate idx", truncations, fast, ckread.IDX, 16 if long else 101)
    cases.case("truncate pack", truncations, fast, ckread.PACK, 509 if long else 4001)
    cases.case("flip idx", flips, tiny(), ckread.IDX, 1 if long else 3)
    cases.case("flip pack", flips, tiny(), ckread.PACK, 7 if long else 97)


def main(argv):
    args = set(argv[1:])
    long = "--long" in args
    groups = args - {"--long"} or {"reader", "broken", "flips", "roundtrip"}
    if groups - {"reader", "broken", "flips", "roundtrip"}:
        print(__doc__, file=sys.stderr)
        return 2
    if groups - {"reader"} and not os.access(tool.CKFAST, os.X_OK):
        print("%s cannot be run: CKFAST says which program to test" % tool.CKFAST,
              file=sys.stderr)
        return 1
    cases = tool.Cases()
    fast = os.path.join(cases.tmp, "golden")
    ckwrite.golden().save(fast)
    if "reader" in groups:
        run_reader(cases, fast)
    if "broken" in groups:
        run_broken(cases, fast, long)
    if "flips" in groups:
        run_flips(cases, fast, long)
    if "roundtrip" in groups:
        roundtrip.run(cases, range(1, 41 if long else 3), full=long)
    return cases.end()


if __name__ == "__main__":
    sys.exit(main(sys.argv))

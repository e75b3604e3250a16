# SPDX-License-Identifier: MIT
"""
What the tests share: running ckfast, reading its one-line messages, pictures of directories,
and the count of passed, failed and skipped cases.
"""
import collections
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import threading
import time

import xxhash

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
CKFAST = os.environ.get("CKFAST", os.path.join(ROOT, "build", "bin", "ckfast"))
TIMEOUT_S = 120
# More than this is not to be had for refusing a small image or dump, sanitizers included.
PEAK_KIB = 300 << 10

# corrupt <section>[<i>] at <offset>: …; a file of the directory may stand for the section.
SHAPE = re.compile(r"(?:^|: )(corrupt|unsupported) (\S.*?)(?:\[(\d+)\])? at \d+: ", re.M)

Result = collections.namedtuple("Result", "code out err wall_s peak_kib")


def ckfast(*args):
    """Runs ckfast without a terminal. A code below 0 is the signal that ended it."""
    start = time.monotonic()
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        child = subprocess.Popen([CKFAST, *args], stdin=subprocess.DEVNULL, stdout=out, stderr=err)
        clock = threading.Timer(TIMEOUT_S, child.kill)
        clock.start()
        _, status, usage = os.wait4(child.pid, 0)
        clock.cancel()
        child.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        err.seek(0)
        result = Result(child.returncode, out.read().decode(errors="replace"),
                        err.read().decode(errors="replace"), time.monotonic() - start,
                        usage.ru_maxrss)
    expect("runtime error:" not in result.err and "Sanitizer" not in result.err, result.err)
    return result


def lines(text):
    return [line for line in text.splitlines() if line.strip()]


def shape(text):
    """(class, section) of the first message of the form above, or None."""
    found = SHAPE.search(text)
    return (found[1], found[2]) if found else None


def picture(path, times=True):
    """What a directory holds, link targets and metadata included: {name: facts}."""
    facts = {}
    for base, dirs, names in os.walk(os.fsencode(path)):
        for name in names + dirs:
            full = os.path.join(base, name)
            st = os.lstat(full)
            what = None
            if stat.S_ISLNK(st.st_mode):
                what = os.readlink(full)
            elif stat.S_ISREG(st.st_mode):
                digest = xxhash.xxh3_128()
                with open(full, "rb") as f:
                    while data := f.read(1 << 20):
                        digest.update(data)
                what = digest.hexdigest()
            facts[os.path.relpath(full, os.fsencode(path))] = (
                stat.S_IFMT(st.st_mode), stat.S_IMODE(st.st_mode), st.st_uid, st.st_gid,
                st.st_mtime_ns if times else 0, what)
    return facts


def difference(a, b):
    """The first difference of two pictures as text, or None."""
    for name in sorted(set(a) | set(b)):
        if a.get(name) != b.get(name):
            return "%r: %s / %s" % (name, a.get(name), b.get(name))
    return None


class Failure(Exception):
    pass


def expect(truth, text):
    if not truth:
        raise Failure(text)


class Cases:
    """Counts cases and prints a line for each."""

    def __init__(self):
        self.passed = self.failed = self.skipped = 0
        self.tmp = tempfile.mkdtemp(prefix="ckfast-py-")

    def case(self, name, function, *args):
        work = tempfile.mkdtemp(dir=self.tmp)
        start = time.monotonic()
        note = ""
        try:
            note = function(work, *args) or ""
            word = "ok"
            self.passed += 1
        except Skipped as e:
            word, note = "skip", str(e)
            self.skipped += 1
        except Failure as e:
            word, note = "FAIL", str(e)
            self.failed += 1
        finally:
            shutil.rmtree(work, ignore_errors=True)
        print("%-4s %s (%.2f s)%s" % (word, name, time.monotonic() - start,
                                      ": " + note if note else ""), flush=True)

    def end(self):
        """The last line; returns the exit code."""
        shutil.rmtree(self.tmp, ignore_errors=True)
        print("%d passed, %d failed, %d skipped" % (self.passed, self.failed, self.skipped))
        sys.stdout.flush()
        return 1 if self.failed else 0


class Skipped(Exception):
    pass

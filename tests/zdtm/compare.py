#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""
Reads the reports (*.tap) of runs of the ZDTM suite.

    compare.py STOCK OURS [TEST…]  exit code 1 if one of these tests, or of those in the reports,
                                   does not pass in the second directory, and the first one does
                                   not say that it fails with stock, too; or if none passes, with
                                   stock where no tests are named
    compare.py --undumped DIR      the tests that failed before there was anything to restore
    compare.py --open DIR TEST…    those of these tests that did not pass

Some tests change so fast that a dump fails now and then. Dumps are always made by the stock criu, so
this says nothing about restoring: such a test may be run again, and then that run counts. Any other
failure stands, whatever comes after it.
"""
import glob
import os
import re
import sys

LINE = re.compile(r"(ok|not ok) \d+ - (\S+)(?: # (SKIP .*)?)?")


def parse(report):
    """(test, pass | fail | undumped | skip) of one report; what a failed test said follows it."""
    test = None
    for line in report:
        found = LINE.match(line)
        if found:
            if test:
                yield test, "fail"
            test = found[2] if found[1] == "not ok" else None
            if not test:
                yield found[2], "skip" if found[3] else "pass"
        elif test and "FAIL at CRIU dump" in line:
            yield test, "undumped"
            test = None
    if test:
        yield test, "fail"


def read(directory):
    """{test: result}, of all reports together, the oldest first."""
    results = {}
    for path in sorted(glob.glob(os.path.join(directory, "*.tap")), key=os.path.getmtime):
        with open(path, encoding="utf-8", errors="replace") as report:
            for test, result in parse(report):
                if results.get(test) != "fail":
                    results[test] = result
    return results


def summary(name, results):
    words = ("pass", "fail", "undumped", "skip")
    counts = ", ".join("%s %d" % (w, list(results.values()).count(w)) for w in words)
    print("%-6s %d tests: %s" % (name, len(results), counts))


def compare(stock, ours, names):
    summary("stock", stock)
    summary("fast", ours)
    for test in sorted(stock):
        if stock[test] in ("fail", "undumped"):
            print("%s with stock, too: %s (fast: %s)"
                  % (stock[test], test, ours.get(test, "not run")))
    lost = [t for t in sorted({*stock, *ours, *names})
            if ours.get(t) != "pass" and stock.get(t) not in ("fail", "undumped", "skip")]
    for test in lost:
        print("LOST: %s (fast: %s, stock: %s)"
              % (test, ours.get(test, "not run"), stock.get(test, "not run")))
    # Of tests that are named, only those that failed with fast images have run with stock.
    none = "pass" not in (ours if names else stock).values()
    if none:
        print("LOST: no test passes%s" % ("" if names else " with stock"))
    return 1 if lost or none else 0


def main(args):
    if len(args) < 2 or (len(args) > 2 and args[0] == "--undumped"):
        sys.exit(__doc__)
    if args[0] == "--open":
        results = read(args[1])
        print("\n".join(t for t in args[2:] if results.get(t) != "pass"))
        return 0
    if args[0] == "--undumped":
        print("\n".join(t for t, result in sorted(read(args[1]).items()) if result == "undumped"))
        return 0
    return compare(read(args[0]), read(args[1]), args[2:])


sys.exit(main(sys.argv[1:]))

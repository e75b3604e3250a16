#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""coverage.py OBJECTS REPORT: what gcov knows of the objects below OBJECTS, as a table of folders and
files and the lines that were not reached, in runs. Prints the folders."""

import collections
import json
import os
import subprocess
import sys

ROOMS = ("base", "format", "loader", "convert", "gpu", "cli")


def gcov(path):
    got = subprocess.run(["gcov", "--json-format", "--stdout", path], capture_output=True, check=True)
    return json.loads(got.stdout)["files"]


def lines_of(objects):
    """{file: {line: times}}"""
    lines = collections.defaultdict(collections.Counter)
    for folder, _, names in os.walk(objects):
        for name in names:
            if name.endswith(".gcda"):
                for f in gcov(os.path.join(folder, name)):
                    if f["file"].split("/")[0] in ROOMS:
                        for line in f["lines"]:
                            lines[f["file"]][line["line_number"]] += line["count"]
    return lines


def runs(numbers):
    """[3, 4, 5, 9] as 3-5 9."""
    found = []
    for n in numbers:
        if found and found[-1][1] == n - 1:
            found[-1][1] = n
        else:
            found.append([n, n])
    return " ".join(str(a) if a == b else "%d-%d" % (a, b) for a, b in found)


def row(name, counts):
    reached = sum(1 for n in counts if n)
    return "%-34s %6d lines %6.1f %%" % (name, len(counts), 100 * reached / max(len(counts), 1))


def main(objects, report):
    lines = lines_of(objects)
    rooms = collections.defaultdict(list)
    for name, found in lines.items():
        rooms[os.path.dirname(name)] += found.values()
    sums = [row(room + "/", rooms[room]) for room in sorted(rooms)]
    with open(report, "w", encoding="utf-8") as out:
        print(*sums, "", sep="\n", file=out)
        for name in sorted(lines):
            print(row(name, lines[name].values()), file=out)
            missed = runs(sorted(n for n, times in lines[name].items() if not times))
            if missed:
                print("    not reached: " + missed, file=out)
    print(*sums, report, sep="\n")


if __name__ == "__main__":
    main(*sys.argv[1:])

# SPDX-License-Identifier: MIT
"""demo-table.py DIR CRIU: prints the table of the demo from what it has left in DIR."""

import json
import os
import re
import sys


def seconds(directory, name):
    with open(os.path.join(directory, name + ".ns"), encoding="ascii") as f:
        return int(f.read()) / 1e9


def tree_bytes(path):
    return sum(e.stat(follow_symlinks=False).st_size for e in os.scandir(path))


def stage_times(log):
    """When CRIU reached some stages, in seconds from its start, by its own log."""
    marks = {}
    with open(log, encoding="utf-8", errors="replace") as f:
        for line in f:
            stamp = re.match(r"\((\d+\.\d+)\)", line)
            if not stamp:
                continue
            for text in ("Forking task with", "Restore finished successfully"):
                if text in line:
                    marks.setdefault(text, float(stamp.group(1)))
    return marks.get("Forking task with"), marks.get("Restore finished successfully")


def main():
    directory, criu = sys.argv[1:]
    with open(os.path.join(directory, "stats.json"), encoding="ascii") as f:
        stats = json.load(f)
    stock, fast = seconds(directory, "stock"), seconds(directory, "fast")
    fill = stats["fill_wall_ms"] / 1e3
    rows = []

    def row(name, *cells):
        rows.append((name, *cells))

    def both(name, a, b):
        row(name, f"{a:.3f} s", f"{b:.3f} s", f"{a / b:.1f}x" if b else "")

    gib = 1 << 30
    dump_bytes = tree_bytes(os.path.join(directory, "dump"))
    fast_bytes = tree_bytes(os.path.join(directory, "fast"))
    row("", "stock", "fast", "ratio")
    row("dump, once", f"{seconds(directory, 'dump'):.3f} s", "the same", "")
    row("convert, once", "-", f"{seconds(directory, 'convert'):.3f} s", "")
    row("image on disk", f"{dump_bytes / gib:.3f} GiB", f"{fast_bytes / gib:.3f} GiB",
        f"{dump_bytes / fast_bytes:.2f}x")
    both("restore, wall time", stock, fast)
    logs = [stage_times(os.path.join(directory, name))
            for name in ("restore-stock.log", "restore.log")]
    if all(mark is not None for log in logs for mark in log):
        both("  until the first fork", logs[0][0], logs[1][0])
        both("  from there to the end", logs[0][1] - logs[0][0], logs[1][1] - logs[1][0])
    row("    of it: filling memory", "", f"{fill:.3f} s", "")
    row("    filled", "", f"{stats['filled_bytes'] / gib:.3f} GiB", "")
    row("    read", "", f"{stats['read_bytes'] / gib:.3f} GiB", "")
    row("    workers", "", f"{stats['workers']}", "")
    row("    huge pages", "", f"{stats['huge_pages']}", "")
    how = ", ".join(name for name, key in (("io_uring", "io_uring"), ("O_DIRECT", "direct"))
                    if stats[key])
    row("    by", "preadv", how or "pread", "")
    row("checksum of its memory", "as before", "as before", "")

    widths = [max(len(r[i]) for r in rows) for i in range(4)]
    print(f"\n{criu}; page cache warm, free memory touched before each restore")
    for i, cells in enumerate(rows):
        first, *rest = (c.rjust(w) if k else c.ljust(w)
                        for k, (c, w) in enumerate(zip(cells, widths)))
        print("  ".join([first, *rest]).rstrip())
        if i == 0:
            print("  ".join("-" * w for w in widths))


main()

# SPDX-License-Identifier: MIT
"""amd_table.py DIR JSON GPUS BYTES_PER_S LATENCY_US: what amd.sh has measured, as JSON and as a table.
DIR has the times and logs of the restores, and the dump."""

import glob
import json
import os
import re
import statistics
import sys

LINE = re.compile(rb"^\((\d+\.\d+)\).*Thread\[0x[0-9a-f]+\] (started|done)", re.M)
FILL = re.compile(rb"amd: GPU [0-9a-f]+: .* (\d+) us$", re.M)


def copying(log):
    """Seconds that the slowest GPU took, by the log of the plugin or of ckfast."""
    with open(log, "rb") as f:
        text = f.read()
    fills = [int(us) / 1e6 for us in FILL.findall(text)]
    if fills:
        return max(fills)
    at = {b"started": [], b"done": []}
    for stamp, what in LINE.findall(text):
        at[what].append(float(stamp))
    return max(at[b"done"]) - min(at[b"started"])


def main():
    root, out, gpus, speed, latency = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:6])
    gpu_bytes = sum(os.path.getsize(p) - 8 for p in glob.glob(f"{root}/dump/amdgpu-pages-*.img"))
    ways = {}
    with open(f"{root}/times") as f:
        for line in f:
            way, rep, ns = line.split()
            ways.setdefault(way, []).append((int(ns) / 1e9, copying(f"{root}/{way}.{rep}.log")))
    result = {"version": 1, "gpus": gpus, "gpu_bytes": gpu_bytes, "link_bytes_per_s": speed,
              "latency_us": latency, "cpus": len(os.sched_getaffinity(0)), "ways": {}}
    print(f"{gpus} GPUs, {gpu_bytes >> 20} MiB on all, {speed / 1e9:.2f} GB/s each, {latency} us a packet")
    print(f"{'way':8} {'restore s':>10} {'copies s':>10} {'link':>6}")
    for way, pairs in ways.items():
        wall = statistics.median(p[0] for p in pairs)
        copies = statistics.median(p[1] for p in pairs)
        link = gpu_bytes / gpus / copies / speed
        result["ways"][way] = {"restore_s": round(wall, 3), "copy_s": round(copies, 3),
                               "link": round(link, 3)}
        print(f"{way:8} {wall:10.2f} {copies:10.2f} {link:5.0%}")
    with open(out, "w") as f:
        json.dump(result, f, indent=1)
        f.write("\n")


main()

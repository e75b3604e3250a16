# SPDX-License-Identifier: MIT
"""table.py RUNS JSON: medians of the runs that bench.sh has recorded, as tables and as JSON."""

import json
import statistics
import sys


def by_key(runs, *keys):
    groups = {}
    for run in runs:
        groups.setdefault(tuple(run[k] for k in keys), []).append(run)
    return groups


def summary(values):
    return {"median": statistics.median(values), "min": min(values), "max": max(values),
            "runs": len(values)}


def main():
    with open(sys.argv[1], encoding="utf-8") as f:
        runs = [json.loads(line) for line in f]
    facts = next(r for r in runs if r["kind"] == "facts")
    result = {"version": 1, "facts": facts, "restore": [], "tools": [], "runs": runs}

    print()
    print(facts["command"])
    print(f"commit {facts['commit']}, {facts['ckfast']}, CRIU {facts['criu']}, "
          f"{facts['date']}")
    print(f"{facts['cpu']}, {facts['cpus']} CPUs, {facts['memory_kib'] // 1024} MiB, "
          f"Linux {facts['kernel']}, {facts['filesystem']}")
    print()
    print(f"criu restore, {facts['mib']} MiB {facts['data']}: seconds, median (min - max)")
    restores = by_key([r for r in runs if r["kind"] == "restore"], "cache", "who")
    for state in ("cold", "warm"):
        seconds = {who: summary([r["ns"] / 1e9 for r in restores[state, who]])
                   for who in ("stock", "fast") if (state, who) in restores}
        if len(seconds) < 2:
            continue
        ratio = seconds["stock"]["median"] / seconds["fast"]["median"]
        result["restore"].append({"cache": state, "ratio": ratio, **seconds})
        cells = [f"{who} {s['median']:.3f} ({s['min']:.3f} - {s['max']:.3f})"
                 for who, s in seconds.items()]
        print(f"  {state}  {'   '.join(cells)}   {ratio:.1f}x")
    print()
    print(f"one CPU, {facts['file_mib']} MiB: GB/s, median (min - max)")
    tools = by_key([r for r in runs if "bytes" in r], "kind")
    for (kind,), group in tools.items():
        rate = summary([r["bytes"] / r["ns"] for r in group])
        result["tools"].append({"what": kind, "gb_per_s": rate})
        print(f"  {kind:13} {rate['median']:.2f} ({rate['min']:.2f} - {rate['max']:.2f})")
    with open(sys.argv[2], "w", encoding="utf-8") as out:
        json.dump(result, out, indent=1)
        out.write("\n")
    print(f"\n{sys.argv[2]}")


main()

# SPDX-License-Identifier: MIT
"""field_table.py RUNS NAME: medians of each cell of the matrix, as NAME.json, NAME.txt and NAME.svg."""

import json
import math
import sys

from chart import rect, text
from table import group, seconds

KEYS = ("data", "shape", "memory", "cache", "limit")
MAX_RATIO = 1.05
# Below, so much more is allowed in place of a ratio.
SHORT_S = 0.05
MAX_MORE_S = 0.003
GOOD, BAD = "#009e73", "#d55e00"
WIDTH, LEFT, BAR, GAP, TOP = 860, 330, 10, 3, 66


def is_slower(stock, fast):
    if stock < SHORT_S:
        return fast - stock > MAX_MORE_S
    return fast > stock * MAX_RATIO


def add_estimate(cell, estimates):
    """How the estimate, which is of the whole restore, compares with its median."""
    for e in estimates:
        if all(e[k] == cell[k] for k in KEYS):
            cell["estimate"] = e["seconds"]
            cell["estimate_ratio"] = e["seconds"] / cell["fast"]["median"]


def summarise(runs):
    with open(runs, encoding="utf-8") as f:
        records = [json.loads(line) for line in f]
    estimates = [r for r in records if r["kind"] == "estimate"]
    cells = []
    for key, found in group([r for r in records if r["kind"] == "run"], *KEYS).items():
        by_who = group(found, "who")
        stock, fast = (seconds(by_who.get((w,), [])) for w in ("stock", "fast"))
        if stock and fast:
            cells.append({**dict(zip(KEYS, key)), "stock": stock, "fast": fast,
                          "ratio": fast["median"] / stock["median"],
                          "slower": is_slower(stock["median"], fast["median"])})
            add_estimate(cells[-1], estimates)
    failures = [f"{r['what']}: {r['error'].splitlines()[0] if r['error'] else ''}"
                for r in records if r["kind"] == "failure"]
    worst = max(cells, key=lambda c: c["ratio"], default=None)
    mean = math.exp(sum(math.log(c["ratio"]) for c in cells) / len(cells)) if cells else None
    return {"facts": next((r for r in records if r["kind"] == "facts"), {}), "cells": cells,
            "geometric_mean": mean, "worst": worst, "failures": failures}


def name_of(cell):
    return ", ".join([f"{cell['data']} {cell['shape']}" if cell["shape"] != "program" else cell["data"],
                      cell["memory"], cell["cache"]] + (["tight"] if cell["limit"] != "none" else []))


def first_line(result):
    cells, worst = result["cells"], result["worst"]
    if not cells:
        return "no cell was measured"
    slower = sum(c["slower"] for c in cells)
    return (f"fast / stock: {result['geometric_mean']:.2f} (geometric mean of {len(cells)} cells), "
            f"worst {worst['ratio']:.2f} ({name_of(worst)}), slower in {slower}")


def lines(result):
    facts = result["facts"]
    yield first_line(result)
    yield ""
    yield facts.get("command", "")
    yield (f"commit {facts.get('commit')}, {facts.get('ckfast')}, CRIU {facts.get('criu')}, "
           f"{facts.get('date')}")
    yield (f"{facts.get('cpu')}, {facts.get('cpus')} CPUs, Linux {facts.get('kernel')}, "
           f"{facts.get('mib')} MiB, medians of {facts.get('reps')} (min-max), in seconds")
    yield ""
    yield f"{'cell':44} {'stock':>21} {'fast':>21} {'fast/stock':>10}"
    for c in result["cells"]:
        took = [f"{c[w]['median']:.3f} ({c[w]['min']:.3f}-{c[w]['max']:.3f})" for w in ("stock", "fast")]
        yield (f"{name_of(c):44} {took[0]:>21} {took[1]:>21} {c['ratio']:10.2f}"
               + (" slower" if c["slower"] else ""))
    estimated = [c for c in result["cells"] if c.get("estimate_ratio")]
    if estimated:
        yield ""
        yield f"{'estimate of inspect':44} {'fast':>21} {'estimate':>21} {'of it':>10}"
    for c in estimated:
        yield (f"{name_of(c):44} {c['fast']['median']:21.3f} {c['estimate']:21.3f} "
               f"{c['estimate_ratio']:10.2f}")
    for failure in result["failures"]:
        yield f"failed: {failure}"


def draw(result):
    cells = sorted(result["cells"], key=lambda c: c["ratio"])
    top = max(1.1, cells[-1]["ratio"])
    scale = (WIDTH - LEFT - 60) / top
    bottom = TOP + len(cells) * (BAR + GAP)
    body = []
    for i, c in enumerate(cells):
        y = TOP + i * (BAR + GAP)
        body.append(text(LEFT - 8, y + BAR - 1, name_of(c), 10, text_anchor="end"))
        body.append(rect(LEFT, y, c["ratio"] * scale, BAR, BAD if c["slower"] else GOOD))
        body.append(text(LEFT + c["ratio"] * scale + 5, y + BAR - 1, f"{c['ratio']:.2f}", 10))
    line = LEFT + scale
    body.append(f'<line x1="{line:.1f}" y1="{TOP - 6}" x2="{line:.1f}" y2="{bottom}" '
                'stroke="#1f2328" stroke-width="1"/>')
    facts = result["facts"]
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{bottom + 16}" '
        f'viewBox="0 0 {WIDTH} {bottom + 16}" role="img" '
        'font-family="Helvetica, Arial, DejaVu Sans, sans-serif">',
        "<title>Seconds of a fast restore over those of a stock one</title>",
        f'<rect x="0.5" y="0.5" width="{WIDTH - 1}" height="{bottom + 15}" rx="8" '
        'fill="#ffffff" stroke="#d0d7de"/>',
        text(20, 28, "criu restore: time of the fast image over that of stock CRIU", 16,
             font_weight="600"),
        text(20, 46, f"{first_line(result)}; {facts.get('cpus')} CPUs, {facts.get('mib')} MiB", 11,
             "#59636e"),
        *body, "</svg>", ""])


def write(runs, name):
    result = summarise(runs)
    with open(f"{name}.json", "w", encoding="utf-8") as f:
        json.dump(result, f, indent=1)
        f.write("\n")
    shown = "\n".join(lines(result)) + "\n"
    with open(f"{name}.txt", "w", encoding="utf-8") as f:
        f.write(shown)
    if result["cells"]:
        with open(f"{name}.svg", "w", encoding="utf-8") as f:
            f.write(draw(result))
    sys.stdout.write(shown)


if __name__ == "__main__":
    write(sys.argv[1], sys.argv[2])

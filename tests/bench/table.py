# SPDX-License-Identifier: MIT
"""table.py RUNS JSON [TEXT]: medians of the runs that a benchmark has written down, as tables and as
JSON."""

import json
import statistics
import sys

# What a fast restore is to be faster than a stock one, at least; by case and state of the cache.
TARGETS = {
    ("anon2g", "warm"): 12, ("anon2g", "cold"): 10, ("tasks8", "warm"): 8, ("shm", "warm"): 6,
    ("frag", "warm"): 4, ("anon", "tmpfs"): 10, ("small", "warm"): 0.95, ("small", "tmpfs"): 0.95,
}
BARE_TARGET = 1.5
ORDER = ["stock", "tar.zst", "erofs", "populate", "fast"]
NAMES = {"stock": "stock CRIU", "tar.zst": "stock from tar.zst", "erofs": "stock from EROFS (lz4)",
         "populate": "stock + populate + huge", "fast": "fast image"}


def summary(values):
    values = list(values)
    if not values:
        return None
    return {"median": statistics.median(values), "min": min(values), "max": max(values),
            "runs": len(values)}


def medians(runs, value):
    return summary(v for v in map(value, runs) if v is not None)


def seconds(runs):
    return medians(runs, lambda r: r["ns"] / 1e9)


def stat(name):
    return lambda r: r.get("stats", {}).get(name)


def ratio(a, b):
    return a["median"] / b["median"] if a and b and b["median"] else None


def group(runs, *keys):
    groups = {}
    for r in runs:
        groups.setdefault(tuple(r.get(k) for k in keys), []).append(r)
    return groups


def one_case(case, state, by_who):
    """All that is known of a case with the cache in that state."""
    stock, fast, bare = (by_who.get(w, []) for w in ("stock", "fast", "bare"))
    out = {"case": case, "cache": state, "target": TARGETS.get((case, state)),
           "restore": {w: seconds(r) for w, r in by_who.items() if w != "bare"},
           "ratio": ratio(seconds(stock), seconds(fast)),
           "fill_ms": medians(fast, stat("fill_wall_ms")),
           "fill_sum_ms": medians(fast, stat("fill_ms")),
           "fill_gb_per_s": medians(fast, stat("gb_per_s")),
           "bare_ms": medians(bare, lambda r: r["ns"] / 1e6)}
    out["fill_to_bare"] = ratio(out["fill_ms"], out["bare_ms"])
    for touch in ("read", "write"):
        key = f"{touch}_ns"
        took = {w: medians(r, lambda x: x[key] / 1e6 if key in x else None)
                for w, r in by_who.items()}
        out[f"first_{touch}_ms"] = {w: t for w, t in took.items() if t}
    return out


def by_threads(runs):
    rows = []
    for (n,), rs in sorted(group(runs, "threads").items()):
        fast = [r for r in rs if r["who"] == "fast"]
        bare = [r for r in rs if r["who"] == "bare"]
        row = {"threads": n, "restore": seconds(fast), "fill_ms": medians(fast, stat("fill_wall_ms")),
               "fill_gb_per_s": medians(fast, stat("gb_per_s")),
               "bare_ms": medians(bare, lambda r: r["ns"] / 1e6),
               "bare_gb_per_s": medians(bare, lambda r: r["stats"]["bytes"] / r["ns"])}
        row["fill_to_bare"] = ratio(row["fill_ms"], row["bare_ms"])
        rows.append(row)
    return rows


def evaluate(lines):
    runs = [r for r in lines if r["kind"] == "run"]
    facts = [r for r in lines if r["kind"] == "facts"]
    result = {"version": 2, "facts": facts[0] if facts else {}, "cases": [], "threads": [],
              "sizes": {}, "tools": [],
              "failures": [r for r in lines if r["kind"] == "failure"], "runs": runs}
    for (case, state), rs in group(runs, "case", "cache").items():
        if case == "threads":
            result["threads"] += by_threads(rs)
        else:
            result["cases"].append(
                one_case(case, state, {w: r for (w,), r in group(rs, "who").items()}))
    for r in lines:
        if r["kind"] == "size":
            result["sizes"].setdefault(r["case"], {})[r["who"]] = r["bytes"]
    for (what,), rs in group([r for r in lines if r["kind"] == "tool"], "what").items():
        result["tools"].append({"what": what,
                                "gb_per_s": medians(rs, lambda r: r["bytes"] / r["ns"])})
    return result


def cell(s, digits=3):
    return f"{s['median']:.{digits}f}" if s else "-"


def spread(s):
    return f"{s['median']:.3f} ({s['min']:.3f}-{s['max']:.3f})" if s else "-"


def times(value):
    return f"{value:.2f}x" if value else "-"


def columns(rows):
    """Lines with the first two columns to the left, the others to the right."""
    widths = [max(len(r[i]) for r in rows) for i in range(len(rows[0]))]
    for r in rows:
        cells = [c.ljust(w) if i < 2 else c.rjust(w) for i, (c, w) in enumerate(zip(r, widths))]
        yield "  " + "  ".join(cells).rstrip()


def text_restore(result):
    rows = [("case", "cache", "stock s", "fast s", "ratio", "target", "runs")]
    for c in result["cases"]:
        stock, fast = c["restore"].get("stock"), c["restore"].get("fast")
        target = f">= {c['target']}x" if c["target"] else ""
        runs = str(min(s["runs"] for s in (stock, fast))) if stock and fast else "-"
        rows.append((c["case"], c["cache"], spread(stock), spread(fast), times(c["ratio"]), target,
                     runs))
    return "criu restore: seconds, median (min-max)", rows


def text_fill(result):
    rows = [("case", "cache", "wall ms", "sum ms", "GB/s", "bare ms", "wall/bare", "target")]
    for c in result["cases"]:
        if c["bare_ms"]:
            rows.append((c["case"], c["cache"], cell(c["fill_ms"], 1), cell(c["fill_sum_ms"], 1),
                         cell(c["fill_gb_per_s"], 2), cell(c["bare_ms"], 1),
                         times(c["fill_to_bare"]), f"<= {BARE_TARGET}x"))
    return ("the fill, from its first begin to its last end and summed over all tasks, and a bare\n"
            "program that reads the same bytes into pages of the same kind with as many threads"), rows


def text_touch(result):
    rows = [("case", "how", "stock ms", "fast ms", "fast/stock")]
    for c in result["cases"]:
        for touch in ("read", "write"):
            took = c[f"first_{touch}_ms"]
            stock, fast = took.get("stock"), took.get("fast")
            if stock and fast:
                rows.append((c["case"], f"{touch}, {c['cache']}", cell(stock, 2), cell(fast, 2),
                             times(ratio(fast, stock))))
    return "first touch of each page after the restore", rows


def text_peers(result):
    rows = [("case", "from", "cache", "seconds", "of stock", "MiB on disk")]
    for c in result["cases"]:
        if len(c["restore"]) < 3:
            continue
        sizes = result["sizes"].get(c["case"], {})
        for who in ORDER:
            took = c["restore"].get(who)
            size = sizes.get("stock" if who == "populate" else who)
            if took:
                rows.append((c["case"], NAMES[who], c["cache"], spread(took),
                             times(ratio(c["restore"].get("stock"), took)),
                             f"{size / (1 << 20):.0f}" if size else "-"))
    return "the same dump, other ways", rows


def text_threads(result):
    rows = [("threads", "", "restore s", "fill ms", "GB/s", "bare ms", "bare GB/s", "fill/bare")]
    for t in result["threads"]:
        rows.append((str(t["threads"]), "", cell(t["restore"]), cell(t["fill_ms"], 1),
                     cell(t["fill_gb_per_s"], 2), cell(t["bare_ms"], 1),
                     cell(t["bare_gb_per_s"], 2), times(t["fill_to_bare"])))
    return "image in tmpfs, by threads", rows


def text_tools(result):
    rows = [("one CPU", "", "GB/s")]
    rows += [(t["what"], "", spread(t["gb_per_s"])) for t in result["tools"]]
    return "ckfast: median (min-max)", rows


def text(result):
    facts = result["facts"]
    if facts:
        yield facts["command"]
        yield (f"commit {facts['commit']}, {facts['ckfast']}, CRIU {facts['criu']}, "
               f"{facts['date']}")
        yield (f"{facts['cpu']}, {facts['cpus']} CPUs, {facts['memory_mib']} MiB, "
               f"Linux {facts['kernel']}")
    for part in (text_restore, text_fill, text_touch, text_peers, text_threads, text_tools):
        title, rows = part(result)
        if len(rows) > 1:
            yield f"\n{title}"
            yield from columns(rows)
    if result["failures"]:
        yield ""
        yield f"{len(result['failures'])} failures:"
        for f in result["failures"]:
            yield f"  {f['what']}: {f['error'].splitlines()[0] if f['error'] else ''}"


def write(runs, json_path, text_path=None):
    with open(runs, encoding="utf-8") as f:
        result = evaluate([json.loads(line) for line in f])
    with open(json_path, "w", encoding="utf-8") as out:
        json.dump(result, out, indent=1)
        out.write("\n")
    lines = "\n".join(text(result)) + "\n"
    print("\n" + lines)
    if text_path:
        with open(text_path, "w", encoding="utf-8") as out:
            out.write(lines)
    return result


if __name__ == "__main__":
    write(*sys.argv[1:4])

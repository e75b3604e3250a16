# SPDX-License-Identifier: MIT
"""chart.py JSON SVG: the seconds that a restore takes, as bars, from what table.py has written.

One picture for light and dark pages: it brings its own background.
"""

import json
import math
import sys
from xml.sax.saxutils import escape

from table import NAMES, ORDER

COLORS = {"stock": "#8a8f98", "tar.zst": "#e69f00", "erofs": "#cc79a7", "populate": "#56b4e9",
          "fast": "#009e73"}
CASES = {"anon2g": "one process, random data", "mixed": "one process, mixed data",
         "tasks8": "8 processes", "forked8": "8 processes, forked",
         "shm": "shared memory, 4 processes",
         "frag": "4 KiB fragments", "small": "5 MiB process", "anon": "one process, random data"}
WIDTH, LEFT, RIGHT, BAR, GAP, GROUP, TOP = 860, 236, 128, 13, 3, 14, 84


def nice_step(top):
    """An axis of four to eight steps of 1, 2 or 5."""
    base = 10 ** math.floor(math.log10(top / 4))
    return next(base * k for k in (1, 2, 5, 10) if top / (base * k) <= 8)


def text(x, y, body, size=12, color="#1f2328", **attributes):
    more = "".join(f' {k.replace("_", "-")}="{v}"' for k, v in attributes.items())
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="{color}"{more}>{escape(body)}</text>'


def rect(x, y, width, height, color, radius=2):
    return (f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" '
            f'rx="{radius}" fill="{color}"/>')


def legend(names):
    x = 20
    for who in names:
        yield rect(x, 56, 11, 11, COLORS[who])
        yield text(x + 16, 66, NAMES[who], 12)
        x += 36 + 6.7 * len(NAMES[who])


def axis(top, scale, bottom):
    step = nice_step(top)
    for i in range(int(top / step) + 1):
        x = LEFT + i * step * scale
        yield (f'<line x1="{x:.1f}" y1="{TOP}" x2="{x:.1f}" y2="{bottom:.1f}" '
               'stroke="#d9dde2" stroke-width="1"/>')
        yield text(x, bottom + 16, f"{i * step:g}", 11, "#59636e", text_anchor="middle")
    yield text(LEFT, bottom + 34, "seconds, median; linear axis; shorter is better", 11, "#59636e")


def bars(case, y, scale):
    """The group of one case; where it ends is last."""
    done = case["restore"]
    stock = done.get("stock")
    names = [w for w in ORDER if done.get(w)]
    middle = y + len(names) * (BAR + GAP) / 2
    yield text(LEFT - 12, middle - 2, CASES.get(case["case"], case["case"]), 12,
               text_anchor="end", font_weight="600")
    yield text(LEFT - 12, middle + 12, f"{case['cache']} cache" if case["cache"] != "tmpfs"
               else "image in tmpfs", 11, "#59636e", text_anchor="end")
    for who in names:
        took = done[who]["median"]
        yield rect(LEFT, y, max(took * scale, 1.5), BAR, COLORS[who])
        label = f"{took:.2f} s"
        if who != "stock" and stock:
            label += f" · {stock['median'] / took:.1f}×"
        yield text(LEFT + took * scale + 6, y + BAR - 3, label, 11,
                   font_weight="600" if who == "fast" else "400")
        y += BAR + GAP


def draw(result):
    cases = [c for c in result["cases"] if len(c["restore"]) > 1]
    if not cases:
        return None
    seen = [w for w in ORDER if any(c["restore"].get(w) for c in cases)]
    top = max(t["median"] for c in cases for t in c["restore"].values() if t)
    scale = (WIDTH - LEFT - RIGHT) / top
    body, y = [], TOP + 8
    for case in cases:
        body += bars(case, y, scale)
        y += sum(1 for w in ORDER if case["restore"].get(w)) * (BAR + GAP) + GROUP
    bottom = y - GROUP / 2
    facts = result["facts"]
    head = [text(20, 28, "criu restore: stock, and from a fast image", 16, font_weight="600"),
            text(20, 46, f"{facts['mib']} MiB, {facts['cpus']} CPUs, {facts['cpu']}, "
                 f"Linux {facts['kernel']}, CRIU {facts['criu']}", 11, "#59636e")]
    height = bottom + 48
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height:.0f}" '
        f'viewBox="0 0 {WIDTH} {height:.0f}" role="img" '
        'font-family="Helvetica, Arial, DejaVu Sans, sans-serif">',
        "<title>Seconds that criu restore takes</title>",
        f'<rect x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1:.0f}" rx="8" '
        'fill="#ffffff" stroke="#d0d7de"/>',
        *head, *legend(seen), *axis(top, scale, bottom), *body, "</svg>", ""])


def write(result, path):
    picture = draw(result)
    if picture:
        with open(path, "w", encoding="utf-8") as f:
            f.write(picture)


if __name__ == "__main__":
    with open(sys.argv[1], encoding="utf-8") as source:
        write(json.load(source), sys.argv[2])

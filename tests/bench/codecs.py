# SPDX-License-Identifier: MIT
"""codecs.py: the same dumps stored in several ways: how many bytes, how fast it is made, decoded and
restored with the page cache cold or warm, and what ckfast inspect had estimated. Writes build/codecs.json
and build/codecs.txt.

    CODECS_MIB=512      size of each dump; the tree has four processes with a quarter of it each
    CODECS_REPS=5       restores of each kind
    CODECS_SECONDS=900  no run starts that would not end by then
    CODECS_CASES=WORDS  only these of: server tree random masked heap weights text
    CODECS_WAYS=WORDS   only these of: auto nvme raw zstd erofs tar.zst
    CODECS_STATE=cold   of the page cache: cold or warm
    CODECS_WORK=DIR     where the images are (build/codecs)
"""

import json
import os
import re
import shutil
import statistics
import sys
import time

from contest import Contest, ErofsPeer, TarPeer
from harness import DROP_CACHES, MIB, Bench, Failure, dir_bytes, fresh_runs, output, run, words

CASES = ["server", "tree", "random", "masked", "heap", "weights", "text"]
WAYS = ["auto", "nvme", "raw", "zstd", "erofs", "tar.zst"]
NAMES = {"auto": "ckfast", "nvme": "ckfast --profile nvme", "raw": "ckfast --codec raw", "zstd": "ckfast --codec zstd --level 3",
         "erofs": "EROFS lz4, stock CRIU", "tar.zst": "tar.zst, stock CRIU"}
OPTIONS = {"auto": [], "nvme": ["--profile", "nvme"], "raw": ["--codec", "raw"], "zstd": ["--codec", "zstd", "--level", "3"]}


class CodecContest(Contest):
    """One dump and all the ways to store it."""

    def __init__(self, bench, case, mib):
        specs = {"tree": {"kind": "equal", "mib": max(mib // 4, 1), "data": "weights", "procs": 4}}
        alike = {"kind": "anon", "mib": mib, "data": case}
        super().__init__(bench, case, **specs.get(case, alike))
        self.total_mib = mib
        self.touch_mib = mib * 2 + 256
        self.page_bytes = 0
        self.disk_bytes_per_s = 0
        self.rows = {}

    def set_up(self):
        self.bench.say(f"== {self.case}: {self.kind}, {self.total_mib} MiB {self.data}")
        self.clean()
        self.program = self.bench.program(self.procs)
        self.program.start(self.kind, self.mib, self.data)
        self.bench.dump(self.program, self.dump_dir)
        self.page_bytes = sum(os.stat(os.path.join(self.dump_dir, n)).st_size
                              for n in os.listdir(self.dump_dir) if re.match(r"pages-\d+\.img", n))
        self.size("stock", dir_bytes(self.dump_dir))

    def fast_path(self, way):
        return self.bench.path(f"fast-{way}")

    def convert_way(self, way):
        """The dump in the page cache, the image on the disk and synced. The second run counts."""
        fast = self.fast_path(way)
        for _ in range(2):
            self.bench.prepare("warm", self.dump_dir, self.touch_mib)
            made = json.loads(output(self.bench.tools.command("ckfast")
                                     + ["convert", "--force", "--json", *OPTIONS[way],
                                        self.dump_dir, fast]))
        self.rows[way] = {"bytes": dir_bytes(fast), "convert_ns": made["ns"],
                          "profile": made.get("profile", {}).get("name")}
        # Reads, decodes and checks all of it, from the page cache and on one CPU.
        self.bench.prepare("warm", fast, self.touch_mib)
        took = [run(["taskset", "-c", "0", *self.bench.tools.command("ckfast"), "verify", "-q",
                     "--threads", "1", fast], log=self.bench.log) for _ in range(3)]
        self.rows[way]["verify_ns"] = statistics.median(took)

    def restore_way(self, way):
        def contender(state):
            self.bench.prepare(state, self.fast_path(way), self.touch_mib)
            return self.bench.restore_fast(self.fast_path(way))
        return contender

    def disk_speed(self, way):
        """As the first image is read."""
        if not self.disk_bytes_per_s:
            self.disk_bytes_per_s = self.bench.disk_bytes_per_s(self.fast_path(way), self.touch_mib)
        self.rows[way]["disk_bytes_per_s"] = self.disk_bytes_per_s
        return str(self.disk_bytes_per_s)

    def estimate(self, way, state):
        """For the disk as it is, or for the page cache."""
        profile = "ram" if state == "warm" else self.disk_speed(way)
        shown = self.bench.estimate(self.fast_path(way), profile)
        self.rows[way]["decoded"] = {k: c["decoded_bytes"]
                                     for k, c in shown["codecs"].items()}
        self.rows[way]["estimate_s"] = shown["restore_estimate_s"]["asked"]
        self.rows[way]["read_bytes"] = shown["restore_read_bytes"]

    def clean(self):
        super().clean()
        for way in OPTIONS:
            shutil.rmtree(self.fast_path(way), ignore_errors=True)


def add_peer(contest, contenders, way):
    start = time.perf_counter_ns()
    peer = (ErofsPeer if way == "erofs" else TarPeer)(contest)
    made_ns = time.perf_counter_ns() - start
    size = os.stat(peer.image if way == "erofs" else peer.archive).st_size
    contest.rows[way] = {"bytes": size, "convert_ns": made_ns}
    contenders[way] = peer
    return peer


def run_case(bench, case, settings):
    contest = CodecContest(bench, case, settings["mib"])
    contenders, closing = {}, []
    try:
        contest.set_up()
        for way in settings["ways"]:
            try:
                if way in OPTIONS:
                    contest.convert_way(way)
                    contest.estimate(way, settings["states"][0])
                    contenders[way] = contest.restore_way(way)
                else:
                    closing.append(add_peer(contest, contenders, way))
            except (Failure, OSError) as e:
                bench.complain(f"{case} {way}: left out", e)
        contest.run(contenders, settings["states"], settings["reps"])
        for way, row in contest.rows.items():
            bench.record("way", case=case, way=way, page_bytes=contest.page_bytes, **row)
    finally:
        for peer in closing:
            peer.close()
        contest.clean()


def summarise(runs):
    """One row for each case and way, with medians of the restores."""
    with open(runs, encoding="utf-8") as f:
        records = [json.loads(line) for line in f]
    facts = next((r for r in records if r["kind"] == "facts"), {})
    rows = [r for r in records if r["kind"] == "way"]
    for row in rows:
        took = [r["ns"] / 1e9 for r in records if r["kind"] == "run"
                and (r["case"], r["who"]) == (row["case"], row["way"])]
        row["restore_s"] = statistics.median(took) if took else None
        row["restore_min_s"], row["restore_max_s"] = (min(took), max(took)) if took else (None, None)
        row["runs"] = len(took)
        row["ratio"] = row["page_bytes"] / row["bytes"]
        row["convert_gb_per_s"] = row["page_bytes"] / row["convert_ns"]
        if row.get("verify_ns"):
            row["decode_gb_per_s"] = row["page_bytes"] / row["verify_ns"]
        if row.get("estimate_s") and took:
            row["estimate_ratio"] = row["estimate_s"] / row["restore_s"]
    return {"facts": facts, "rows": rows,
            "failures": [r for r in records if r["kind"] == "failure"]}


def number(value, form):
    return format(value, form) if value else "-"


def table(result):
    facts = result["facts"]
    lines = [f"{facts.get('command')}",
             f"commit {facts.get('commit')}, {facts.get('ckfast')}, CRIU {facts.get('criu')}, "
             f"{facts.get('date')}",
             f"{facts.get('cpu')}, {facts.get('cpus')} CPUs, Linux {facts.get('kernel')}", ""]
    for case in dict.fromkeys(r["case"] for r in result["rows"]):
        rows = [r for r in result["rows"] if r["case"] == case]
        lines.append(f"{case}: {rows[0]['page_bytes'] / MIB:.0f} MiB of pages; restore: "
                     f"page cache {facts.get('states')}, median (min-max)")
        disk = next((r["disk_bytes_per_s"] for r in rows if r.get("disk_bytes_per_s")), 0)
        if disk:
            lines.append(f"  the disk reads {disk / 1e9:.2f} GB/s")
        lines.append(f"  {'stored by':30} {'MiB':>6} {'ratio':>6} {'convert':>8} {'decode':>7} "
                     f"{'restore s':>21} {'estimate':>9} {'of it':>6}")
        for r in rows:
            took = "-"
            if r["runs"]:
                took = f"{r['restore_s']:.3f} ({r['restore_min_s']:.3f}-{r['restore_max_s']:.3f})"
            lines.append(f"  {NAMES[r['way']]:30} {r['bytes'] / MIB:6.0f} {r['ratio']:6.2f} "
                         f"{number(r['convert_gb_per_s'], '8.2f'):>8} "
                         f"{number(r.get('decode_gb_per_s'), '7.2f'):>7} {took:>21} "
                         f"{number(r.get('estimate_s'), '9.3f'):>9} "
                         f"{number(r.get('estimate_ratio'), '6.2f'):>6}")
        lines.append("")
    lines.append("convert: GB of pages per second; decode: the same, ckfast verify on one CPU, "
                 "from the page cache")
    return "\n".join(lines) + "\n"


def main():
    if len(sys.argv) > 1:
        print(__doc__)
        return 2
    states = [os.environ.get("CODECS_STATE",
                             "cold" if os.access(DROP_CACHES, os.W_OK) else "warm")]
    settings = {"mib": int(os.environ.get("CODECS_MIB", "512")),
                "reps": int(os.environ.get("CODECS_REPS", "5")),
                "ways": words("CODECS_WAYS", WAYS), "states": states}
    cases = words("CODECS_CASES", CASES)
    build = os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(
        os.path.abspath(__file__)))), "build")
    work = os.environ.get("CODECS_WORK", os.path.join(build, "codecs"))
    runs = fresh_runs(build, "codecs.jsonl")
    bench = Bench(work, runs, time.monotonic() + int(os.environ.get("CODECS_SECONDS", "900")))
    bench.facts(states=" ".join(states), command=f"CODECS_MIB={settings['mib']} CODECS_REPS="
                f"{settings['reps']} CODECS_CASES='{' '.join(cases)}' CODECS_WAYS="
                f"'{' '.join(settings['ways'])}' tests/bench/codecs.sh")
    try:
        for case in cases:
            try:
                run_case(bench, case, settings)
            except (Failure, OSError) as e:
                bench.complain(case, e)
    except KeyboardInterrupt:
        bench.say("stopped: what was measured so far")
    bench.close()
    result = summarise(runs)
    with open(os.path.join(build, "codecs.json"), "w", encoding="utf-8") as f:
        json.dump(result, f, indent=1)
    text = table(result)
    with open(os.path.join(build, "codecs.txt"), "w", encoding="utf-8") as f:
        f.write(text)
    bench.say(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())

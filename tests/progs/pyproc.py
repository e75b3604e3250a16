# SPDX-License-Identifier: MIT
"""pyproc.py DIR: a Python program with threads, dictionaries and buffers that checks itself."""

import hashlib
import os
import random
import signal
import sys
import threading
import time


class Worker(threading.Thread):
    """Builds a dictionary from a seed, and can say whether it is still the same."""

    def __init__(self, seed):
        super().__init__(daemon=True)
        self.seed = seed
        self.count = 0
        self.table = self.build()
        self.digest = self.measure()

    def build(self):
        rng = random.Random(self.seed)
        return {f"key {i}": rng.randbytes(rng.randrange(1, 400)) for i in range(20000)}

    def measure(self):
        digest = hashlib.sha256()
        for key, value in self.table.items():
            digest.update(key.encode() + value)
        return digest.hexdigest()

    def run(self):
        while True:
            self.count += 1
            time.sleep(0.001)

    def problem(self):
        if self.measure() != self.digest or self.table != self.build():
            return f"table {self.seed}"
        before = self.count
        for _ in range(500):
            if self.count > before:
                return None
            time.sleep(0.01)
        return f"thread {self.seed} does not run"


def write(directory, name, text):
    path = os.path.join(directory, name)
    with open(path + ".tmp", "w", encoding="ascii") as out:
        out.write(text + "\n")
    os.rename(path + ".tmp", path)


def main():
    directory = sys.argv[1]
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    workers = [Worker(seed) for seed in range(4)]
    buffer = bytearray(random.Random(99).randbytes(8 << 20))
    digest = hashlib.sha256(buffer).hexdigest()
    for worker in workers:
        worker.start()
    write(directory, "ready", str(os.getpid()))
    while True:
        signal.sigwait({signal.SIGUSR1})
        problems = [p for p in (w.problem() for w in workers) if p]
        if hashlib.sha256(buffer).hexdigest() != digest:
            problems.append("buffer")
        write(directory, "report", "BAD " + ", ".join(problems) if problems else "OK")


main()

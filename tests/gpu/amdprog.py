# SPDX-License-Identifier: MIT
"""amdprog.py DIR GIB: a process with GIB of random bf16 on each AMD GPU, by PyTorch for ROCm. Writes
DIR/ready with its pid; on SIGUSR1 it computes with all of it again and writes DIR/report: OK, or what
differs from the first time."""

import os
import signal
import sys

import torch

PART = 1 << 28  # elements of one tensor: 512 MiB


def put(path, text):
    with open(path + ".new", "w") as f:
        f.write(text)
    os.rename(path + ".new", path)


def main():
    out, gib = sys.argv[1], float(sys.argv[2])
    tensors = []
    for gpu in range(torch.cuda.device_count()):
        gen = torch.Generator(device=f"cuda:{gpu}").manual_seed(gpu + 1)
        for _ in range(max(1, int(gib * 2))):
            tensors.append(torch.randn(PART, generator=gen, device=f"cuda:{gpu}",
                                       dtype=torch.bfloat16))

    def sums():
        # Of the bits, so that every one counts.
        return [int(t.view(torch.int16).to(torch.int64).sum()) for t in tensors]

    want = sums()
    torch.cuda.synchronize()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    put(f"{out}/ready", f"{os.getpid()}\n")
    while True:
        signal.sigwait({signal.SIGUSR1})
        got = sums()
        bad = [i for i, (a, b) in enumerate(zip(want, got)) if a != b]
        put(f"{out}/report", f"BAD tensors {bad}\n" if bad else "OK\n")


main()

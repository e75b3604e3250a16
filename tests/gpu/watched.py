# SPDX-License-Identifier: MIT
"""What the programs share whose device memory is watched: its sum, and files that are there whole."""
import json
import os

import torch


def checksum(tensors):
    """Any changed bit changes it: each word counts by its place."""
    total = 0
    for t in tensors:
        words = t.detach().reshape(-1).view(torch.int16)
        for part in words.split(1 << 26):
            weights = torch.arange(1, part.numel() + 1, device=t.device, dtype=torch.int64)
            total = (total * 31 + int((part.to(torch.int64) * weights).sum().item())) & (2 ** 63 - 1)
    return total


def write(path, obj):
    with open(path + '.new', 'w', encoding='utf-8') as f:
        json.dump(obj, f)
    os.rename(path + '.new', path)

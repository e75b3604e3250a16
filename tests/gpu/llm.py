# SPDX-License-Identifier: MIT
"""llm.py DIR LAYERS KV_GIB: a model of the shape of Llama 3.1 8B (32 layers) with random weights from a
fixed seed, and a reserve for keys and values, that waits to be dumped.

Writes DIR/ready with the tokens that it generates. Whenever DIR/go turns up it takes its text
as a name, generates again, sums up all weights and the reserve, and writes DIR/out-NAME: the tokens,
the sum, and when the first token was there (seconds since the epoch)."""
import json
import os
import sys
import time

import torch
from transformers import LlamaConfig, LlamaForCausalLM

TOKENS = 8


def make_model(layers):
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    config = LlamaConfig(hidden_size=4096, num_hidden_layers=layers, num_attention_heads=32,
                         num_key_value_heads=8, intermediate_size=14336, vocab_size=128256)
    with torch.device('cuda'):
        model = LlamaForCausalLM(config)
    return model.eval()


def generate(model):
    ids = torch.tensor([[1, 2, 3, 4, 5]], device='cuda')
    tokens, past, first = [], None, 0.0
    with torch.no_grad():
        for i in range(TOKENS):
            out = model(ids, past_key_values=past, use_cache=True)
            past = out.past_key_values
            ids = out.logits[:, -1].argmax(-1, keepdim=True)
            tokens.append(ids.item())
            if i == 0:
                first = time.time()
    return tokens, first


def checksum(tensors):
    """Any changed bit changes it: each word counts by its place."""
    total = 0
    for t in tensors:
        words = t.detach().reshape(-1).view(torch.int16)
        for part in words.split(1 << 26):
            weights = torch.arange(1, part.numel() + 1, device='cuda', dtype=torch.int64)
            total = (total * 31 + int((part.to(torch.int64) * weights).sum().item())) & (2 ** 63 - 1)
    return total


def write(path, obj):
    with open(path + '.new', 'w', encoding='utf-8') as f:
        json.dump(obj, f)
    os.rename(path + '.new', path)


def main():
    where, layers, kv_gib = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    start = time.time()
    model = make_model(layers)
    reserve = torch.zeros(int(kv_gib * 2 ** 30), dtype=torch.uint8, device='cuda')
    watched = list(model.parameters()) + [reserve]
    generate(model)
    tokens, _ = generate(model)
    total = checksum(watched)
    torch.cuda.empty_cache()
    torch.cuda.synchronize()
    write(where + '/ready', {'tokens': tokens, 'sum': total, 'pid': os.getpid(),
                             'init_s': time.time() - start,
                             'reserved_gib': torch.cuda.memory_reserved() / 2 ** 30})
    go = where + '/go'
    while True:
        while not os.path.exists(go):
            time.sleep(0.002)
        with open(go, encoding='utf-8') as f:
            name = f.read().strip()
        tokens, first = generate(model)
        write(where + '/out-' + name, {'tokens': tokens, 'first_token_at': first,
                                       'sum': checksum(watched)})
        torch.cuda.empty_cache()
        os.unlink(go)


main()

# SPDX-License-Identifier: MIT
"""llm.py DIR LAYERS KV_GIB [8b|70b]: a model of the shape of Llama 3.1 8B (32 layers) or 70B (80)
with random weights from a fixed seed, and a reserve for keys and values, that waits to be dumped.
With several GPUs each has an equal share of the layers, in order, and of the reserve.

Writes DIR/ready with the tokens that it generates. Whenever DIR/go turns up it takes its text
as a name, generates again, sums up all weights and the reserve, and writes DIR/out-NAME: the tokens,
the sum, and when the first token was there (seconds since the epoch)."""
import os
import sys
import time

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from watched import checksum, write

TOKENS = 8
SHAPES = {'8b': {'hidden_size': 4096, 'num_attention_heads': 32, 'intermediate_size': 14336},
          '70b': {'hidden_size': 8192, 'num_attention_heads': 64, 'intermediate_size': 28672}}


def gpus():
    return [torch.device('cuda', i) for i in range(torch.cuda.device_count())]


def moved(obj, device):
    if isinstance(obj, torch.Tensor):
        return obj.to(device)
    if isinstance(obj, (tuple, list)):
        return type(obj)(moved(o, device) for o in obj)
    if isinstance(obj, dict):
        return {k: moved(v, device) for k, v in obj.items()}
    return obj


def place(module, device):
    """Makes its memory there, and brings there what it is called with."""
    module.to_empty(device=device)
    module.register_forward_pre_hook(
        lambda _, args, kwargs: (moved(args, device), moved(kwargs, device)), with_kwargs=True)


def make_split(config):
    """No GPU ever has more than its share, as it would if the model were made on the first."""
    with torch.device('meta'):
        model = LlamaForCausalLM(config)
    body, devices = model.model, gpus()
    place(body.embed_tokens, devices[0])
    body.rotary_emb = type(body.rotary_emb)(config=config, device=devices[0])
    for i, layer in enumerate(body.layers):
        place(layer, devices[i * len(devices) // len(body.layers)])
    place(body.norm, devices[-1])
    place(model.lm_head, devices[-1])
    for name, t in list(model.named_parameters()) + list(model.named_buffers()):
        assert t.device.type == 'cuda', f'{name} is on {t.device}'
    with torch.no_grad():
        for p in model.parameters():
            if p.dim() == 1:
                p.fill_(1)
            else:
                p.normal_(std=config.initializer_range)
    return model


def make_model(layers, shape):
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    config = LlamaConfig(num_hidden_layers=layers, num_key_value_heads=8, vocab_size=128256,
                         **SHAPES[shape])
    if len(gpus()) > 1:
        model = make_split(config)
    else:
        with torch.device('cuda'):
            model = LlamaForCausalLM(config)
    return model.eval()


def generate(model):
    ids = torch.tensor([[1, 2, 3, 4, 5]], device='cuda:0')
    tokens, past, first = [], None, 0.0
    with torch.no_grad():
        for i in range(TOKENS):
            out = model(ids, past_key_values=past, use_cache=True)
            past = out.past_key_values
            ids = out.logits[:, -1].argmax(-1, keepdim=True)
            tokens.append(ids.item())
            ids = ids.to('cuda:0')
            if i == 0:
                first = time.time()
    return tokens, first


def tidy():
    torch.cuda.empty_cache()
    for device in gpus():
        torch.cuda.synchronize(device)


def main():
    where, layers, kv_gib = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    shape = sys.argv[4] if len(sys.argv) > 4 else '8b'
    start = time.time()
    model = make_model(layers, shape)
    share = int(kv_gib * 2 ** 30) // len(gpus()) // 2 * 2
    watched = list(model.parameters()) + [
        torch.zeros(share, dtype=torch.uint8, device=device) for device in gpus()]
    generate(model)
    tokens, _ = generate(model)
    total = checksum(watched)
    tidy()
    reserved = [torch.cuda.memory_reserved(device) / 2 ** 30 for device in gpus()]
    write(where + '/ready', {'tokens': tokens, 'sum': total, 'pid': os.getpid(),
                             'init_s': time.time() - start,
                             'reserved_gib': sum(reserved), 'reserved_gib_each': reserved})
    go = where + '/go'
    while True:
        while not os.path.exists(go):
            time.sleep(0.002)
        with open(go, encoding='utf-8') as f:
            name = f.read().strip()
        os.unlink(go)  # the next one may come while this is worked at
        tokens, first = generate(model)
        write(where + '/out-' + name, {'tokens': tokens, 'first_token_at': first,
                                       'sum': checksum(watched)})
        torch.cuda.empty_cache()


main()

# SPDX-License-Identifier: MIT
"""busy.py KIND…: a program that never idles on the GPU: one thread for each kind, which does the same
over and over and looks at what it gets.

    kernels  matrix products and sums, read back
    copies   from pinned memory and back
    churn    allocates and frees all sizes
    graphs   launches a graph
    events   streams that wait for each other, and host functions
    pool     memory of the driver's pool (cuMemAllocAsync)

Whenever the file go turns up it waits until each thread has got on, looks at weights that were made
at its start, and writes out: "ok N", or what went wrong."""

import ctypes
import os
import sys
import threading
import time

import torch

WEIGHTS = int(os.environ.get("BUSY_MIB", "256")) << 19  # of two bytes
PATIENCE = 20

cuda = ctypes.CDLL("libcuda.so.1")
libc = ctypes.CDLL(None)
wrong = []
rounds = {}


def must(result):
    if result:
        raise RuntimeError(f"CUDA error {result}")


def same(got, want, what):
    if got != want:
        raise RuntimeError(f"{what}: {got}, not {want}")


def kernels():
    matrix = torch.randn(2048, 2048, device="cuda")
    want = None
    while True:
        got = float((matrix @ matrix).double().sum())
        want = got if want is None else want
        same(got, want, "product")
        yield


def copies():
    host = torch.arange(8 << 20, dtype=torch.int32).pin_memory()
    stream = torch.cuda.Stream()
    while True:
        with torch.cuda.stream(stream):
            back = host.to("cuda", non_blocking=True).cpu()
        stream.synchronize()
        if not torch.equal(back, host):
            raise RuntimeError("copy differs")
        yield


def churn():
    kept = []
    nr = 0
    while True:
        nr += 1
        size = (nr * 2654435761) % (96 << 20) + 1
        kept.append((nr % 251, torch.full((size,), nr % 251, dtype=torch.uint8, device="cuda")))
        if len(kept) > 8:
            value, memory = kept.pop(0)
            same(int(memory[-1]), value, "last byte")
            same(int(memory.max()), value, "largest byte")
            del memory
        if nr % 16 == 0:
            torch.cuda.empty_cache()
        yield


def graphs():
    data = torch.zeros(1 << 20, device="cuda")
    graph = torch.cuda.CUDAGraph()
    stream = torch.cuda.Stream()
    with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
        data.add_(1)
        data.mul_(1)
    times = 0
    yield  # the other threads begin when it has been captured
    while True:
        with torch.cuda.stream(stream):
            for _ in range(20):
                graph.replay()
            times += 20
            same(float(data[12345]), float(times), "graph")
            if times >= 1 << 20:
                data.zero_()
                times = 0
        yield


def events():
    streams = [torch.cuda.Stream() for _ in range(4)]
    data = torch.zeros(4 << 20, device="cuda")
    semaphore = ctypes.create_string_buffer(64)
    libc.sem_init(semaphore, 0, 0)
    post = ctypes.cast(libc.sem_post, ctypes.c_void_p)
    times = 0
    torch.cuda.synchronize()
    while True:
        before = None
        for stream in streams:
            if before:
                stream.wait_event(before)
            with torch.cuda.stream(stream):
                data.add_(1)
            must(cuda.cuLaunchHostFunc(ctypes.c_void_p(stream.cuda_stream), post, semaphore))
            before = torch.cuda.Event(blocking=times % 8 == 0)
            before.record(stream)
        before.synchronize()
        times += 4
        for _ in streams:
            same(libc.sem_trywait(semaphore), 0, "host function")
        with torch.cuda.stream(streams[-1]):
            same(float(data[777]), float(times), "events")
            if times >= 1 << 20:
                data.zero_()
                times = 0
        streams[-1].synchronize()
        yield


def pool():
    size = 24 << 20
    stream = torch.cuda.Stream()
    handle = ctypes.c_void_p(stream.cuda_stream)
    host = torch.zeros(size, dtype=torch.uint8).pin_memory()
    nr = 0
    while True:
        nr = nr % 250 + 1
        address = ctypes.c_ulonglong()
        must(cuda.cuMemAllocAsync(ctypes.byref(address), ctypes.c_size_t(size), handle))
        must(cuda.cuMemsetD8Async(address, ctypes.c_ubyte(nr), ctypes.c_size_t(size), handle))
        must(cuda.cuMemcpyDtoHAsync_v2(ctypes.c_void_p(host.data_ptr()), address,
                                       ctypes.c_size_t(size), handle))
        must(cuda.cuMemFreeAsync(address, handle))
        must(cuda.cuStreamSynchronize(handle))
        same(int(host.min()), nr, "least byte of a pool")
        same(int(host.max()), nr, "largest byte of a pool")
        yield


def loop(name, steps):
    try:
        for _ in steps:
            rounds[name] += 1
    except Exception as e:  # whatever it is, it is what the test is for
        wrong.append(f"{name}: {e!r}"[:300])


def answer(weights, total):
    before = dict(rounds)
    end = time.monotonic() + PATIENCE
    while (not wrong and any(rounds[k] < before[k] + 2 for k in rounds)
           and time.monotonic() < end):
        time.sleep(0.01)
    late = [k for k in rounds if rounds[k] < before[k] + 2]
    if late and not wrong:
        wrong.append(f"{late} do not get on")
    if float(weights.double().sum()) != total:
        wrong.append("weights differ")
    with open("out.new", "w", encoding="utf-8") as f:
        f.write(f"WRONG {wrong}" if wrong else f"ok {sum(rounds.values())}")
    os.rename("out.new", "out")


def main():
    torch.manual_seed(11)
    weights = torch.randn(WEIGHTS, device="cuda", dtype=torch.bfloat16)
    total = float(weights.double().sum())
    steps = {name: globals()[name]() for name in sys.argv[1:]}
    if "graphs" in steps:
        next(steps["graphs"])
    for name in steps:
        rounds[name] = 0
        threading.Thread(target=loop, args=(name, steps[name]), daemon=True).start()
    time.sleep(1)
    with open("ready", "w", encoding="utf-8"):
        pass
    while True:
        while not os.path.exists("go"):
            time.sleep(0.005)
        os.unlink("go")
        answer(weights, total)


main()

#!/bin/bash
# SPDX-License-Identifier: MIT
# A program with the agent that has freed all of its GPU memory can be dumped and restored, and allocates
# again afterwards.
. "$(dirname "$0")/gpu.sh"

cat >"$W/prog.py" <<'END'
import ctypes, os, signal

cuda = ctypes.CDLL("libcuda.so.1")


def must(result):
    if result:
        raise SystemExit(f"CUDA error {result}")


def write(name):
    with open(name + ".new", "w") as f:
        f.write("OK\n")
    os.rename(name + ".new", name)


def use():
    ptr, size = ctypes.c_ulonglong(), 8 << 20
    must(alloc(ctypes.byref(ptr), ctypes.c_size_t(size)))
    must(cuda.cuMemsetD8_v2(ptr, ctypes.c_ubyte(7), ctypes.c_size_t(size)))
    got = ctypes.create_string_buffer(4096)
    must(cuda.cuMemcpyDtoH_v2(got, ctypes.c_ulonglong(ptr.value + size - 4096), ctypes.c_size_t(4096)))
    assert got.raw == b"\x07" * 4096
    must(free(ptr))


signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
alloc, free = cuda.cuMemAlloc_v2, cuda.cuMemFree_v2
must(cuda.cuInit(0))
ctx = ctypes.c_void_p()
must(cuda.cuDevicePrimaryCtxRetain(ctypes.byref(ctx), 0))
must(cuda.cuCtxSetCurrent(ctx))
use()
write("ready")
while True:
    signal.sigwait([signal.SIGUSR1])
    use()
    write("report")
END

empty() {
	start_ready "$CKFAST" run -- "$PYTHON" "$W/prog.py"
	check "$PID"
	gpu_dump "$D/dump"
	[ -z "$(find "$D/dump" -name 'ckfast-gpu-*')" ] || fail "images of no memory"
	convert "$D/dump" "$D/fast"
	gpu_restore "$D/fast"
	check "$PID"
	stop "$PID"
	gpu_idle
}

every_version
each_version empty

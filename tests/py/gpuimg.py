# SPDX-License-Identifier: MIT
"""
The table of device memory, from SPEC.md section 10 alone: packed from plain values, and parsed with
every rule of that section.
"""
import struct

import xxhash

MIB2 = 2 << 20
HEADER = struct.Struct("<8sHHIIIIIQ16sQ")
DEVICE = struct.Struct("<16sQII64s")
ALLOC = struct.Struct("<QQIIQ")
FLAG_RDMA = 1


class Bad(Exception):
    """A rule that is broken; .rule, and .off in the file, and whether it is just unsupported."""

    def __init__(self, off, rule, reason, unsupported=False):
        super().__init__(reason)
        self.off, self.rule, self.unsupported = off, rule, unsupported


def table_name(pid):
    return b"ckfast-gpu-%d.img" % pid


def pages_name(pid):
    return b"ckfast-gpu-pages-%d.img" % pid


def device(ordinal, name=b"GPU", total=80 << 30, uuid=None, reserved=0):
    return (uuid or bytes([ordinal]) * 16, total, ordinal, reserved, name)


def pack(pid, devices, allocs, **header):
    """
    devices: as device() makes them; allocs: (addr, bytes, device, flags, reserved). header: fields
    that are to have other values than those that are right; `checksum` among them.
    """
    h = {"magic": b"CKFASTGD", "major": 1, "minor": 0, "header_bytes": 64, "pid": pid,
         "nr_devices": len(devices), "nr_allocs": len(allocs), "reserved": 0,
         "pages_bytes": sum(a[1] for a in allocs) % (1 << 64), "reserved2": bytes(16)}
    checksum = header.pop("checksum", None)
    h.update(header)
    body = b"".join(DEVICE.pack(*d) for d in devices) + b"".join(ALLOC.pack(*a) for a in allocs)
    if checksum is None:
        checksum = xxhash.xxh3_64_intdigest(HEADER.pack(*h.values(), 0) + body)
    return HEADER.pack(*h.values(), checksum) + body


def parse(data, pid):
    """(devices, allocs) of a good table with this pid in its name; else Bad."""
    if len(data) < HEADER.size:
        raise Bad(0, "R-gpu", "%d bytes, want at least 64" % len(data))
    (magic, major, _, header_bytes, in_pid, nr_devices, nr_allocs, reserved, pages_bytes,
     reserved2, checksum) = HEADER.unpack_from(data)
    if magic != b"CKFASTGD":
        raise Bad(0, "R-gpu", "magic %r" % magic)
    if major != 1:
        raise Bad(8, "R-gpu", "major version %d" % major, major > 1)
    if header_bytes != 64:
        raise Bad(12, "R-gpu", "header_bytes %d" % header_bytes)
    if nr_devices > 64 or nr_allocs > 1 << 20:
        raise Bad(20, "R-gpu", "%d devices, %d allocations" % (nr_devices, nr_allocs))
    want = 64 + 96 * nr_devices + 32 * nr_allocs
    if len(data) != want:
        raise Bad(0, "R-gpu", "%d bytes, want %d" % (len(data), want))
    if reserved or reserved2.strip(b"\0"):
        raise Bad(28, "R-reserved", "reserved bytes are not zero")
    if xxhash.xxh3_64_intdigest(data[:56] + bytes(8) + data[64:]) != checksum:
        raise Bad(56, "R-gpu", "bad checksum")
    devices = parse_devices(data, nr_devices)
    allocs = parse_allocs(data, nr_devices, nr_allocs)
    if sum(a[1] for a in allocs) != pages_bytes:
        raise Bad(32, "R-gpu", "pages_bytes %d" % pages_bytes)
    if in_pid != pid:
        raise Bad(16, "R-gpu", "pid %d, the name says %d" % (in_pid, pid))
    return devices, allocs


def parse_devices(data, nr):
    devices = []
    for i in range(nr):
        off = 64 + 96 * i
        uuid, total, ordinal, reserved, name = DEVICE.unpack_from(data, off)
        if b"\0" not in name:
            raise Bad(off + 32, "R-gpu", "a name without end")
        if name[name.index(0):].strip(b"\0"):
            raise Bad(off + 32, "R-padding", "bytes after the name are not zero")
        if reserved:
            raise Bad(off + 28, "R-reserved", "reserved field is not zero")
        if ordinal in (d[2] for d in devices):
            raise Bad(off + 24, "R-gpu", "ordinal %d twice" % ordinal)
        devices.append((uuid, total, ordinal, reserved, name.rstrip(b"\0")))
    return devices


def parse_allocs(data, nr_devices, nr):
    allocs, end = [], 0
    for i in range(nr):
        off = 64 + 96 * nr_devices + 32 * i
        alloc = addr, size, dev, flags, reserved = ALLOC.unpack_from(data, off)
        if addr % MIB2 or addr < end:
            raise Bad(off, "R-gpu", "address %#x after %#x" % (addr, end))
        if not size or size % MIB2:
            raise Bad(off + 8, "R-gpu", "%d bytes" % size)
        end = addr + size
        if end > 1 << 63:
            raise Bad(off, "R-gpu", "ends at %#x" % end)
        if dev >= nr_devices:
            raise Bad(off + 16, "R-gpu", "device %d of %d" % (dev, nr_devices))
        if flags & ~FLAG_RDMA:
            raise Bad(off + 20, "R-reserved", "flags %#x" % flags)
        if reserved:
            raise Bad(off + 24, "R-reserved", "reserved field is not zero")
        allocs.append(alloc)
    return allocs

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
SHARED_ID = 16
FLAG_RDMA, FLAG_SHARED, FLAG_IMPORT = 1, 2, 4


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


def is_import(alloc):
    return bool(alloc[3] & FLAG_IMPORT)


def pages_bytes(allocs):
    """The length of the pages file: the contents of an import are those of its owner."""
    return sum(a[1] for a in allocs if not is_import(a))


def pack(pid, devices, allocs, **header):
    """
    devices: as device() makes them; allocs: (addr, bytes, device, flags, reserved) and, of shared
    memory, its id. header: fields that are to have other values than those that are right;
    `checksum` among them.
    """
    major = 2 if any(len(a) > 5 for a in allocs) else 1
    h = {"magic": b"CKFASTGD", "major": major, "minor": 0, "header_bytes": 64, "pid": pid,
         "nr_devices": len(devices), "nr_allocs": len(allocs), "reserved": 0,
         "pages_bytes": pages_bytes(allocs) % (1 << 64), "reserved2": bytes(16)}
    checksum = header.pop("checksum", None)
    h.update(header)
    body = b"".join(DEVICE.pack(*d) for d in devices)
    for a in allocs:
        body += ALLOC.pack(*a[:5])
        if major == 2:
            body += a[5] if len(a) > 5 else bytes(SHARED_ID)
    if checksum is None:
        checksum = xxhash.xxh3_64_intdigest(HEADER.pack(*h.values(), 0) + body)
    return HEADER.pack(*h.values(), checksum) + body


def parse(data, pid):
    """(devices, allocs) of a good table with this pid in its name; else Bad."""
    if len(data) < HEADER.size:
        raise Bad(0, "R-gpu", "%d bytes, want at least 64" % len(data))
    (magic, major, _, header_bytes, in_pid, nr_devices, nr_allocs, reserved,
     in_pages_bytes, reserved2, checksum) = HEADER.unpack_from(data)
    if magic != b"CKFASTGD":
        raise Bad(0, "R-gpu", "magic %r" % magic)
    if major not in (1, 2):
        raise Bad(8, "R-gpu", "major version %d" % major, major > 2)
    entry = ALLOC.size + (SHARED_ID if major == 2 else 0)
    if header_bytes != 64:
        raise Bad(12, "R-gpu", "header_bytes %d" % header_bytes)
    if nr_devices > 64 or nr_allocs > 1 << 20:
        raise Bad(20, "R-gpu", "%d devices, %d allocations" % (nr_devices, nr_allocs))
    want = 64 + 96 * nr_devices + entry * nr_allocs
    if len(data) != want:
        raise Bad(0, "R-gpu", "%d bytes, want %d" % (len(data), want))
    if reserved or reserved2.strip(b"\0"):
        raise Bad(28, "R-reserved", "reserved bytes are not zero")
    if xxhash.xxh3_64_intdigest(data[:56] + bytes(8) + data[64:]) != checksum:
        raise Bad(56, "R-gpu", "bad checksum")
    devices = parse_devices(data, nr_devices)
    allocs = parse_allocs(data, major, nr_devices, nr_allocs)
    if (major == 2) != any(a[3] & FLAG_SHARED for a in allocs):
        raise Bad(8, "R-gpu", "major version %d without shared memory" % major)
    if pages_bytes(allocs) != in_pages_bytes:
        raise Bad(32, "R-gpu", "pages_bytes %d" % in_pages_bytes)
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


def parse_allocs(data, major, nr_devices, nr):
    allocs, end = [], 0
    entry = ALLOC.size + (SHARED_ID if major == 2 else 0)
    for i in range(nr):
        off = 64 + 96 * nr_devices + entry * i
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
        if flags & ~(FLAG_RDMA if major == 1 else FLAG_RDMA | FLAG_SHARED | FLAG_IMPORT):
            raise Bad(off + 20, "R-reserved", "flags %#x" % flags)
        if reserved:
            raise Bad(off + 24, "R-reserved", "reserved field is not zero")
        if major == 2:
            shared_id = data[off + ALLOC.size:off + entry]
            if flags & FLAG_IMPORT and not flags & FLAG_SHARED:
                raise Bad(off + 20, "R-gpu", "flags %#x" % flags)
            if bool(flags & FLAG_SHARED) != bool(shared_id.strip(b"\0")):
                raise Bad(off + 32, "R-gpu", "shared id %r" % shared_id)
            alloc += (shared_id,) if flags & FLAG_SHARED else ()
        allocs.append(alloc)
    return allocs


def check_owners(tables):
    """tables: a list of allocations for each task. Each import has one owner, of no fewer bytes."""
    owned = [a for allocs in tables for a in allocs if a[3] & FLAG_SHARED and not is_import(a)]
    owners = {a[5]: a[1] for a in owned}
    if len(owners) != len(owned):
        raise Bad(0, "R-gpu", "a shared id with two owners")
    for a in (a for allocs in tables for a in allocs if is_import(a)):
        if a[5] not in owners:
            raise Bad(0, "R-gpu", "the shared id %s has no owner" % a[5].hex())
        if a[1] > owners[a[5]]:
            raise Bad(0, "R-gpu", "an import of %d bytes, its owner has %d" % (a[1], owners[a[5]]))

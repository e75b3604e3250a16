# SPDX-License-Identifier: MIT
"""
The files of CRIU's amdgpu plugin, from SPEC.md sections 10.3 and 10.4 alone: packed from plain
values, and parsed with every rule of these sections.
"""
import re
import struct

import criuimg

MIB2 = 2 << 20
VRAM, GTT, USERPTR, DOORBELL = 1, 2, 4, 8
WRITABLE = 1 << 31


class Bad(Exception):
    """A table that breaks a rule."""


def table_name(ident):
    return b"amdgpu-kfd-%d.img" % ident


def pages_name(ident, gpu):
    return b"amdgpu-pages-%d-%04x.img" % (ident, gpu)


def target_id(ident, gpu):
    return ident << 32 | gpu


def table_ident(name):
    """ID of the name of a table, or None."""
    match = re.fullmatch(rb"amdgpu-kfd-([1-9][0-9]*)\.img", name)
    ident = int(match[1]) if match else 0
    return ident if 0 < ident < 1 << 31 else None


def sized(data):
    """data behind the 8 bytes that say how long it is."""
    return struct.pack("<Q", len(data)) + data


def device(gpu, vram=16 << 30):
    """As the plugin writes one, but for numbers that mean nothing here. gpu 0: a CPU."""
    return criuimg.encode([(1, 1), (2, gpu), *((n, n) for n in range(3, 31)), (31, vram),
                           (32, criuimg.encode([(1, 2), (2, 0)]))])


def obj(gpu, size, flags=VRAM | WRITABLE, addr=0x7f0000000000, offset=0):
    return criuimg.encode([(1, addr), (2, size), (3, offset), (4, flags), (5, gpu)])


def message(pid, devices, objects, **counts):
    """counts: nr_gpus, nr_cpus, nr_objects that are to be others than those that are right."""
    gpus = sum(1 for d in devices if criuimg.decode(d)[2][-1])
    return criuimg.encode(
        [(1, pid), (2, counts.get("nr_gpus", gpus)),
         (3, counts.get("nr_cpus", len(devices) - gpus))]
        + [(4, d) for d in devices] + [(5, counts.get("nr_objects", len(objects)))]
        + [(6, o) for o in objects]
        + [(7, 3), (8, 4096), (9, 0x12345678), (10, b"private to the kernel")])


def table(pid, devices, objects, **counts):
    return sized(message(pid, devices, objects, **counts))


def render_name(ident):
    return b"amdgpu-renderD-%d.img" % ident


def render_ident(name):
    """ID of the name of a table of a render node, or None."""
    match = re.fullmatch(rb"amdgpu-renderD-([1-9][0-9]*)\.img", name)
    ident = int(match[1]) if match else 0
    return ident if 0 < ident < 1 << 31 else None


def render_pages_name(ident, minor, n):
    return b"amdgpu-drm-pages-%d-%d-%04x.img" % (ident, minor, n)


def render_node(gpu):
    """The table as CRIU 4.2.1 writes it."""
    return sized(criuimg.encode([(1, gpu)]))


def render_obj(size, handle=1):
    """As the plugin of criu-dev writes one, with one mapping."""
    mapping = criuimg.encode([(1, 0x7f0000000000), (2, size), (3, 0), (4, 14)])
    return criuimg.encode([(1, 0x7f0000000000), (2, size), (3, 1 << 32), (4, 0), (5, 4096), (6, 4),
                           (7, handle), (8, 0), (9, 1), (10, mapping)])


def render_message(gpu, ident, minor, objects, count=None):
    return criuimg.encode([(1, gpu), (2, ident), (3, minor),
                           (4, len(objects) if count is None else count)]
                          + [(5, o) for o in objects])


def render_table(gpu, ident, minor, sizes, **more):
    return sized(render_message(gpu, ident, minor, [render_obj(n, i + 1)
                                                    for i, n in enumerate(sizes)], **more))


def fields(data, required, what):
    try:
        got = criuimg.decode(data)
    except criuimg.Malformed as e:
        raise Bad("%s: %s" % (what, e)) from e
    for number in required:
        if not isinstance(got.get(number, [None])[-1], int):
            raise Bad("%s has no field %d" % (what, number))
    return got


def uint32(value):
    return value & 0xffffffff


def message_of(data, most):
    if len(data) < 8:
        raise Bad("%d bytes" % len(data))
    size, = struct.unpack_from("<Q", data)
    if size > most or size > len(data) - 8:
        raise Bad("a message of %d bytes" % size)
    return data[8:8 + size]


def parse_render(data, ident):
    """(minor, bytes of each object) of a good table of a render node; else Bad."""
    top = fields(message_of(data, 1 << 22), (1, 2, 3, 4), "message")
    objects = [fields(o, (2,), "object") for o in top.get(5, [])]
    gpu, got, minor = (uint32(top[n][-1]) for n in (1, 2, 3))
    if not gpu or got != ident or minor >= 1 << 31 or top[4][-1] != len(objects):
        raise Bad("GPU %d, id %d, minor %d, count %d" % (gpu, got, minor, top[4][-1]))
    return minor, [o[2][-1] for o in objects]


def parse(data):
    """{gpu: [bytes of each object with contents]} of a good table; else Bad."""
    top = fields(message_of(data, 1 << 26), (1, 2, 3, 5), "message")
    devices = [fields(d, (2, 31), "device") for d in top.get(4, [])]
    objects = [fields(o, (1, 2, 4, 5), "object") for o in top.get(6, [])]
    nr_gpus, nr_cpus = uint32(top[2][-1]), uint32(top[3][-1])
    gpus = [uint32(d[2][-1]) for d in devices if uint32(d[2][-1])]
    if nr_gpus + nr_cpus != len(devices) or top[5][-1] != len(objects):
        raise Bad("counts")
    if len(gpus) != nr_gpus or nr_gpus > 64 or len(set(gpus)) != nr_gpus:
        raise Bad("GPUs %s, count %d" % (gpus, nr_gpus))
    sizes = {gpu: [] for gpu in gpus}
    for o in objects:
        gpu, nr = uint32(o[5][-1]), o[2][-1]
        if gpu not in sizes:
            raise Bad("an object on GPU %04x" % gpu)
        if not o[4][-1] & (VRAM | GTT):
            continue
        if not nr or nr % criuimg.PAGE:
            raise Bad("an object of %d bytes" % nr)
        sizes[gpu].append(nr)
    if any(sum(s) > 1 << 62 for s in sizes.values()):
        raise Bad("too many bytes")
    return sizes


def places(sizes):
    """(start, end) of each object."""
    out, start = [], 0
    for size in sizes:
        out.append((start, start + size))
        start = (start + size) // MIB2 * MIB2 + MIB2
    return out

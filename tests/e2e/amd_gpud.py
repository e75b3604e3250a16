# SPDX-License-Identifier: MIT
"""amd_gpud.py DIR CASE…: clients of gpud that ask it to fill memory of an AMD GPU of the fake from the fast
image DIR: one for each of the CASES, of which most do not behave. Says what is wrong with the answer.
amd_gpud.py DIR leave: a client that ends while its memory is filled."""

import ckread
import json
import os
import socket
import struct
import sys

HELLO, STATUS, MEMORY, COMMIT, AMD_GPUS, FILL_AMD = 1, 2, 6, 7, 12, 13
DONE, ERROR, TEXT, ACCEPTED = 16, 18, 19, 20
MESSAGE_BYTES = 512
TEXT_OFF = 80
DMABUF_MAGIC = 0x414d444446554244  # of tests/stub/amd/world.h
DEVICE = 3
PAGE = 4096


def message(op, arg=0, arg2=0, addr=0, size=0):
    return struct.pack("<IIQQQQ", op, 0, arg, arg2, addr, size).ljust(MESSAGE_BYTES, b"\0")


def dmabuf(size, gpu=0):
    """As the fake has them: which part of the memory of which GPU."""
    fd = os.memfd_create("dma-buf")
    os.write(fd, struct.pack("<QIIQQ", DMABUF_MAGIC, gpu, 0, 1 << 20, size))
    return fd


class Client:
    def __init__(self, image):
        self.dir_fd = os.open(image, os.O_RDONLY)
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.sock.settimeout(60)
        self.sock.connect(os.environ["CKFAST_GPUD_SOCKET"])
        self.send(message(HELLO, int(os.environ["GPUD_VERSION"])))
        assert self.answer() == "DONE"

    def send(self, msg, fd=-1):
        socket.send_fds(self.sock, [msg], [fd] if fd >= 0 else [])

    def answer(self):
        """DONE, ACCEPTED, the text of an error, or "closed"."""
        try:
            data = self.sock.recv(MESSAGE_BYTES)
        except ConnectionResetError:
            data = self.sock.recv(MESSAGE_BYTES)
        if not data:
            return "closed"
        op, _, self.arg = struct.unpack_from("<IIQ", data)
        if op == ERROR:
            return data[TEXT_OFF:].rstrip(b"\0").decode()
        return {DONE: "DONE", ACCEPTED: "ACCEPTED"}[op]

    def status(self):
        self.send(message(STATUS))
        text = b""
        while True:
            data = self.sock.recv(MESSAGE_BYTES)
            if struct.unpack_from("<I", data)[0] != TEXT:
                return json.loads(text)
            text += data[TEXT_OFF:].split(b"\0")[0]

    def fill(self, target, objects, nr=None, dir_fd=None):
        """objects: (place, length, descriptor)."""
        self.send(message(FILL_AMD, target, len(objects) if nr is None else nr),
                  self.dir_fd if dir_fd is None else dir_fd)
        for addr, size, fd in objects:
            self.send(message(MEMORY, addr=addr, size=size), fd)
            if fd >= 0:
                os.close(fd)
        return self.answer()

    def commit(self, fd=-1):
        self.send(message(COMMIT), fd)
        return self.answer()


def objects_of(path):
    """The id of the first target of an AMD GPU in the image, and place and length of its objects."""
    image = ckread.opened(path)
    nr = next(i for i, t in enumerate(image.targets) if t[6] == DEVICE and t[0] >= 1 << 32)
    ranges = []
    for place, _, _, pages in image.target_ops(nr):
        if ranges and sum(ranges[-1]) == place:
            ranges[-1][1] += pages * PAGE
        else:
            ranges.append([place, pages * PAGE])
    return image.targets[nr][0], ranges


def cases(path):
    """By name: what a client does with its answers, and what is to be in the last one."""
    target, ranges = objects_of(path)
    (first, size), last = ranges[0], ranges[-1]

    def real(places=ranges):
        return [(addr, n, dmabuf(n)) for addr, n in places]

    def fill(objects, want, **more):
        return lambda c: (c.fill(target, objects, **more), want)

    def after(objects, op, want, fd=-1):
        def run(c):
            assert c.fill(target, objects) == "ACCEPTED"
            c.send(message(op), fd)
            return c.answer(), want
        return run

    wrong_gpu = [(addr, n, dmabuf(n, 7)) for addr, n in ranges]
    shorter = real(ranges[:-1]) + [(*last, dmabuf(last[1] - PAGE))]
    return {
        "good": after(real(), COMMIT, "DONE"),
        "none": fill([], "have 0 bytes, those of the image"),
        "fewer": fill(real(ranges[:-1]), "those of the image"),
        "larger": fill(real(ranges[:-1] + [[last[0], last[1] + PAGE]]), "larger than those of the image"),
        "huge": fill([(first, 1 << 63, dmabuf(1 << 63))], "larger than those of the image"),
        "far": fill([(1 << 63, size, dmabuf(size))], "out of order"),
        "odd": fill([(first, size - 1, dmabuf(size))], "out of order"),
        "empty": fill([(first, 0, dmabuf(size))], "out of order"),
        "order": fill(real(ranges[::-1]), "out of order"),
        "twice": fill(real([ranges[0], ranges[0]] + ranges[2:]), "out of order"),
        "gap": after(real([[first + (1 << 40), size]] + [[a + (1 << 40), n] for a, n in ranges[1:]]),
                     COMMIT, "where no memory was made"),
        "shorter": fill(shorter, "an object of a GPU has"),
        "no dma-buf": fill([(first, size, os.open("/dev/null", os.O_RDWR))] + real(ranges[1:]),
                           "cannot import memory of a GPU"),
        "another GPU": fill(wrong_gpu, "cannot import memory of a GPU"),
        "no descriptor": fill([(first, size, -1)], "not what follows"),
        "too many": fill([], "too many objects", nr=1 << 40),
        "no target": lambda c: (c.fill(target + (1 << 40), real()), "the image has no memory of AMD GPU"),
        "a task": lambda c: (c.fill(32, real()), "the image has no memory of AMD GPU"),
        "no image": fill(real(), "ckfast.idx", dir_fd=os.open("/proc/self/fdinfo", os.O_RDONLY)),
        "no directory": fill(real(), "ckfast.idx", dir_fd=os.open("/dev/null", os.O_RDONLY)),
        "no commit": after(real(), HELLO, "not what follows"),
        "a descriptor": after(real(), COMMIT, "not what follows", fd=dmabuf(size)),
        "without image": lambda c: (c.send(message(FILL_AMD, target)), c.answer())[1:] + ("no fd came along",),
    }


def main():
    path, names = sys.argv[1], sys.argv[2:]
    if names == ["leave"]:
        target, ranges = objects_of(path)
        client = Client(path)
        assert client.fill(target, [(a, n, dmabuf(n)) for a, n in ranges]) == "ACCEPTED"
        client.send(message(COMMIT))
        while not any(t["done_bytes"] for t in Client(path).status()["transfers"]):
            pass
        return
    known = cases(path)
    for name in names or known:
        client = Client(path)
        got, want = known[name](client)
        assert want in got, f"{name}: {got}, want {want}"
        # gpud goes on with this client, or has closed the connection, and with all others.
        other = Client(path)
        other.send(message(AMD_GPUS))
        assert other.answer() == "DONE" and other.arg == 2, name
    print(len(names or known))


main()

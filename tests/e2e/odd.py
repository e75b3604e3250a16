# SPDX-License-Identifier: MIT
"""odd.py THING PROGRAM ARGS…: opens THING and becomes PROGRAM, which keeps its descriptor.

With stay- before THING the program is a child of this process, which has THING itself. Ends with
code 77 where the kernel has no such thing.
"""
import ctypes
import errno
import fcntl
import mmap
import os
import select
import signal
import socket
import struct
import sys
import tempfile

libc = ctypes.CDLL(None, use_errno=True)
SYS_perf_event_open, SYS_userfaultfd, SYS_io_uring_setup = 298, 323, 425
UFFDIO_API = 0xC018AA3F
kept = []


def map_shared(fd, size):
    """mmap.mmap() would keep a descriptor of its own."""
    libc.mmap.restype = ctypes.c_void_p
    addr = libc.mmap(None, ctypes.c_size_t(size), mmap.PROT_READ, mmap.MAP_SHARED, fd, ctypes.c_long(0))
    if addr == ctypes.c_void_p(-1).value:
        raise OSError(ctypes.get_errno(), "mmap")
    os.close(fd)


def syscall(number, *args):
    fd = libc.syscall(number, *args)
    if fd < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return fd


def uring():
    return syscall(SYS_io_uring_setup, 8, ctypes.create_string_buffer(120))


def uring_mapped():
    map_shared(uring(), mmap.PAGESIZE)


def perf():
    attr = ctypes.create_string_buffer(struct.pack("IIQ", 1, 112, 0), 112)  # software, CPU clock
    return syscall(SYS_perf_event_open, attr, 0, -1, -1, 0)


def userfault():
    fd = syscall(SYS_userfaultfd, os.O_CLOEXEC | 1)
    fcntl.ioctl(fd, UFFDIO_API, bytearray(struct.pack("QQQ", 0xAA, 0, 0)))
    return fd


def device():
    return os.open("/dev/fuse", os.O_RDWR)


def family():
    return socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM).detach()


def connected():
    with socket.create_server(("127.0.0.1", 0)) as server:
        kept.append(socket.create_connection(server.getsockname()))
        kept.append(server.accept()[0])
        for s in kept:
            os.set_inheritable(s.fileno(), True)
        return kept[0].fileno()


def pending():
    server = socket.create_server(("127.0.0.1", 0))
    kept.append(socket.create_connection(server.getsockname()))
    return server.detach()


def locked():
    fd = os.open("lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(fd, fcntl.LOCK_EX)
    return fd


def ghost():
    fd, name = tempfile.mkstemp(dir=".")
    os.write(fd, os.urandom(3 << 20))
    os.unlink(name)
    return fd


def ghost_mapped():
    map_shared(ghost(), 3 << 20)


def rank(number, file):
    s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    s.bind("\0/tmp/nccl-socket-%d-%s" % (number, file))
    return s.detach()


def rank0():
    return rank(0, "abc")


def rank1():
    return rank(1, "def")


def plain_sockets():
    """Not with CRIU 4.1, which asks them for what new kernels have for others only."""
    kept.extend([socket.create_server(("127.0.0.1", 0)), socket.socket(socket.AF_INET, socket.SOCK_DGRAM),
                 socket.socket(socket.AF_INET6, socket.SOCK_STREAM), socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)])
    for s in kept:
        os.set_inheritable(s.fileno(), True)
    return plain()


def plain():
    """All that CRIU dumps, and that looks a little like what it does not."""
    kept.extend(socket.socketpair())
    for s in kept:
        os.set_inheritable(s.fileno(), True)
    small, name = tempfile.mkstemp(dir=".")
    os.write(small, b"x" * 100000)
    os.unlink(name)
    big = os.memfd_create("big")
    os.write(big, os.urandom(3 << 20))
    pair = os.pipe()
    epoll = select.epoll()
    epoll.register(pair[0])
    poll_fd = os.dup(epoll.fileno())
    fds = [small, big, *pair, poll_fd, os.open("/dev/null", os.O_RDWR), os.open("/dev/urandom", os.O_RDONLY),
           libc.eventfd(0, 0), libc.timerfd_create(1, 0), libc.inotify_init(),
           os.open("/proc/self/ns/net", os.O_RDONLY), os.open(".", os.O_RDONLY)]
    for fd in fds:
        os.set_inheritable(fd, True)
    return small


def main():
    thing, program = sys.argv[1], sys.argv[2:]
    stay = thing.startswith("stay-")
    try:
        fd = globals()[thing.removeprefix("stay-").replace("-", "_")]()
    except OSError as e:
        if e.errno in (errno.ENOSYS, errno.EPERM, errno.EACCES, errno.ENOENT, errno.ENODEV, errno.EAFNOSUPPORT):
            sys.exit(77)
        raise
    if stay:
        pid = os.spawnvp(os.P_NOWAIT, program[0], program)
        with open("child", "w") as f:
            f.write(str(pid))
        while True:
            signal.pause()
    if fd is not None:
        os.set_inheritable(fd, True)
    os.execvp(program[0], program)


main()

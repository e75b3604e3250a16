# SPDX-License-Identifier: MIT
"""family.py: a process with children of all kinds, whose memory they share: in its session and group, in
groups and sessions of their own, whose leader is gone, stopped, dead, with its descriptors, with threads, and
with children of their own. One among them has much memory, which its child shares; its id is in the file large."""

import ctypes
import os
import signal
import threading
import time

PR_SET_CHILD_SUBREAPER = 36
SYS_CLONE = 56  # of x86-64
CLONE_FILES = 0x400
PLAIN = 9
LARGE_BYTES = 32 << 20
libc = ctypes.CDLL(None)
MEMORY = os.urandom(8 << 20)
ready_read, ready_write = os.pipe()


def wait():
    while True:
        signal.pause()


def tell():
    os.write(ready_write, b".")


def child(make):
    """Forks one that calls make() and waits for ever, and waits until it has come so far."""
    pid = os.fork()
    if pid == 0:
        make()
        tell()
        wait()
    os.read(ready_read, 1)
    return pid


def with_children():
    os.setpgid(0, 0)
    for _ in range(5):
        child(lambda: None)


def session():
    os.setsid()
    child(lambda: None)
    child(lambda: os.setpgid(0, 0))


def orphan():
    """In a session whose leader ends: its parent is then the root, which is a subreaper."""
    leader = os.fork()
    if leader == 0:
        os.setsid()
        child(lambda: None)
        os._exit(0)
    os.waitpid(leader, 0)


def same_files():
    if libc.syscall(SYS_CLONE, CLONE_FILES | signal.SIGCHLD, 0, 0, 0, 0) == 0:
        tell()
        wait()
    os.read(ready_read, 1)


def threads():
    """Each of which blocks another signal."""
    for nr in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP):
        signal.pthread_sigmask(signal.SIG_SETMASK, [nr])
        threading.Thread(target=wait, daemon=True).start()


def large():
    global MEMORY
    MEMORY = os.urandom(LARGE_BYTES)
    child(lambda: None)


def main():
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    for _ in range(PLAIN):
        child(lambda: None)
    with open("large", "w", encoding="ascii") as out:
        out.write(f"{child(large)}\n")
    for _ in range(PLAIN):
        child(lambda: None)
    leader = child(lambda: os.setpgid(0, 0))
    child(lambda: os.setpgid(0, leader))
    child(with_children)
    child(session)
    same_files()
    orphan()
    child(session)
    child(threads)
    stopped = child(lambda: None)
    os.kill(stopped, signal.SIGSTOP)
    os.waitpid(stopped, os.WUNTRACED)
    dead = child(lambda: None)
    os.kill(dead, signal.SIGKILL)
    os.waitid(os.P_PID, dead, os.WEXITED | os.WNOWAIT)
    time.sleep(0.1)
    with open("ready", "w", encoding="ascii"):
        pass
    wait()


main()

#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Dumps a process with criu, converts the dump with ckfast, restores the process and asks it for its memory."""

import hashlib
import os
import signal
import subprocess
import sys
import tempfile
import time

BYTES = 8 << 20


def child(report):
    """Writes the checksum of its memory to the file on each SIGUSR1."""
    data = os.urandom(BYTES)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    open(report + ".ready", "w").close()
    while True:
        signal.sigwait([signal.SIGUSR1])
        with open(report + ".new", "w") as f:
            f.write(hashlib.sha256(data).hexdigest())
        os.rename(report + ".new", report)


def wait_for(what, condition):
    for _ in range(400):
        if condition():
            return
        time.sleep(0.05)
    sys.exit("timeout: " + what)


def checksum(pid, report):
    if os.path.exists(report):
        os.remove(report)
    os.kill(pid, signal.SIGUSR1)
    wait_for("the process does not answer", lambda: os.path.exists(report))
    with open(report) as f:
        return f.read()


def run(*args):
    done = subprocess.run(args, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        sys.exit("%s: exit code %d\n%s" % (" ".join(args), done.returncode, done.stdout))


def main():
    work = tempfile.mkdtemp(dir="/root")
    report = work + "/report"
    null = subprocess.DEVNULL
    process = subprocess.Popen([sys.executable, __file__, report], start_new_session=True, stdin=null, stdout=null,
                               stderr=null)
    wait_for("the process does not start", lambda: os.path.exists(report + ".ready"))
    before = checksum(process.pid, report)
    os.mkdir(work + "/dump")
    run("criu", "dump", "-t", str(process.pid), "-D", work + "/dump")
    process.wait()
    run("ckfast", "convert", "-q", work + "/dump", work + "/fast")
    run("ckfast", "verify", "-q", work + "/fast")
    run("criu", "restore", "-d", "--fast-image", "-D", work + "/fast")
    after = checksum(process.pid, report)
    os.kill(process.pid, signal.SIGKILL)
    if before != after:
        sys.exit("the memory of the restored process is another")
    run("crit", "show", work + "/dump/pstree.img")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        child(sys.argv[1])
    else:
        main()

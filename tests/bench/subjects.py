# SPDX-License-Identifier: MIT
"""What the matrix restores: processes with memory of one kind, and real servers. Each can be started,
asked whether all of it is there, and stopped, as it was started or as it was restored."""

import hashlib
import os
import shutil
import signal
import socket
import subprocess
import time

from harness import HERE, Failure, Program, is_gone, output, tail, wait_until

TINY_KIB = 64


class Memory:
    """bench_mem: one process, eight with an eighth each, or a thousand tiny ones."""

    def __init__(self, bench, data, shape, mib):
        self.dump_options = []
        self.data = data
        self.shape = shape
        self.mib = mib
        self.procs = {"one": 1, "eight": 8, "thousand": 1000}[shape]
        self.program = Program(bench.tools, bench.work, self.procs)

    def start(self):
        kind, size = {"one": ("anon", str(self.mib)), "eight": ("tasks", str(max(self.mib // 8, 1))),
                      "thousand": ("tasks", f"{TINY_KIB}K")}[self.shape]
        self.program.start(kind, size, self.data)

    @property
    def pids(self):
        return self.program.pids

    def check(self):
        self.program.ask("check", together=True)

    def stop(self):
        self.program.stop()


def children(pid):
    """All below a process, itself first."""
    found = [pid]
    for at in found:
        try:
            for task in os.listdir(f"/proc/{at}/task"):
                with open(f"/proc/{at}/task/{task}/children", encoding="ascii") as f:
                    found += map(int, f.read().split())
        except OSError:
            pass
    return found


class Server:
    """A real program with a heap of its own. It is asked over a socket in its working directory."""

    dump_options = []
    needs = ()  # programs

    def __init__(self, bench, mib):
        self.bench = bench
        self.mib = mib
        self.root = None
        self.tree = []  # as it was dumped: its parts are orphans when the root is gone
        self.answer = None
        self.dir = os.path.join(bench.work, type(self).__name__.lower())
        for name in self.needs:
            if not shutil.which(name, path=os.environ["PATH"] + ":/usr/lib/postgresql/15/bin"):
                raise Failure(f"{name} is not installed")

    @property
    def pids(self):
        return list(dict.fromkeys([*children(self.root), *self.tree])) if self.root else []

    def argv(self):
        raise NotImplementedError

    def ask(self):
        """What it answers; OSError or Failure where it does not yet."""
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(60)
            s.connect(os.path.join(self.dir, "socket"))
            return s.makefile().readline()

    def start(self):
        shutil.rmtree(self.dir, ignore_errors=True)
        os.makedirs(self.dir)
        self.prepare()
        log = os.path.join(self.dir, "output")
        with open(log, "wb") as out:
            child = subprocess.Popen(self.argv(), cwd=self.dir, stdin=subprocess.DEVNULL,
                                     stdout=out, stderr=out, start_new_session=True)
        self.root = child.pid

        def is_ready():
            if child.poll() is not None:
                raise Failure(f"{self.argv()}: exit status {child.returncode}: {tail(log)}")
            try:
                return self.ask()
            except (OSError, Failure):
                time.sleep(0.1)
                return None

        wait_until(f"{self.argv()} is not ready", is_ready, 180)
        child.returncode = 0  # is_gone() waits for it
        self.fill()
        self.answer = self.ask()
        self.tree = children(self.root)

    def prepare(self):
        """What has to be there before it starts."""

    def fill(self):
        """What has to be done when it runs."""

    def check(self):
        got = self.ask()
        if got != self.answer:
            raise Failure(f"{type(self).__name__}: {got!r} in place of {self.answer!r}")

    def stop(self):
        pids = self.pids
        # All at once: a part that sees the root gone would remove files that the dump refers to.
        for signum in (signal.SIGSTOP, signal.SIGKILL):
            for pid in pids:
                try:
                    os.kill(pid, signum)
                except ProcessLookupError:
                    pass
        for pid in pids:
            wait_until(f"process {pid} stays", lambda p=pid: is_gone(p), 60)


class Python(Server):
    needs = ("python3",)

    def argv(self):
        return ["/usr/bin/python3", os.path.join(HERE, "servers", "heap.py"), str(self.mib), "socket"]


class Node(Server):
    needs = ("node",)

    def argv(self):
        return ["node", f"--max-old-space-size={self.mib * 4}",
                os.path.join(HERE, "servers", "heap.js"), str(self.mib), "socket"]


class Jvm(Server):
    needs = ("java", "javac")

    def prepare(self):
        output(["javac", "-d", self.dir, os.path.join(HERE, "servers", "Heap.java")])

    def argv(self):
        return ["java", f"-Xmx{self.mib * 3}m", "-cp", self.dir, "Heap", str(self.mib), "socket"]


class Redis(Server):
    needs = ("redis-server", "redis-cli")

    def argv(self):
        return ["redis-server", "--port", "0", "--unixsocket", "socket", "--save", "",
                "--enable-debug-command", "yes"]

    def cli(self, *words):
        return output(["redis-cli", "-s", os.path.join(self.dir, "socket"), *words]).strip()

    def fill(self):
        self.cli("debug", "populate", str(self.mib * 900), "key", "1000")

    def ask(self):
        return self.cli("debug", "digest")


class Postgres(Server):
    """In an IPC namespace of its own, as in a container: it keeps a segment of System V there."""

    needs = ("initdb", "psql", "unshare", "cc")
    bin = "/usr/lib/postgresql/15/bin"

    def preloaded(self):
        return ["env", f"LD_PRELOAD={self.dir}/notroot.so"]

    def prepare(self):
        output(["cc", "-shared", "-fPIC", "-o", os.path.join(self.dir, "notroot.so"),
                os.path.join(HERE, "servers", "notroot.c")])
        data = os.path.join(self.dir, "data")
        os.mkdir(data)
        os.chown(data, 1, 1)
        output([*self.preloaded(), f"{self.bin}/initdb", "-N", "-A", "trust", "-U", "postgres", "-D", data])

    def argv(self):
        return ["unshare", "--ipc", *self.preloaded(), f"{self.bin}/postgres", "-D", "data", "-k",
                self.dir, "-h", "", "-F", "-c", f"shared_buffers={self.mib}MB", "-c",
                "autovacuum=off"]

    def sql(self, text):
        return output(["psql", "-h", self.dir, "-U", "postgres", "-Atc", text])

    def fill(self):
        self.sql("create table t as select i, md5(i::text) as word, repeat('x', 100) as room "
                 f"from generate_series(1, {self.mib * 4000}) i")

    def ask(self):
        if "t" not in self.sql("select tablename from pg_tables where tablename = 't'"):
            return "empty"
        return hashlib.sha256(self.sql("select count(*), sum(hashtext(word)) from t").encode()).hexdigest()


SERVERS = {"redis": Redis, "postgres": Postgres, "jvm": Jvm, "node": Node, "python": Python}


def make(bench, data, shape, mib):
    return SERVERS[data](bench, mib) if data in SERVERS else Memory(bench, data, shape, mib)

# SPDX-License-Identifier: MIT
"""tcp.py DIR: both ends of a TCP connection, which carries bytes each time that it is asked."""

import os
import signal
import socket
import sys


def write(directory, name, text):
    path = os.path.join(directory, name)
    with open(path + ".tmp", "w", encoding="ascii") as out:
        out.write(text + "\n")
    os.rename(path + ".tmp", path)


def main():
    directory = sys.argv[1]
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    server = socket.create_server(("127.0.0.1", 0))
    one = socket.create_connection(server.getsockname())
    other = server.accept()[0]
    server.close()
    other.settimeout(10)
    write(directory, "ready", "ready")
    count = 0
    while True:
        signal.sigwait({signal.SIGUSR1})
        count += 1
        sent = b"%d" % count
        one.sendall(sent)
        try:
            got = other.recv(64)
        except OSError as e:
            got = str(e).encode()
        write(directory, "report", "OK" if got == sent else f"BAD {got!r}")


main()

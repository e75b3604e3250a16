# SPDX-License-Identifier: MIT
"""heap.py MIB SOCKET: a heap of small objects; says its sum to whoever connects."""

import socket
import sys
import zlib


def main():
    heap = {i: {"word": f"word {i * 7919}", "pair": (i, i + 1)} for i in range(int(sys.argv[1]) * 2400)}
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(sys.argv[2])
        server.listen()
        while True:
            client = server.accept()[0]
            with client:
                value = 0
                for key, entry in heap.items():
                    value = zlib.crc32(entry["word"].encode(), value ^ key ^ entry["pair"][1])
                client.sendall(f"{value}\n".encode())


main()

#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""A service manager for one service: what systemd does with NOTIFY_SOCKET and LISTEN_FDS.

manager.py [--notify PATH|@NAME] [--deaf] [--listen PATH] [--stream] [--fds N] [--pid PID] COMMAND...

Starts the command, and prints a line for each line that it notifies, then its exit code. --listen
passes a socket that listens at PATH as descriptor 3, and closes it when the command has ended.
--deaf reads no notification, and has a queue that is full. --fds and --pid say something else than
the truth.
"""
import argparse
import os
import selectors
import socket

args = argparse.ArgumentParser()
args.add_argument('--notify')
args.add_argument('--deaf', action='store_true')
args.add_argument('--listen')
args.add_argument('--stream', action='store_true')
args.add_argument('--fds', default='1')
args.add_argument('--pid')
args.add_argument('command', nargs=argparse.REMAINDER)
args = args.parse_args()

notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
if args.notify:
    address = args.notify.replace('@', '\0', 1)
    notify.bind(address)
    os.environ['NOTIFY_SOCKET'] = args.notify
    if args.deaf:
        filler = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        filler.setblocking(False)
        try:
            while True:
                filler.sendto(b'STATUS=full', address)
        except BlockingIOError:
            pass

listen = None
if args.listen:
    listen = socket.socket(socket.AF_UNIX,
                           socket.SOCK_STREAM if args.stream else socket.SOCK_SEQPACKET)
    listen.bind(args.listen)
    listen.listen(64)

pid = os.fork()
if not pid:
    if listen:
        os.environ['LISTEN_PID'] = args.pid or str(os.getpid())
        os.environ['LISTEN_FDS'] = args.fds
        if listen.fileno() == 3:
            os.set_inheritable(3, True)
        else:
            os.dup2(listen.fileno(), 3)
    os.execvp(args.command[0], args.command)

ended = os.pidfd_open(pid)
poll = selectors.DefaultSelector()
poll.register(ended, selectors.EVENT_READ)
if not args.deaf:
    poll.register(notify, selectors.EVENT_READ)
alive = True
while alive:
    ready = [key.fileobj for key, _ in poll.select()]
    if notify in ready:
        for line in notify.recv(4096).decode().split('\n'):
            print(line, flush=True)
    alive = notify in ready or ended not in ready
print('exit', os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)

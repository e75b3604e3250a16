# SPDX-License-Identifier: MIT
"""ranks.py DIR RANKS GIB collectives|server: a process for each rank, each with a GPU of its own (the
GPUs in turn, if there are fewer), that talk by NCCL and have GIB of random memory each.

collectives: two communicators; an all-reduce, an all-gather, a ring of send and receive, and an
    all-reduce that a CUDA graph has captured.
server: layers whose matrices are split by columns and rows, with an all-reduce after each pair, and
    HTTP in front of rank 0: it generates tokens for each GET on 127.0.0.1:PORT, PORT in DIR/port.

Each rank writes DIR/pidN and DIR/readyN. Whenever DIR/goN turns up a rank of collectives takes its
text as a name, does all of this again together with the others, which are to be asked, too, and
writes DIR/out-NAME-N: whether all was right and the same bits as at first, and when the result was
there (seconds since the epoch). The server answers the same, with the time of its first token; a GET
of /check looks at all memory, too. With RANKS_DEVICE=cpu it all works by gloo and without a GPU, to
try the program itself."""
import http.server
import json
import os
import socket
import subprocess
import sys
import threading
import time

import torch
import torch.distributed as dist

from watched import checksum, write

CPU = os.environ.get('RANKS_DEVICE') == 'cpu'
WORDS = (1 << 20) + 24  # of a collective; not a power of two
ROUNDS = 3
LAYER_HIDDEN = 64 if CPU else 8192
TOKENS = 8


def free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]


class Rank:
    """What both kinds of programs have: the communicator, the memory, and the loop that is asked."""

    def __init__(self, where, rank, ranks, gib, lines):
        self.where, self.rank, self.ranks, self.lines = where, rank, ranks, lines
        if CPU:
            self.device = torch.device('cpu')
        else:
            self.device = torch.device('cuda', rank % torch.cuda.device_count())
            torch.cuda.set_device(self.device)
        dist.init_process_group('gloo' if CPU else 'nccl', rank=rank, world_size=ranks,
                                init_method=f"tcp://127.0.0.1:{os.environ['RANKS_PORT']}")
        self.random = torch.Generator(self.device).manual_seed(rank + 1)
        self.memory = self.make_memory(gib)
        self.first = self.work()
        assert not isinstance(self.first, str), self.first
        self.sum = checksum(self.memory)

    def sync(self):
        if not CPU:
            torch.cuda.synchronize()

    def tensor(self, *shape, std=1.0):
        out = torch.empty(shape, device=self.device, dtype=torch.bfloat16)
        return out.normal_(std=std, generator=self.random)

    def tell(self, name):
        first = self.work()
        at = time.time()
        why = 'different bits' if first != self.first else ''
        if not why and checksum(self.memory) != self.sum:
            why = 'memory has changed'
        write(f'{self.where}/out-{name}-{self.rank}', {'right': not why, 'why': why, 'at': at})

    def loop(self):
        go = f'{self.where}/go{self.rank}'
        while True:
            while not os.path.exists(go):
                time.sleep(0.002)
            with open(go, encoding='utf-8') as f:
                name = f.read().strip()
            os.unlink(go)
            self.tell(name)

    def ready(self):
        if not CPU:
            torch.cuda.empty_cache()
        self.sync()
        write(f'{self.where}/ready{self.rank}', {
            'gib': sum(t.numel() * t.element_size() for t in self.memory) / 2 ** 30})


class Collectives(Rank):
    def make_memory(self, gib):
        self.second = dist.new_group(list(range(self.ranks)))
        self.graph_in = torch.zeros(WORDS, device=self.device)
        self.graph_out = torch.zeros_like(self.graph_in)
        self.graph = None
        for group in (None, self.second):  # the communicators are made by their first use
            dist.all_reduce(self.graph_out, group=group)
        self.sync()
        if not CPU:
            self.capture()
        words = int(gib * 2 ** 30) // 2
        return [self.tensor(words)]

    def in_graph(self):
        self.graph_out.copy_(self.graph_in)
        dist.all_reduce(self.graph_out)
        self.graph_out.mul_(0.5)

    def capture(self):
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            self.in_graph()
        torch.cuda.current_stream().wait_stream(side)
        self.sync()
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph, capture_error_mode='thread_local'):
            self.in_graph()

    def inputs(self, turn):
        """What each rank gives: all ranks know it."""
        made = []
        for rank in range(self.ranks):
            seed = torch.Generator(self.device).manual_seed(1000 * turn + rank)
            made.append(torch.randn(WORDS, device=self.device, generator=seed))
        return made

    def ring(self, mine):
        came = torch.empty_like(mine)
        after, before = (self.rank + 1) % self.ranks, (self.rank - 1) % self.ranks
        for request in dist.batch_isend_irecv([dist.P2POp(dist.isend, mine, after),
                                               dist.P2POp(dist.irecv, came, before)]):
            request.wait()
        return came

    def turn(self, turn):
        inputs = self.inputs(turn)
        mine, wanted = inputs[self.rank], sum(inputs)
        total, most = mine.clone(), mine.clone()
        dist.all_reduce(total)
        dist.all_reduce(most, op=dist.ReduceOp.MAX, group=self.second)
        gathered = [torch.empty_like(mine) for _ in inputs]
        dist.all_gather(gathered, mine)
        came = self.ring(mine) if self.ranks > 1 else mine
        self.graph_in.copy_(mine)
        if self.graph:
            self.graph.replay()
        else:
            self.in_graph()
        half = self.graph_out.clone()
        self.sync()
        assert torch.allclose(total, wanted, atol=1e-5), f'turn {turn}: all-reduce'
        assert torch.equal(most, torch.stack(inputs).max(0).values), f'turn {turn}: second'
        assert all(torch.equal(a, b) for a, b in zip(gathered, inputs)), f'turn {turn}: all-gather'
        assert torch.equal(came, inputs[(self.rank - 1) % self.ranks]), f'turn {turn}: receive'
        assert torch.allclose(half, wanted * 0.5, atol=1e-5), f'turn {turn}: graph'
        return checksum([total, most, came, half] + gathered)

    def work(self):
        """The bits of all results; a result that is wrong is told by the turn that had it."""
        try:
            return [self.turn(turn) for turn in range(ROUNDS)]
        except AssertionError as e:
            return str(e)


class Server(Rank):
    def make_memory(self, gib):
        hidden, part = LAYER_HIDDEN, 4 * LAYER_HIDDEN // self.ranks
        layers = max(1, int(gib * 2 ** 30) // (2 * 2 * hidden * part))
        self.columns = [self.tensor(hidden, part, std=hidden ** -0.5) for _ in range(layers)]
        self.rows = [self.tensor(part, hidden, std=hidden ** -0.5) for _ in range(layers)]
        same = torch.Generator(self.device).manual_seed(7)
        self.words = torch.empty((4096, hidden), device=self.device, dtype=torch.bfloat16)
        self.words.normal_(generator=same)
        return self.columns + self.rows + [self.words]

    def generate(self):
        token, tokens, first = 1, [], 0.0
        with torch.no_grad():
            for i in range(TOKENS):
                x = self.words[token + i].reshape(1, -1)
                for column, row in zip(self.columns, self.rows):
                    part = (torch.relu(x @ column) @ row).float()
                    dist.all_reduce(part)
                    x = torch.nn.functional.normalize(x + part.to(x.dtype), dim=-1)
                    x *= LAYER_HIDDEN ** 0.5
                token = int((x @ self.words.t()).argmax().item()) % (4096 - TOKENS)
                tokens.append(token)
                first = first or time.time()
        return tokens, first

    def work(self):
        return self.generate()[0]

    def ready(self):
        if self.rank == 0:
            self.serve()
        else:
            threading.Thread(target=self.follow, daemon=True).start()
        super().ready()

    def follow(self):
        """Does what rank 0 says: generates, or looks at the memory and tells."""
        if not CPU:
            torch.cuda.set_device(self.device)
        while word := self.lines[0].recv(1):
            if word == b'g':
                self.generate()
            else:
                self.lines[0].send(b'y' if checksum(self.memory) == self.sum else b'n')

    def answer(self, check):
        for line in self.lines:
            line.send(b'g')
        tokens, first = self.generate()
        why = '' if tokens == self.first else str(tokens)
        if check:
            for line in self.lines:
                line.send(b'c')
            right = [checksum(self.memory) == self.sum] + [x.recv(1) == b'y' for x in self.lines]
            why = why or ('' if all(right) else 'memory has changed')
        return {'right': not why, 'why': why, 'at': first}

    def serve(self):
        rank = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                body = json.dumps(rank.answer(self.path == '/check')).encode()
                self.send_response(200)
                self.send_header('Content-Length', str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format, *args):
                pass

        server = http.server.HTTPServer(('127.0.0.1', 0), Handler)
        write(f'{self.where}/port', server.server_address[1])
        threading.Thread(target=server.serve_forever, daemon=True).start()

    def loop(self):
        threading.Event().wait()


def start_ranks(where, ranks):
    """The ranks, and lines from the first to each of the others."""
    pairs = [socket.socketpair() for _ in range(ranks - 1)]
    env = {**os.environ, 'RANKS_PORT': str(free_port())}
    children = []
    for rank in range(ranks):
        lines = [a.fileno() for a, _ in pairs] if rank == 0 else [pairs[rank - 1][1].fileno()]
        children.append(subprocess.Popen(
            [sys.executable, '-B'] + sys.argv, pass_fds=lines,
            env={**env, 'RANKS_RANK': str(rank), 'RANKS_LINES': ' '.join(map(str, lines))}))
    for pair in pairs:
        for end in pair:
            end.close()
    for rank, child in enumerate(children):
        write(f'{where}/pid{rank}', child.pid)
    return max(child.wait() for child in children)


def main():
    where, ranks, gib, kind = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), sys.argv[4]
    if 'RANKS_RANK' not in os.environ:
        sys.exit(start_ranks(where, ranks))
    lines = [socket.socket(fileno=int(fd)) for fd in os.environ['RANKS_LINES'].split()]
    made = {'collectives': Collectives, 'server': Server}[kind](
        where, int(os.environ['RANKS_RANK']), ranks, gib, lines)
    made.ready()
    made.loop()


main()

# SPDX-License-Identifier: MIT
"""swrk.py CRIU PROTO_DIR IMAGES_DIR LOG [FIELD=VALUE...]: asks `criu swrk` to restore, or with a
FIELD pid, to dump that process.

PROTO_DIR holds rpc_pb2.py, generated from the tree that CRIU was built from. Prints the pid of the
restored process, or the one dumped. FIELDs are those of criu_opts.
"""

import os
import socket
import subprocess
import sys

criu, proto_dir, images_dir, log, *fields = sys.argv[1:]
sys.path.insert(0, proto_dir)
import rpc_pb2  # noqa: E402  (generated, known only now)

ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
theirs.set_inheritable(True)
server = subprocess.Popen([criu, "swrk", str(theirs.fileno())], pass_fds=[theirs.fileno()])
theirs.close()

request = rpc_pb2.criu_req()
request.type = rpc_pb2.RESTORE
request.opts.images_dir_fd = os.open(images_dir, os.O_DIRECTORY)
request.opts.work_dir_fd = os.open(os.path.dirname(log), os.O_DIRECTORY)
# The descriptors are looked up in /proc of the one who asks.
request.opts.log_file = os.path.basename(log)
request.opts.log_level = 4
for field in fields:
    name, value = field.split("=")
    if value.isdigit():
        setattr(request.opts, name, int(value))
    else:
        setattr(request.opts, name, {"true": True, "false": False}.get(value, value))
if request.opts.HasField("pid"):
    request.type = rpc_pb2.DUMP
ours.send(request.SerializeToString())
answer = rpc_pb2.criu_resp()
answer.ParseFromString(ours.recv(1 << 16))
ours.close()
server.wait()
if not answer.success:
    sys.exit(f"criu failed: {answer.cr_errmsg}")
print(request.opts.pid or answer.restore.pid)

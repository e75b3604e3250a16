#!/bin/bash
# SPDX-License-Identifier: MIT
# System V shared memory, with the IPC namespace that CRIU wants around it.
. "$(dirname "$0")/lib.sh"

unshare --ipc true 2>/dev/null || skip "no IPC namespaces here"
each_version roundtrip "$PROGS/mixed" . sysv

#!/bin/bash
# SPDX-License-Identifier: MIT
#
# crun, which runs the criu that it finds by way of libcriu, restores containers from fast images.
. "$(dirname "$0")/lib.sh"
. "$ROOT/tests/e2e/bundle.sh"

need_programs crun
crun --version | grep -qw +CRIU || skip "crun is built without CRIU"
# crun does without hybrid cgroups; nobody else sees that they are off.
umount /sys/fs/cgroup/unified 2>/dev/null || true
# CRIU does not find again what crun 1.28 mounts over masked directories, and cannot put back hybrid
# cgroups: crun makes them anew. It is the same with stock CRIU and a dump.
export NOTHING_MASKED=1
test_runtime crun --manage-cgroups-mode=ignore

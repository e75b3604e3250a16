#!/bin/bash
# SPDX-License-Identifier: MIT
#
# crun, which runs the criu that it finds by way of libcriu, restores containers from fast images.
. "$(dirname "$0")/lib.sh"
. "$ROOT/tests/e2e/bundle.sh"

need_programs crun
crun --version | grep -qw +CRIU || skip "crun is built without CRIU"
test_runtime crun

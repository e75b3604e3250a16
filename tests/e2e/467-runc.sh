#!/bin/bash
# SPDX-License-Identifier: MIT
#
# runc restores containers from fast images: it runs the criu that it finds.
. "$(dirname "$0")/lib.sh"
. "$ROOT/tests/e2e/bundle.sh"

need_programs runc
test_runtime runc

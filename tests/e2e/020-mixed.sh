#!/bin/bash
# SPDX-License-Identifier: MIT
# Private, shared, memfd and file memory, read-only, locked and inaccessible areas, 8 threads.
. "$(dirname "$0")/lib.sh"

every_version
each_version roundtrip "$PROGS/mixed" .

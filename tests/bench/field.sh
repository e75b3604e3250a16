#!/bin/bash
# SPDX-License-Identifier: MIT
# field.sh: field.py with the servers that it restores. Where they cannot be installed it says so, and their
# cells are left out.
set -euo pipefail
cd "$(dirname "$0")/../.."
scripts/deps.sh servers || echo "field: without some of the servers" >&2
exec /usr/bin/python3 -B tests/bench/field.py "$@"

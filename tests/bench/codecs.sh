#!/bin/bash
# SPDX-License-Identifier: MIT
#
# codecs.sh: the same dumps stored in several ways; codecs.py says what is measured and can be set.
set -euo pipefail
cd "$(dirname "$0")/../.."
/usr/bin/python3 -B tests/bench/codecs.py "$@"

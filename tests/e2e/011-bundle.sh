#!/bin/bash
# SPDX-License-Identifier: MIT
# The bundle for measuring on other machines: all that is in it starts, with nothing but what is in it.
. "$(dirname "$0")/lib.sh"
need_ckfast
for name in "$BUILD/bin/criu-stock" "$BUILD/stub/cushare"; do
	[ -x "$name" ] || skip "no $name (make criu stub)"
done

"$ROOT/scripts/bundle.sh" >bundle.log 2>&1 || fail "no bundle: $(cat bundle.log)"
cp -r "$BUILD/bundle" there
for name in ckfast criu criu-stock; do
	env -i "there/bin/$name" --version >version || fail "$name does not start from a copy"
done
status=0
env -i there/progs/stages >usage 2>&1 || status=$?
grep -q ^usage: usage || fail "progs/stages does not start: $status, $(cat usage)"
for script in there/gpu/*.py there/bench/*.py; do
	"$PYTHON" -c 'import ast, sys; ast.parse(open(sys.argv[1]).read())' "$script" || fail "$script"
done

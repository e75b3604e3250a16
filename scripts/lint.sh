#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Holds the layout rules: formatting, licence lines, sizes of files, and who may include whom.
set -uo pipefail
cd "$(dirname "$0")/.."

bad=0
complain() {
	echo "lint: $*" >&2
	bad=1
}

dirs=(format loader gpu agent convert cli tests)
mapfile -t sources < <(find "${dirs[@]}" -name '*.[ch]' | sort)
mapfile -t plugins < <(find criu-patch/plugin -name '*.[ch]' | sort)
mapfile -t scripts < <(find scripts tests .ci -name '*.sh' -o -path '.ci/run' | sort)
mapfile -t pythons < <(find tests -name '*.py' | sort)

"${CLANG_FORMAT:-clang-format-14}" --dry-run -Werror "${sources[@]}" "${plugins[@]}" ||
	complain "clang-format -i puts the format right"

for f in "${sources[@]}" "${scripts[@]}" "${pythons[@]}" Makefile; do
	head -n 3 "$f" | grep -q 'SPDX-License-Identifier: MIT' || complain "$f: no licence line"
	if grep -nE '[[:space:]]+$' "$f"; then
		complain "$f: space at the end of lines"
	fi
done
for f in "${sources[@]}"; do
	lines=$(wc -l <"$f")
	[ "$lines" -le 800 ] || complain "$f: $lines lines, more than 800"
done
while read -r f; do
	grep -q 'SPDX-License-Identifier: GPL-2.0-only' "$f" || complain "$f: not GPL-2.0-only"
done < <(find criu-patch -name '*.[ch]')

for f in "${scripts[@]}"; do
	bash -n "$f" || complain "$f: syntax"
done
for f in "${pythons[@]}"; do
	/usr/bin/python3 -c 'import ast, sys; ast.parse(open(sys.argv[1]).read(), sys.argv[1])' "$f" ||
		complain "$f: syntax"
done

# may_include DIR ALLOWED…: headers of other directories that files in DIR include. The loader knows
# GPUs only through the interface of their backends.
may_include() {
	local dir=$1 allowed=" $* " other hits
	for other in format loader gpu agent convert cli tests criu-patch; do
		case $allowed in *" $other "*) continue ;; esac
		hits=$(grep -nE "#include \"(\.\./)*$other/" "$dir"/*.[ch] 2>/dev/null |
			grep -v '^loader/.*"\.\./gpu/ckf_sink\.h"') &&
			complain "$dir/ must not include $other/: $hits"
	done
}

may_include format
may_include loader format
may_include gpu format loader
may_include agent format loader gpu
may_include convert format loader
may_include cli format loader gpu convert

# format/ is pure: no files, no threads, no printing. Asking for huge pages is none of it.
if grep -nE '#include <(fcntl|unistd|pthread|sys/(stat|mman|uio)|liburing)\.h>|[^a-z_](printf|fprintf|puts)\(' \
	format/*.[ch] | grep -v '^format/table.c:.*<sys/mman.h>$'; then
	complain "format/ does no input, output or threads"
fi
# Libraries never print.
if grep -nE '[^a-z_](printf|puts|perror|putchar)\(|fprintf\((stderr|stdout)' \
	loader/*.[ch] convert/*.[ch] gpu/*.[ch] 2>/dev/null; then
	complain "only cli/ prints"
fi

# Deadlines are of a clock that nobody sets; pthread_cond_timedwait() has another one unless told.
clocked=(loader/*.[ch] gpu/*.[ch] convert/*.[ch] cli/*.[ch] agent/*.[ch] criu-patch/plugin/*.[ch])
if grep -nE 'CLOCK_REALTIME|gettimeofday\(|[^a-z_]time\(NULL\)' "${clocked[@]}"; then
	complain "deadlines are of CLOCK_MONOTONIC: pthread_cond_clockwait()"
fi
for f in $(grep -lF 'pthread_cond_timedwait(' "${clocked[@]}"); do
	grep -q 'pthread_condattr_setclock(.*CLOCK_MONOTONIC)' "$f" ||
		complain "$f: pthread_cond_timedwait() on CLOCK_REALTIME"
done

exit $bad

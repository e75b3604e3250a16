#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Holds the layout rules: formatting, licence lines, sizes of files, columns of prose, and the
# direction of includes.
set -uo pipefail
cd "$(dirname "$0")/.."

bad=0
complain() {
	echo "lint: $*" >&2
	bad=1
}

rooms=(base format loader convert gpu/cuda gpu/amd gpu/suspend gpu/daemon gpu/agent cli)
mapfile -t sources < <(find include "${rooms[@]}" examples tests -name '*.[ch]' | sort)
mapfile -t ours < <(find include "${rooms[@]}" -name '*.[ch]' | sort)
mapfile -t plugins < <(find criu-patch/plugin -name '*.[ch]' | sort)
mapfile -t scripts < <(find scripts tests .ci -name '*.sh' -o -path '.ci/run' -o -path '*/ckfast-convert-hook' | sort)
mapfile -t pythons < <(find tests -name '*.py' | sort)
mapfile -t prose < <(find . -name '*.md' -not -path './build/*' -not -path './.git/*' | sort)

"${CLANG_FORMAT:-clang-format-14}" --dry-run -Werror "${sources[@]}" "${plugins[@]}" ||
	complain "clang-format -i puts the format right"

# One process for all files, here and below: a process for each takes most of a minute.
hits=$(awk '
	FNR == 1 && FILENAME ~ /\.[ch]$/ && $0 != "/* SPDX-License-Identifier: MIT */" {
		print FILENAME ": the first line is not the licence"
	}
	FNR <= 3 && /SPDX-License-Identifier: MIT/ { licensed[FILENAME] = 1 }
	/[[:space:]]$/ { print FILENAME ":" FNR ": space at the end of the line" }
	{ lines[FILENAME] = FNR }
	END {
		for (i = 1; i < ARGC; i++) {
			if (!(ARGV[i] in licensed))
				print ARGV[i] ": no licence line"
			if (ARGV[i] ~ /\.[ch]$/ && lines[ARGV[i]] > 800)
				print ARGV[i] ": " lines[ARGV[i]] " lines, more than 800"
		}
	}' "${sources[@]}" "${scripts[@]}" "${pythons[@]}" completions/* Makefile)
[ -z "$hits" ] || complain "files:"$'\n'"$hits"
while read -r f; do
	head -n 1 "$f" | grep -q 'SPDX-License-Identifier: GPL-2.0-only' || complain "$f: the first line is not GPL-2.0-only"
done < <(find criu-patch -name '*.[ch]')

for f in "${scripts[@]}"; do
	bash -n "$f" || complain "$f: syntax"
done
/usr/bin/python3 - "${pythons[@]}" <<-'END' || complain "Python that does not parse"
	import ast, sys

	for path in sys.argv[1:]:
	    with open(path, encoding='utf-8') as f:
	        ast.parse(f.read(), path)
END

# Lines of prose end at 100 columns. Tables, code and lines that are a link alone may be longer.
long_lines() {
	/usr/bin/python3 - "$@" <<-'END'
		import re, sys

		LINK = re.compile(r'\s*([-*] )?(!?\[[^]]*\]\(\S+\)|<?https?://\S+)[.,;:]?')
		for path in sys.argv[1:]:
		    fenced, code, before = False, False, ''
		    for number, line in enumerate(open(path, encoding='utf-8'), 1):
		        line = line.rstrip('\n')
		        fence = line.startswith('```')
		        fenced ^= fence
		        code = bool(re.match(r'\t|    ', line)) and (code or not before.strip())
		        before = line
		        if len(line) > 100 and not (fenced or fence or code or line.startswith('|')
		                                    or LINK.fullmatch(line)):
		            print('%s:%d: %d columns' % (path, number, len(line)))
	END
}
hits=$(long_lines "${prose[@]}")
[ -z "$hits" ] || complain "prose ends at 100 columns:"$'\n'"$hits"

# The headers that each file includes by "…".
declare -A includes
while read -r file inc; do
	includes[$file]+="$inc "
done < <(find "${rooms[@]}" criu-patch examples -name '*.[ch]' -exec grep -HE '^[[:space:]]*#[[:space:]]*include[[:space:]]*"' {} + |
	sed 's/^\([^:]*\):[^"]*"\([^"]*\)".*/\1 \2/')

# layer DIR LOWER…: a room includes headers of its own, and of lower rooms those that are made for others.
layer() {
	local dir=$1 file inc
	shift
	for file in "$dir"/*.[ch]; do
		for inc in ${includes[$file]:-}; do
			case $inc in
			ckfast.h | ckfast_needs.h | ckfast_sink.h) ;;
			*.pb-c.h) [ "$dir" = convert ] || complain "$file: includes $inc: only convert/ reads dumps" ;;
			*/ckf_*)
				[[ " $* " == *" ${inc%/*} "* ]] || complain "$file: includes $inc: $dir may use only: $*"
				;;
			*/*) complain "$file: includes $inc: of another folder, only ckf_*.h" ;;
			*) [ -e "$dir/$inc" ] || complain "$file: includes $inc: not in $dir/" ;;
			esac
		done
	done
}

# circles ROOM…: the files of a room that use each other's functions or variables, directly or by way
# of others, and headers that include each other: a reader could start with none of them. A .S belongs
# to the .c of its name.
circles() {
	/usr/bin/python3 - "$@" <<-'END'
		import collections, glob, os, re, sys

		COMMENT = re.compile(r'/\*.*?\*/|"(?:[^"\\\n]|\\.)*"', re.S)
		DEFINED = re.compile(r'^(?!static\b|extern\b|typedef\b)[A-Za-z_][\w \t*]*?\b(\w+)'
		                     r'(?:\([^;{}]*\)\s*\{|(?:\[[^]]*\])*(?: __attribute__\(\(.*?\)\))?(?: =|;))', re.M)
		LABEL = re.compile(r'^\t\.globl (\w+)$', re.M)
		USED = re.compile(r'(?<!struct )(?<!\.)(?<!->)\b\w+')
		INCLUDED = re.compile(r'^#include "(?:\S+/)?(\w+\.h)"', re.M)

		def reach(uses, file, seen):
		    for other in uses[file] - seen:
		        seen.add(other)
		        reach(uses, other, seen)
		    return seen

		for room in sys.argv[1:]:
		    owner, names = {}, collections.defaultdict(set)
		    for path in sorted(glob.glob(room + '/*.[chS]')):
		        with open(path, encoding='utf-8') as f:
		            text = f.read()
		        code = COMMENT.sub(' ', text)
		        file = os.path.basename(path).replace('.S', '.c')
		        if path.endswith('.h'):
		            owner[file] = file
		            names[file].update(INCLUDED.findall(text))
		        else:
		            # A file in the place of another one, where something is missing, defines the same.
		            for name in (LABEL if path.endswith('.S') else DEFINED).findall(code):
		                owner.setdefault(name, file)
		            names[file].update(USED.findall(code))
		    uses = {file: {owner[n] for n in names[file] if n in owner} - {file} for file in names}
		    for file in sorted(uses):
		        for other in sorted(uses[file]):
		            if file in reach(uses, other, set()):
		                print('%s/%s: uses %s of %s' % (room, file, ', '.join(sorted(
		                    n for n in names[file] if owner.get(n) == other)), other))
	END
}
hits=$(circles "${rooms[@]}")
[ -z "$hits" ] || complain "files that use each other:"$'\n'"$hits"

# none WHAT PATTERN FILE…: no line of code matches.
none() {
	local what=$1 pattern=$2 hits
	shift 2
	hits=$(grep -nE "$pattern" "$@" | grep -vE '^[^:]*:[0-9]+:[[:space:]]*(/?\*|//)')
	[ -z "$hits" ] || complain "$what:"$'\n'"$hits"
}

# The public functions are those that the library exports.
declared=$(sed -n "/^static/d; s/^[a-z][a-z0-9_ ]*[ *]\(ckf_[a-z0-9_]*\)(.*/\1/p" include/*.h | sort)
exported=$(sed -n 's/^\t\(ckf_[a-z0-9_]*\);$/\1/p' include/ckfast.map)
[ "$declared" = "$exported" ] ||
	complain "include/ckfast.map is not what the headers declare:"$'\n'"$(
		diff <(echo "$declared") <(echo "$exported")
	)"

layer base
layer format base
layer loader base format
layer convert base format loader
layer gpu/cuda base format loader
layer gpu/amd base format loader
layer gpu/suspend base format loader gpu/cuda
layer gpu/daemon base format loader gpu/amd gpu/cuda gpu/suspend
layer gpu/agent base format gpu/cuda gpu/suspend
layer cli base format loader convert gpu/cuda gpu/suspend gpu/daemon
for file in gpu/daemon/*.[ch]; do
	for inc in ${includes[$file]:-}; do
		[ "$inc" != loader/ckf_image.h ] ||
			complain "$file: includes $inc: gpud opens images by ckfast.h"
	done
done
# Users of the library, as others are: they see nothing but its header. Verbs that show the inside
# are part of it.
for file in criu-patch/files/criu/{*.c,include/*.h} {criu-patch/plugin,cli}/*.[ch] examples/*.c; do
	for inc in ${includes[$file]:-}; do
		case $file:$inc in
		cli/*inspect*:* | cli/cmd_calibrate.c:convert/ckf_model.h | cli/*:base/ckf_uuid.h) ;;
		cli/gpud.h:gpu/daemon/ckf_gpud_server.h | cli/doctor_cuda.c:gpu/cuda/ckf_cuda.h) ;;
		*:base/* | *:format/* | *:loader/* | *:convert/* | *:gpu/*)
			complain "$file: includes $inc: may use only ckfast.h"
			;;
		esac
	done
done

none 'format/ does no input or output and has no threads or clocks' \
	'<(pthread|fcntl|unistd|stdatomic|threads|signal|time|liburing|sys/[a-z]+)\.h>|\b(open|openat|close|read|write|pread|pwrite|mmap|fopen|getenv) ?\(' \
	format/*.[ch]
for file in format/*.[ch]; do
	for inc in ${includes[$file]:-}; do
		case $inc in
		base/ckf_error.h | base/ckf_types.h | base/ckf_table.h) ;;
		base/*) complain "$file: includes $inc: format/ may use only errors, types and tables" ;;
		esac
	done
done
none 'only cli/ prints' \
	'\b(printf|vprintf|vfprintf|puts|fputs|putchar|perror) ?\(|\bfprintf ?\((stderr|stdout)|\b(stdout|stderr)\b' \
	{base,format,loader,convert,gpu/cuda,gpu/amd,gpu/suspend,gpu/daemon}/*.[ch]
none 'input can end the program' '\b(assert|abort|_?exit) ?\(' "${ours[@]}"

# Deadlines are of a clock that nobody sets; pthread_cond_timedwait() has another one unless told.
clocked=("${ours[@]}" criu-patch/plugin/*.[ch])
if grep -nE 'CLOCK_REALTIME|gettimeofday\(|[^a-z_]time\(NULL\)' "${clocked[@]}"; then
	complain "deadlines are of CLOCK_MONOTONIC: pthread_cond_clockwait()"
fi
for f in $(grep -lF 'pthread_cond_timedwait(' "${clocked[@]}"); do
	grep -q 'pthread_condattr_setclock(.*CLOCK_MONOTONIC)' "$f" ||
		complain "$f: pthread_cond_timedwait() on CLOCK_REALTIME"
done

exit $bad

#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Holds the layers apart: format <- loader <- {gpu, criu-patch} and format <- loader <- convert <-
# cli, and what each of them must not do. Needs no build.
set -euo pipefail
shopt -s nullglob

cd "$(dirname "$0")/../.."
bad=0

complain() {
	echo "FAIL: $*" >&2
	bad=1
}

# sources DIR: its C files, also in folders below.
sources() {
	find "$1" -name '*.[ch]' | sort
}

# includes FILE: what it includes by "…".
includes() {
	sed -n 's/^[[:space:]]*#[[:space:]]*include[[:space:]]*"\([^"]*\)".*/\1/p' "$1"
}

# layer DIR ALLOWED…: files of DIR include only their own folder and the allowed ones.
layer() {
	local dir=$1 file inc
	shift
	for file in $(sources "$dir"); do
		for inc in $(includes "$file"); do
			case $inc in
			../*/*)
				# The loader knows GPUs only through the interface of their backends.
				[ "$dir $inc" != 'loader ../gpu/ckf_sink.h' ] || continue
				inc=${inc#../}
				[[ " $* " == *" ${inc%%/*} "* ]] ||
					complain "$file: includes $inc: $dir may use only: $*"
				;;
			*/*) complain "$file: includes $inc: want ../FOLDER/FILE" ;;
			*.pb-c.h)
				[ "$dir" = convert ] || complain "$file: includes $inc: convert/ reads dumps"
				;;
			*) [ -e "$dir/$inc" ] || complain "$file: includes $inc: not in $dir/" ;;
			esac
		done
	done
}

# none DIR WHAT PATTERN: no line of DIR matches. Asking for huge pages is no input.
none() {
	local dir=$1 what=$2 hits
	hits=$(grep -rnE --include='*.[ch]' "$3" "$dir" | grep -vE ':[0-9]+:[[:space:]]*(/?\*|//)' |
		grep -v '^format/table.c:.*<sys/mman.h>$' || true)
	[ -z "$hits" ] || complain "$dir: $what:"$'\n'"$hits"
}

layer format
layer loader format
layer gpu format loader
layer convert format loader
layer agent format gpu
layer cli format loader convert gpu

# The glue is compiled inside CRIU's tree, with the top of ours as an include folder.
for file in $(sources criu-patch); do
	for inc in $(includes "$file"); do
		case $inc in
		convert/* | cli/* | ../*) complain "$file: includes $inc: may use only format, loader, gpu" ;;
		esac
	done
done

none format 'fds, threads or clocks in the format' \
	'<(pthread|fcntl|unistd|stdatomic|threads|signal|time|sys/[a-z]+)\.h>|\b(open|openat|close|read|write|pread|pwrite|mmap|fopen|getenv) ?\('

for dir in format loader gpu convert; do
	none "$dir" 'a library prints' \
		'\b(printf|fprintf|vprintf|vfprintf|puts|fputs|putchar|perror) ?\(|\b(stdout|stderr)\b'
done
for dir in format loader gpu convert cli agent; do
	none "$dir" 'input can end the program' '\b(assert|abort|_?exit) ?\('
done

for dir in format loader gpu convert cli agent tests; do
	for file in $(sources "$dir"); do
		[ "$(head -n 1 "$file")" = '/* SPDX-License-Identifier: MIT */' ] ||
			complain "$file: the first line is not the licence"
	done
done
for file in $(sources criu-patch); do
	head -n 1 "$file" | grep -q 'SPDX-License-Identifier: GPL-2.0-only' ||
		complain "$file: the first line is not the licence"
done

exit $bad

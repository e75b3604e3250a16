# SPDX-License-Identifier: MIT
#
# For scripts that keep the output of a build in a file. To be sourced.

# show_failure NAME LOG: the end of the log, and as the last line the first error in it. make goes on
# with what it has begun, and each program that was waiting says that another one has failed.
show_failure() {
	local first
	first=$(grep -m 1 -aE '(^|[^[:alnum:]_])error: |Unmet build dependencies|undefined reference|: not found$|^E: |\*\*\* ' "$2" || true)
	tail -n 30 "$2" >&2
	echo "$1: the whole log is $2" >&2
	echo "$1: failed: ${first:-see above}" >&2
}

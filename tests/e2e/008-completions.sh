#!/bin/bash
# SPDX-License-Identifier: MIT
#
# The completions of bash, zsh and fish offer the verbs, and to each verb the options of its --help
# and no others. The files are searched in any case, and run where their shell is installed.
. "$(dirname "$0")/lib.sh"
need_ckfast
C=$ROOT/completions

verbs() {
	"$CKFAST" --help | sed -n 's/^  \([a-z]*\) .*/\1/p' | grep -vx ckfast | sort
}

# The options of a verb in its --help: one a line.
help_options() {
	"$CKFAST" "$1" --help | sed -n 's/^  \(-.*\)/\1/p' | sed 's/   .*//' | grep -oE -- '-[A-Za-z]\b|--[a-z-]+' | sort -u
}

# offered_by_SHELL VERB: the options that its completion offers, or without VERB the verbs.
offered_by_bash() {
	bash -c '
		. "$1"
		COMP_WORDS=(ckfast ${2:+"$2" -}) COMP_CWORD=1
		[ -n "$2" ] && COMP_CWORD=2 || COMP_WORDS+=("")
		_ckfast
		printf "%s\n" "${COMPREPLY[@]}"
	' bash "$C/ckfast.bash" "${1:-}" | sort -u
}

# _arguments and _describe are zsh's own functions for completion: these print what they are given.
offered_by_zsh() {
	zsh -f -c '
		_arguments() {
			if [[ $1 = -C ]]; then
				state=${verb:+argument}
				state=${state:-verb}
				return 1
			fi
			print -rl -- "$@"
		}
		_describe() { print -rl -- ${verbs%%:*} }
		verb=$2
		words=($verb)
		service=ckfast
		source $1
	' zsh "$C/_ckfast" "${1:-}" | sed -E 's/^\([^)]*\)//; s/^\*//; s/^(-[A-Za-z-]*).*/\1/; /^[0-9*:]/d' | sort -u
}

# fish lists long and short options apart.
offered_by_fish() {
	fish --no-config -c '
		source $argv[1]
		if test -z "$argv[2]"
			complete -C "ckfast "
		else
			complete -C "ckfast $argv[2] --"
			complete -C "ckfast $argv[2] -"
		end
	' "$C/ckfast.fish" "${1:-}" | cut -f 1 | sort -u
}

same_words() {
	diff "$2" "$3" >words.diff || fail "$1: $(cat words.diff)"
}

verbs >want
for verb in $(cat want); do
	help_options "$verb" >"want-$verb"
	[ "$(wc -l <"want-$verb")" -ge 2 ] || fail "no options of $verb are found in its --help"
done

for file in ckfast.bash _ckfast ckfast.fish; do
	for word in $(cat want want-* | sed 's/^-*//' | sort -u); do
		grep -qw -- "$word" "$C/$file" || fail "$file does not have $word"
	done
done

for shell in bash zsh fish; do
	if ! command -v $shell >/dev/null; then
		echo "no $shell: its completion was searched, not run"
		continue
	fi
	offered_by_$shell | grep -v '^-' >got
	same_words "$shell, verbs" want got
	for verb in $(cat want); do
		offered_by_$shell "$verb" | grep '^-' >got
		same_words "$shell, $verb" "want-$verb" got
	done
done

# Behind the program of ckfast run, everything is its own.
bash -c '
	. "$1"
	for words in "run program -" "run -- program --dir /nothing-begins-so"; do
		COMP_WORDS=(ckfast $words)
		COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
		_ckfast
		[ ${#COMPREPLY[@]} = 0 ] || exit 1
	done
' bash "$C/ckfast.bash" || fail "bash completes options of ckfast for the program of ckfast run"

# Values.
bash -c '
	. "$1"
	for words in "convert --codec z" "convert --codec = z"; do
		COMP_WORDS=(ckfast $words)
		COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
		_ckfast
		[ "${COMPREPLY[*]}" = zstd ] || exit 1
	done
' bash "$C/ckfast.bash" || fail "bash does not complete the value of --codec"

# SPDX-License-Identifier: MIT
#
# bash completion for ckfast: verbs, options, and the values of options. It needs nothing of the
# bash-completion package but being loaded.

# Directories, as arguments and as values of options.
_ckfast_dirs() {
	local prefix=$1 IFS=$'\n'
	compopt -o filenames 2>/dev/null
	COMPREPLY=($(compgen -d -P "$prefix" -- "$2"))
}

_ckfast_files() {
	local IFS=$'\n'
	compopt -o filenames 2>/dev/null
	COMPREPLY=($(compgen -f -- "$1"))
}

_ckfast_pids() {
	COMPREPLY=($(compgen -W "$(cd /proc && echo [0-9]*)" -- "$1"))
}

_ckfast_options() {
	case $1 in
	convert)
		echo "--base --codec --level --smallest --extent-size --profile --jobs --threads --nice" \
			"--no-cache --amd --force --in-place --after --json -q --quiet"
		;;
	inspect) echo "--base --plan --chunks --profile --json" ;;
	verify) echo "--base --threads --json -q --quiet" ;;
	extract) echo "--base --threads --force --in-place -q --quiet" ;;
	flatten) echo "--base --threads --force -q --quiet" ;;
	doctor) echo "--base --pid --strict --json" ;;
	calibrate) echo "--json" ;;
	watch) echo "--once --recursive --jobs --threads --nice --settle --metrics --state --json" ;;
	run) echo "--env" ;;
	gpud) echo "--socket --slots --threads --device --fd --group --client-requests --client-bytes" \
			"--keep --keep-bytes --metrics --log -q --quiet --status --json" ;;
	keep) echo "--socket --json" ;;
	drop) echo "--all --socket --json" ;;
	park) echo "--dir --socket --json --timeout" ;;
	unpark) echo "--dir --socket --json" ;;
	esac
	echo "-h --help"
}

# _ckfast_value OPTION CUR: completes the value of an option; fails when the option takes none.
_ckfast_value() {
	local list=
	case $1 in
	--base)
		[[ $2 != *,* ]] || list=${2%,*},
		_ckfast_dirs "$list" "${2##*,}"
		;;
	--dir | --keep) _ckfast_dirs "" "$2" ;;
	--socket | --metrics | --state) _ckfast_files "$2" ;;
	--codec) COMPREPLY=($(compgen -W "auto raw lz4 zstd bf16" -- "$2")) ;;
	--group) COMPREPLY=($(compgen -g -- "$2")) ;;
	--log) COMPREPLY=($(compgen -W "text json" -- "$2")) ;;
	--extent-size) COMPREPLY=($(compgen -W "4M 8M 16M" -- "$2")) ;;
	--profile) COMPREPLY=($(compgen -W "ram nvme ssd network" -- "$2")) ;;
	--pid | --after) _ckfast_pids "$2" ;;
	--level | --jobs | --threads | --nice | --slots | --device | --fd | --timeout | --settle) ;;
	--client-requests | --client-bytes | --keep-bytes) ;;
	*) return 1 ;;
	esac
}

# True when a word before the one at hand is the program of ckfast run: what follows is its own.
_ckfast_has_program() {
	local word
	for word in "${COMP_WORDS[@]:2:COMP_CWORD-2}"; do
		[ "$word" != -- ] || continue
		[[ $word = -* ]] || return 0
	done
	return 1
}

_ckfast() {
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]}
	local verb=${COMP_WORDS[1]}

	COMPREPLY=()
	if [ "$COMP_CWORD" = 1 ]; then
		COMPREPLY=($(compgen -W "convert inspect verify doctor extract flatten calibrate run gpud keep drop
			park unpark watch -h --help -V --version" -- "$cur"))
		return
	fi
	# bash makes a word of its own of the = of --codec=raw.
	if [ "$cur" = = ]; then
		cur=
	elif [ "$prev" = = ]; then
		prev=${COMP_WORDS[COMP_CWORD - 2]}
	fi
	if [ "$verb" = run ] && _ckfast_has_program; then
		_ckfast_files "$cur"
		return
	fi
	if [[ $prev = --* ]] && _ckfast_value "$prev" "$cur"; then
		return
	fi
	if [[ $cur = -* ]]; then
		COMPREPLY=($(compgen -W "$(_ckfast_options "$verb")" -- "$cur"))
		return
	fi
	case $verb in
	convert | inspect | verify | extract | flatten | doctor | watch | keep | drop) _ckfast_dirs "" "$cur" ;;
	run) COMPREPLY=($(compgen -c -- "$cur")) ;;
	park | unpark) _ckfast_pids "$cur" ;;
	esac
}

complete -F _ckfast ckfast

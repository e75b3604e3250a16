#!/bin/bash
# SPDX-License-Identifier: MIT
#
# The command line itself: help, wrong usage, exit codes, and which stream gets what.
. "$(dirname "$0")/lib.sh"
need_ckfast

# run STATUS ARGS…: ckfast ends with it; out and err hold what it printed.
run() {
	local want=$1 got=0
	shift
	"$CKFAST" "$@" >out 2>err || got=$?
	[ "$got" = "$want" ] || fail "ckfast $*: exit code $got, want $want: $(cat err)"
}

silent() {
	[ ! -s "$1" ] || fail "nothing should be on $1: $(cat "$1")"
}

says() {
	grep -qF -- "$2" "$1" || fail "$1 does not say \"$2\": $(cat "$1")"
}

run 0 --version
says out 'image format 1.7'
run 0 --help
for verb in convert inspect verify extract flatten calibrate run gpud park unpark doctor watch; do
	says out "  $verb "
done
silent err
run 2
says err Usage
silent out
run 2 frobnicate
says err 'no such verb: frobnicate'

for verb in convert inspect verify extract; do
	run 0 $verb --help
	says out "Usage: ckfast $verb"
	silent err
	run 2 $verb
	says err "ckfast $verb: want"
	silent out
	run 2 $verb --no-such-option a b
	says err "ckfast $verb: "
done

run 2 convert --after 1 a b
says err '--after goes only with --in-place'
for verb in convert extract; do
	run 2 $verb a
	says err 'want two directories, or two archives'
	run 2 $verb --in-place a b
	says err '--in-place wants one directory or archive'
done
run 2 flatten a
says err 'want two directories: FAST OUT'
run 1 convert --in-place --after 1 nowhere
says err nowhere
run 2 watch
says err 'want directories'
run 2 watch --jobs 0 .
says err '--jobs 0: want 1 to 64'
run 1 watch --once nowhere
says err nowhere
run 2 convert --codec lzma a b
says err '--codec lzma: want auto, raw, lz4, zstd or bf16'
run 2 convert --codec lz4 --level 99 a b
says err '--level 99: lz4 has 1 to 12'
run 2 convert --level 3 a b
says err '--level needs --codec'
run 2 convert --codec raw --level 3 a b
run 2 convert --extent-size 5M a b
says err '--extent-size 5M: want 4M, 8M or 16M'
run 2 convert --extent-size 32M a b
run 2 convert --threads 0 a b
says err '--threads 0: want 1 to'
run 2 convert --jobs 0 a b
run 2 convert --profile floppy a b
says err '--profile floppy: want ram, nvme, ssd, network or bytes/s'
run 2 convert --profile 0 a b
run 2 convert --smallest --codec raw a b
says err '--smallest goes with neither --codec nor --profile'
run 2 convert --smallest --profile ssd a b
run 2 convert --nice 20 a b
says err '--nice 20: want 0 to 19'
run 2 verify --threads x a
run 2 extract --threads -1 a b
run 2 verify a b

for verb in inspect verify; do
	run 1 $verb not-there
	says err "ckfast $verb: not-there: "
	silent out
done
run 1 convert not-there fast
run 1 extract not-there dump
[ ! -e fast ] || fail 'a fast image was made out of nothing'
[ ! -e dump ] || fail 'a dump was made out of nothing'

run 0 calibrate --help
run 2 calibrate now
run 0 calibrate
says out 'bf16'
run 0 calibrate --json
says out '"model_bytes_per_s"'

mkdir corrupt
head -c 4096 /dev/zero >corrupt/ckfast.idx
run 3 inspect corrupt
says err 'ckfast inspect: corrupt: ckfast.idx is damaged: corrupt header'
run 3 verify corrupt
silent out
run 3 verify --json corrupt
says out '"ok": false'
run 3 verify -q corrupt
says err 'corrupt header'

run 0 gpud --help
says out 'Usage: ckfast gpud'
run 2 gpud now
says err 'ckfast gpud: want options only'
run 2 gpud --json
says err '--json needs --status'
run 2 gpud --status --slots 3
run 2 gpud --slots 0
says err '--slots 0: want 1 to'
run 1 gpud --status --socket no/such.sock
says err 'cannot connect to gpud'
silent out

for verb in gpud park unpark; do
	run 0 $verb --help
	says out 'default: $CKFAST_GPUD_SOCKET, or /run/ckfast/gpud.sock'
done

run 0 doctor --help
says out 'Usage: ckfast doctor'
run 2 doctor a b
says err 'ckfast doctor: want one directory at most'
run 2 doctor --pid 0
says err '--pid 0: want the id of a process'
run 2 doctor --base a
says err '--base goes with an image'
run 2 doctor --probe weather
says err '--probe weather: no such question'
run 0 doctor --probe set_tid
says out '"errno"'
silent err
run 1 doctor not-there
says out 'not-there'
silent err
run 1 doctor corrupt
says out 'corrupt header'

# A result that cannot be printed is a failure.
if [ -w /dev/full ]; then
	"$CKFAST" --version >/dev/full 2>err && fail 'a full disk is a success'
	says err 'cannot write to stdout'
fi
exit 0

#!/bin/bash
# SPDX-License-Identifier: MIT
#
# ckfast doctor on a machine with NVIDIA's driver, or with parts of it: the kernel's part is a file in
# a mount namespace, the library that of tests/stub.
. "$(dirname "$0")/gpu.sh"

# doctor LIBRARIES [CKFAST]: the report, in $W/text, where libcuda.so.1 is in LIBRARIES.
doctor() {
	LD_LIBRARY_PATH=$1 unshare --mount "$BASH" -c '
		set -e
		mount -t tmpfs none /proc/driver
		mkdir /proc/driver/nvidia
		echo "NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.86.15  Tue" >/proc/driver/nvidia/version
		exec "$1" doctor
	' bash "${2:-$CKFAST}" >text 2>err || true
	[ ! -s err ] || skip "no mount namespace here: $(cat err)"
}

# says NAME STATE TEXT [HINT]: the first line with that name, and the one below it.
says() {
	local line
	line=$(grep -A1 "^$1 " text | head -n 2 || true)
	[[ $line == "$1 "*" $2 "*"$3"* && $line == *"${4:-}"* ]] || fail "want $*: $(cat text)"
}

doctor "$STUB"
says driver ok "570.86.15, CUDA "
says gpu ok "0: ckfast stub GPU, "
says gpud degraded "does not run" "ckfast gpud"
says agent ok "$(realpath "$AGENT")"
gpud_start
doctor "$STUB"
says gpud ok "8 slots"
gpud_stop

# No library, as in a container that was not given it; one of an older driver; one that fails.
mkdir none old
doctor "$W/none"
says driver broken "no CUDA driver: libcuda.so.1" "container toolkit"
"${CC:-gcc}" -shared -o old/libcuda.so.1 -x c /dev/null
doctor "$W/old"
says driver broken "older than version 12.8" "install driver 570 or later"
CKF_STUB_FAIL='cuInit:*' doctor "$STUB"
says driver broken "cuInit: CUDA_ERROR_UNKNOWN" "nvidia-smi"

# ckfast alone, without what belongs to ckfast-cuda.
mkdir bin
cp "$CKFAST" bin/
doctor "$STUB" "$W/bin/ckfast"
says agent degraded "no libckfast-cuda.so" "install ckfast-cuda"

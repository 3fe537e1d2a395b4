#!/bin/sh
# SPDX-License-Identifier: MIT
# One cross build, whole: sysroot, configure, build with warnings as errors, unit tests under qemu-user.
#
#   toolchains/cross.sh aarch64|armhf|x86_64
set -eu
cd "$(dirname "$0")/.."
case ${1:-} in
aarch64) debian=arm64 ;;
armhf) debian=armhf ;;
x86_64) debian=amd64 ;;
*) echo "usage: $0 aarch64|armhf|x86_64" >&2; exit 2 ;;
esac
toolchains/sysroot.sh "$debian" "build/sysroot/$debian"
cmake --preset "$1"
cmake --build --preset "$1"
# Tests named host_ start programs, which qemu-user cannot.
ctest --test-dir "build/$1" --output-on-failure -j "$(nproc)" -E '^host_'

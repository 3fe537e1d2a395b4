# SPDX-License-Identifier: MIT
# 64-bit ARM: Raspberry Pi 3 and later.
set(POSTERN_TRIPLET aarch64-linux-gnu)
set(POSTERN_DEBIAN arm64)
set(POSTERN_PROCESSOR aarch64)
set(POSTERN_QEMU qemu-aarch64)
include(${CMAKE_CURRENT_LIST_DIR}/debian-sysroot.cmake)

# SPDX-License-Identifier: MIT
# 64-bit x86 from a sysroot, not from what the machine has installed.
set(POSTERN_TRIPLET x86_64-linux-gnu)
set(POSTERN_DEBIAN amd64)
set(POSTERN_PROCESSOR x86_64)
set(POSTERN_QEMU qemu-x86_64)
include(${CMAKE_CURRENT_LIST_DIR}/debian-sysroot.cmake)

# SPDX-License-Identifier: MIT
# 32-bit ARM with hard float (ARMv7): Raspberry Pi 2 and later.
set(POSTERN_TRIPLET arm-linux-gnueabihf)
set(POSTERN_DEBIAN armhf)
set(POSTERN_PROCESSOR armv7l)
set(POSTERN_QEMU qemu-arm)
include(${CMAKE_CURRENT_LIST_DIR}/debian-sysroot.cmake)

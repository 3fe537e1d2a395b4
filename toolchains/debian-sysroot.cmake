# SPDX-License-Identifier: MIT
# Cross builds with Debian's cross compiler against a sysroot made by toolchains/sysroot.sh. The three toolchain files
# set POSTERN_TRIPLET, POSTERN_DEBIAN (Debian's name), POSTERN_PROCESSOR and POSTERN_QEMU, and include this.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR ${POSTERN_PROCESSOR})
list(APPEND CMAKE_TRY_COMPILE_PLATFORM_VARIABLES POSTERN_SYSROOT)
if(NOT POSTERN_SYSROOT)
  get_filename_component(POSTERN_SYSROOT "${CMAKE_CURRENT_LIST_DIR}/../build/sysroot/${POSTERN_DEBIAN}" ABSOLUTE)
endif()
set(POSTERN_SYSROOT "${POSTERN_SYSROOT}" CACHE PATH "Debian ${POSTERN_DEBIAN} sysroot")
set(CMAKE_SYSROOT "${POSTERN_SYSROOT}")
set(CMAKE_C_COMPILER ${POSTERN_TRIPLET}-gcc)
set(CMAKE_LIBRARY_ARCHITECTURE ${POSTERN_TRIPLET})
set(CMAKE_FIND_ROOT_PATH "${POSTERN_SYSROOT}")
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
foreach(kind LIBRARY INCLUDE PACKAGE)
  set(CMAKE_FIND_ROOT_PATH_MODE_${kind} ONLY)
endforeach()
set(ENV{PKG_CONFIG_PATH} "")
set(ENV{PKG_CONFIG_LIBDIR}
    "${POSTERN_SYSROOT}/usr/lib/${POSTERN_TRIPLET}/pkgconfig:${POSTERN_SYSROOT}/usr/share/pkgconfig")
set(ENV{PKG_CONFIG_SYSROOT_DIR} "${POSTERN_SYSROOT}")
# qemu even where the machine could run the program itself: the libraries are the sysroot's.
find_program(POSTERN_QEMU_PATH NAMES ${POSTERN_QEMU}-static ${POSTERN_QEMU})
if(POSTERN_QEMU_PATH)
  set(CMAKE_CROSSCOMPILING_EMULATOR "${POSTERN_QEMU_PATH};-L;${POSTERN_SYSROOT}" CACHE STRING "")
endif()

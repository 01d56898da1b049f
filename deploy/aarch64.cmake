# A CMake toolchain: libdraft for aarch64 (NEON), built on x86-64 by Debian's cross compiler and run by qemu-user.
# DRAFT_SYSROOT is a folder with Debian's arm64 libraries in it, which tests/aarch64 makes:
#
#   cmake -S . -B build-aarch64 -G Ninja --toolchain deploy/aarch64.cmake -DDRAFT_SYSROOT=FOLDER -DDRAFT_ENGINE_ONLY=ON
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)
set(CMAKE_CROSSCOMPILING_EMULATOR qemu-aarch64 -L /usr/aarch64-linux-gnu)

list(APPEND CMAKE_TRY_COMPILE_PLATFORM_VARIABLES DRAFT_SYSROOT)
set(CMAKE_FIND_ROOT_PATH ${DRAFT_SYSROOT} /usr/aarch64-linux-gnu)
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
set(ENV{PKG_CONFIG_LIBDIR} ${DRAFT_SYSROOT}/usr/lib/aarch64-linux-gnu/pkgconfig)
set(ENV{PKG_CONFIG_SYSROOT_DIR} ${DRAFT_SYSROOT})

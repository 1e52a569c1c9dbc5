# 64-bit ARM with Linux, by Debian's cross compiler (apt-get install g++-aarch64-linux-gnu). What is built for it runs
# here by qemu-user where that is installed: `ctest` does so by itself.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)
find_program(UNRAIN_QEMU qemu-aarch64)
if(UNRAIN_QEMU)
  set(CMAKE_CROSSCOMPILING_EMULATOR ${UNRAIN_QEMU} -L /usr/aarch64-linux-gnu)
endif()

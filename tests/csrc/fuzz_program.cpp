// A libFuzzer target: clang++ -fsanitize=fuzzer,address,undefined. Begin with what seed_program.cpp
// writes, or with any `.unrain`.
#include <cstdint>

#include "program_bytes.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size);
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
    program_bytes::take(bytes, size);
    return 0;
}

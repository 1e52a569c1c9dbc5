// A libFuzzer target: clang++ -fsanitize=fuzzer,address,undefined. Begin with small
// `.unrain` files: what is in weights, no check depends on.
#include <cstdint>

#include "program_bytes.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size);
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
    program_bytes::take(bytes, size);
    return 0;
}

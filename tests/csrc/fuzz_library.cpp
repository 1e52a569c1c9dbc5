// A libFuzzer target: bytes that may be anything through the C library, with a checksum that is made to fit: read, a
// context, two frames. Begin with small `.unrain` files.
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "../../csrc/include/unrain.h"
#include "../../csrc/program/format.h"
#include "../../csrc/program/sha256.h"

namespace {

constexpr int kWidth = 13, kHeight = 9;
constexpr std::size_t kMostBytes = 32 << 20, kBehind = 4096;

void make_checksum_fit(std::vector<unsigned char>& file) {
    using unrain::program::Header;
    if (file.size() < sizeof(Header)) return;
    std::uint8_t digest[32];
    unrain::program::sha256(file.data() + sizeof(Header), file.size() - sizeof(Header), digest);
    std::memcpy(file.data() + offsetof(Header, sha256), digest, sizeof(digest));
}

void run_frames(const unrain_program* program, unrain_format input, unrain_format output, unrain_precision precision) {
    char message[256] = "";
    unrain_options options = unrain_default_options(kWidth, kHeight);
    options.input = input;
    options.output = output;
    options.precision = precision;
    options.threads = 1;
    const std::size_t size = unrain_context_size(program, &options, message, sizeof message);
    if ((size == 0) != (message[0] != '\0')) std::abort();
    if (size == 0 || size > kMostBytes) return;
    const std::unique_ptr<char[]> memory(new char[size + kBehind]);
    std::memset(memory.get(), 0xFF, size + kBehind);  // NaN, wherever something is used before it is written
    unrain_context* context = unrain_context_init(memory.get(), size, program, &options, message, sizeof message);
    if (context == nullptr) return;
    std::vector<unsigned char> in(3 * kWidth * kHeight, 90), out(3 * kWidth * kHeight);
    const unrain_frame from = {{in.data(), in.data() + kWidth * kHeight},
                               {input == UNRAIN_NV12 ? kWidth : 3 * kWidth, kWidth + 1}};
    const unrain_frame to = {{out.data(), out.data() + kWidth * kHeight},
                             {output == UNRAIN_NV12 ? kWidth : 3 * kWidth, kWidth + 1}};
    for (int k = 0; k < 2; ++k) {  // the second one from the state of the first
        if (unrain_process(context, &from, &to) == UNRAIN_REFUSED) std::abort();
    }
    unrain_context_close(context);
    for (std::size_t k = 0; k < kBehind; ++k) {
        if (memory[size + k] != '\xFF') std::abort();  // a kernel wrote there
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size);
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
    std::vector<unsigned char> file(bytes, bytes + size);
    make_checksum_fit(file);
    char message[256] = "";
    unrain_program* program = unrain_program_read(file.data(), file.size(), message, sizeof message);
    if (program == nullptr) {
        if (message[0] == '\0') std::abort();  // a refusal says why
        return 0;
    }
    if (std::strlen(unrain_program_card(program)) > size) std::abort();
    run_frames(program, UNRAIN_NV12, UNRAIN_RGB8, UNRAIN_F32);
    run_frames(program, UNRAIN_BGR8, UNRAIN_NV12, UNRAIN_BF16);
    unrain_program_close(program);
    return 0;
}

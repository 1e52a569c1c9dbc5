// libunrain under the sanitizers: frames of every format in memory of exactly their size, a context in memory of
// exactly its own, files that are damaged, and two threads that share a program.
#include "../../csrc/include/unrain.h"

#include <cstdlib>
#include <cstring>
#include <memory>
#include <thread>

#include "check.h"
#include "program_file.h"

namespace {

struct Close {
    void operator()(unrain_program* program) const { unrain_program_close(program); }
    void operator()(unrain_context* context) const { unrain_context_close(context); }
};
using Program = std::unique_ptr<unrain_program, Close>;
using Context = std::unique_ptr<unrain_context, Close>;

// Rows lie `gap` bytes apart, and the last one ends where its memory ends.
class Picture {
public:
    Picture(unrain_format format, int width, int height, int gap) {
        const bool nv12 = format == UNRAIN_NV12;
        add(0, nv12 ? width : 3 * width, height, gap);
        if (nv12) add(1, (width + 1) / 2 * 2, (height + 1) / 2, gap);
    }
    const unrain_frame* view() const { return &view_; }

private:
    void add(int plane, int row_bytes, int rows, int gap) {
        const int stride = row_bytes + gap;
        bytes_[plane].resize(static_cast<std::size_t>((rows - 1) * stride + row_bytes));
        for (unsigned char& byte : bytes_[plane]) byte = static_cast<unsigned char>(60 + random_() % 120);
        view_.data[plane] = bytes_[plane].data();
        view_.stride[plane] = stride;
    }

    std::mt19937 random_{3};
    std::vector<unsigned char> bytes_[2];
    unrain_frame view_ = {};
};

Program opened() {
    char message[256];
    const std::vector<unsigned char> file = program_file::small();
    Program program(unrain_program_read(file.data(), file.size(), message, sizeof message));
    CHECK(program != nullptr, "%s", message);
    return program;
}

void check_frames(const unrain_program* program, const unrain_options& options) {
    char message[256];
    const std::size_t size = unrain_context_size(program, &options, message, sizeof message);
    CHECK(size > 0, "%s", message);
    const std::unique_ptr<char[]> memory(new char[size + 1]);  // and at no alignment
    const Context context(unrain_context_init(memory.get() + 1, size, program, &options, message, sizeof message));
    CHECK(context != nullptr, "%s", message);
    if (context == nullptr) return;
    const Picture in(options.input, options.width, options.height, 5);
    const Picture out(options.output, options.width, options.height, 0);
    for (int k = 0; k < 3; ++k) {
        const unrain_outcome outcome = unrain_process(context.get(), in.view(), out.view());
        CHECK(outcome != UNRAIN_REFUSED, "%s", unrain_reason(context.get()));
        CHECK((outcome == UNRAIN_OK) == (*unrain_reason(context.get()) == '\0'), "%s", unrain_reason(context.get()));
        if (k == 1) unrain_reset(context.get());
    }
    CHECK(unrain_process(context.get(), in.view(), nullptr) == UNRAIN_REFUSED, "a frame that is missing");
    CHECK(unrain_statistics(context.get()).frames == 3, "frames");
}

void check_formats(const unrain_program* program) {
    const unrain_format formats[] = {UNRAIN_RGB8, UNRAIN_BGR8, UNRAIN_NV12};
    const int sizes[][2] = {{8, 8}, {21, 18}, {66, 9}};
    for (const unrain_format input : formats) {
        for (const unrain_format output : formats) {
            for (const auto& size : sizes) {
                unrain_options options = unrain_default_options(size[0], size[1]);
                options.input = input;
                options.output = output;
                options.threads = 2;
                options.strength = size[0] == 21 ? 0.5F : 1.0F;
                options.precision = size[0] == 66 ? UNRAIN_BF16 : UNRAIN_F32;
                check_frames(program, options);
            }
        }
    }
}

void check_deadlines(const unrain_program* program) {
    for (const long long deadline_us : {1LL, 300LL, 10000000LL}) {
        unrain_options options = unrain_default_options(40, 24);
        options.deadline_us = deadline_us;
        check_frames(program, options);
    }
}

void check_refusals(const unrain_program* program) {
    char message[256];
    unrain_options options = unrain_default_options(40, 24);
    options.precision = UNRAIN_INT8;
    CHECK(unrain_context_open(program, &options, message, sizeof message) == nullptr, "int8");
    CHECK(std::strstr(message, "int8") != nullptr, "%s", message);
    std::vector<unsigned char> file = program_file::small();
    for (std::size_t at = 0; at < file.size(); at += 397) {
        file[at] ^= 0x20;
        message[0] = '\0';
        CHECK(unrain_program_read(file.data(), file.size(), message, sizeof message) == nullptr, "damaged at %zu", at);
        CHECK(message[0] != '\0', "damaged at %zu", at);
        file[at] ^= 0x20;
    }
}

}  // namespace

void check_library();
void check_library() {
    const Program program = opened();
    if (program == nullptr) return;
    std::thread another([&program] { check_formats(program.get()); });
    check_formats(program.get());
    another.join();
    check_deadlines(program.get());
    check_refusals(program.get());
}

// Bytes that may be anything, taken for a program: read, prepared, planned and run where they are accepted.
#pragma once

#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "../../csrc/ops.h"
#include "../../csrc/program/context.h"

namespace program_bytes {

using namespace unrain;
using namespace unrain::program;

struct Free {
    void operator()(void* block) const { std::free(block); }
};
using Block = std::unique_ptr<void, Free>;

inline Block block_of(std::size_t bytes) {
    const std::size_t whole = bytes > 0 ? (bytes + 63) / 64 * 64 : 64;
    Block block(std::aligned_alloc(64, whole));
    std::memset(block.get(), 0xFF, whole);  // NaN, wherever something is used before it is written
    return block;
}

constexpr std::size_t kMostBytes = 32 << 20;

// Whether they were accepted.
inline bool take(const unsigned char* bytes, std::size_t size) {
    const Block file = block_of(size);
    if (size > 0) std::memcpy(file.get(), bytes, size);
    Program program;
    Message message;
    if (!read_unhashed(file.get(), size, program, message)) {
        if (message.text[0] == '\0') std::abort();  // a refusal says why
        return false;
    }
    Prepared prepared;
    if (!prepared.plan(program, {}, message) || prepared.bytes() > kMostBytes) return true;
    const Block weights = block_of(prepared.bytes());
    if (!prepared.pack(weights.get(), message)) return true;
    Plan plan;
    if (!make_plan(prepared, {1, 9, 12}, 1, plan, message) || plan.bytes() > kMostBytes) return true;
    const Block memory = block_of(plan.bytes());
    Context context(plan, memory.get(), (*runnable_tiers())->program, nullptr);
    const std::size_t in = program.header->in_channels, out = program.header->out_channels;
    if (in > 1024 || out > 1024) return true;
    const std::vector<float> x(in * 9 * 12, 0.5F);
    std::vector<float> y(out * 9 * 12);
    for (std::uint32_t run = 0; run < program.header->runs; ++run) {
        if (!context.start(run, x.data(), message)) continue;
        for (std::uint32_t mark = 1; mark <= context.marks(run); ++mark) context.advance(mark, y.data(), message);
    }
    return true;
}

}  // namespace program_bytes

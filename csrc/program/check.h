// The two halves of what `read` checks behind the tables of a file: each run, and each instruction of it. Everything is
// checked here, so that nothing later has to be: plan, prepare and run believe what they read.
#pragma once

#include "program.h"

namespace unrain::program {

constexpr std::uint32_t kMostChannels = 1U << 16;

// log2 of a power of two of at least 1, or -1.
inline int log2_of(std::int64_t x) {
    if (x < 1 || (x & (x - 1)) != 0) return -1;
    int log2 = 0;
    while ((std::int64_t{1} << log2) < x) ++log2;
    return log2;
}

// An instruction whose operands and constants are ids of the file: whether they are what its operation asks for.
bool check_instruction(const Program& program, const Run& run, const Instruction& instruction, Message& message);

}  // namespace unrain::program

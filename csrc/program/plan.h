// Where each value lies while a program runs on pictures of one size: places in one arena, shared by values that are
// never needed at the same time. What the plan says is all that a run uses.
#pragma once

#include <vector>

#include "prepared.h"

namespace unrain::program {

struct Size {
    std::ptrdiff_t batch, height, width;  // of the pictures, not padded
};

struct Plan {
    const Prepared* prepared = nullptr;
    Size size = {};
    std::ptrdiff_t height = 0, width = 0;  // padded
    int threads = 1;
    std::vector<std::size_t> offsets[kMostRuns];  // in the arena, of each value of a run
    std::size_t arena = 0, workspace = 0;         // bytes
    std::size_t bytes() const { return arena + workspace; }

    const Program& program() const { return prepared->program(); }
    std::ptrdiff_t height_of(const Value& v) const { return v.kind == Kind::vector ? 1 : height >> v.log2_down; }
    std::ptrdiff_t width_of(const Value& v) const { return v.kind == Kind::vector ? 1 : width >> v.log2_down; }
};

// False with a message where the size is not possible.
bool make_plan(const Prepared& prepared, Size size, int threads, Plan& plan, Message& message);

// The operation that an instruction is, on values that lie in `arena` (null: nowhere yet).
Operation operation_of(const Plan& plan, std::uint32_t run, const Instruction& instruction, char* arena);
Place place_of(const Plan& plan, std::uint32_t run, std::uint32_t value, char* arena);

}  // namespace unrain::program

// What csrc/include/unrain.h leaves open of a program.
#pragma once

#define UNRAIN_BUILDS
#include "../include/unrain.h"
#include "../program/program.h"

struct unrain_program {
    void* block = nullptr;  // 64 bytes aligned
    unrain::program::Program program;
    char* card = nullptr;  // terminated
};

namespace unrain::library {

// Cut to the caller's memory, where there is any.
void tell(const program::Message& from, char* message, std::size_t size);

}  // namespace unrain::library

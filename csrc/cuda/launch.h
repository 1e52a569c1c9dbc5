// The compiled kernels by name, as plain memory: no CUDA header is needed to call this.
#pragma once

#include <cstddef>

namespace unrain {

struct Launch {
    const char* name;  // as in kernels_table(): "box_kernel<float>"
    unsigned grid[3], block[3];
    int device;
    void* stream;
    void** arguments;          // one address per kernel argument
    const std::size_t* sizes;  // and its size
    std::size_t count;
};

// nullptr, or what went wrong. The kernel runs later, on the stream.
const char* launch(const Launch& what);

// The names, null-terminated.
const char* const* kernel_names();

}  // namespace unrain

// The compiled CUDA kernels for Python (kernels/cuda.py), which plans the launches.
#include "../bindings.h"
#include "launch.h"

using namespace unrain;

// Queues one kernel on a stream; every argument comes as the bytes of its value. nullptr, or what is wrong.
UNRAIN_SHOWN const char* unrain_native_cuda_launch(const char* name, const unsigned* grid, const unsigned* block,
                                                   int device, void* stream, void** arguments, const std::size_t* sizes,
                                                   std::size_t count) {
    return launch(
        {name, {grid[0], grid[1], grid[2]}, {block[0], block[1], block[2]}, device, stream, arguments, sizes, count});
}

// The names that `launch` knows, null after the last.
UNRAIN_SHOWN const char* const* unrain_native_cuda_kernels() { return kernel_names(); }

// The instances of the kernels in kernels.cuh that Python may ask for, and how one is launched.
#include "kernels.cuh"

#include <cuda_runtime.h>

#include "launch.h"

namespace unrain {
namespace {

using namespace device;

struct Kernel {
    const char* name;
    const void* function;
    std::size_t sizes[7];  // of its arguments; 0 ends them
};

template <class... Arguments>
Kernel entry(const char* name, void (*function)(Arguments...)) {
    return {name, reinterpret_cast<const void*>(function), {sizeof(Arguments)...}};
}

#define UNRAIN_ENTRY(...) entry(#__VA_ARGS__, __VA_ARGS__)
#define UNRAIN_FRAMES(T) UNRAIN_ENTRY(frame_to_tensor_kernel<T>), UNRAIN_ENTRY(tensor_to_frame_kernel<T>)
#define UNRAIN_PYRAMID(T) UNRAIN_ENTRY(box_kernel<T>), UNRAIN_ENTRY(binomial_kernel<T>)
#define UNRAIN_GRADIENTS(T)                                                                     \
    UNRAIN_ENTRY(box_gradient_kernel<T>), entry("to_float_kernel<" #T ">", to_float_kernel<T>), \
        entry("binomial_gradient_kernel<" #T ", float>", binomial_gradient_kernel<T, float>)

const Kernel kKernels[] = {
    UNRAIN_FRAMES(float),
    UNRAIN_FRAMES(f16),
    UNRAIN_FRAMES(bf16),
    UNRAIN_PYRAMID(float),
    UNRAIN_PYRAMID(f16),
    UNRAIN_PYRAMID(bf16),
    UNRAIN_PYRAMID(std::uint8_t),
    UNRAIN_GRADIENTS(float),
    UNRAIN_GRADIENTS(f16),
    UNRAIN_GRADIENTS(bf16),
    entry("binomial_gradient_kernel<f16, f16>", binomial_gradient_kernel<f16, f16>),
    entry("binomial_gradient_kernel<bf16, bf16>", binomial_gradient_kernel<bf16, bf16>),
};
constexpr std::size_t kCount = sizeof(kKernels) / sizeof(kKernels[0]);

}  // namespace

const char* launch(const Launch& what) {
    for (const Kernel& kernel : kKernels) {
        if (std::strcmp(kernel.name, what.name) != 0) continue;
        std::size_t count = 0;
        while (count < 7 && kernel.sizes[count] != 0) ++count;
        if (count != what.count) return "the kernel takes another number of arguments";
        for (std::size_t k = 0; k < count; ++k) {
            if (kernel.sizes[k] != what.sizes[k]) return "an argument has another size than the kernel's";
        }
        cudaError_t error = cudaSetDevice(what.device);
        if (error == cudaSuccess) {
            error = cudaLaunchKernel(kernel.function, dim3(what.grid[0], what.grid[1], what.grid[2]),
                                     dim3(what.block[0], what.block[1], what.block[2]), what.arguments, 0,
                                     static_cast<cudaStream_t>(what.stream));
        }
        return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
    }
    return "there is no kernel of that name";
}

const char* const* kernel_names() {
    static const char* names[kCount + 1] = {};
    for (std::size_t k = 0; k < kCount; ++k) names[k] = kKernels[k].name;
    return names;
}

}  // namespace unrain

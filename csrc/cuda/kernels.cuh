// The CUDA kernels of the frame ops and the pyramid: nothing but the grid around the functors of csrc/pixel. Compiled
// by nvcc into unrain._native_cuda, or at run time by NVRTC where there was no nvcc (kernels/cuda.py): no standard
// headers, no launches.
//
// frame ops  one pixel per thread, 32 x 8 threads per block: a warp reads 96 neighbouring bytes and writes whole
// 128-byte
//            lines per plane. 3 + 12 bytes per pixel in float32; bound by memory.
// pyramid    box: one output per thread, all levels in one launch; the finest level's reads leave the coarser ones' in
// the
//            second-level cache. binomial: one 16 x 16 tile of the coarsest of up to three levels per block, the finer
//            levels under it in 26 KiB of shared memory: one launch for three levels, borders computed 1.3 times. Reads
//            4 N, writes 4 (N / 4 + N / 16 + N / 64) bytes in float32; bound by memory.
#pragma once

#define UNRAIN_TIER device

#include "../pixel/frames.h"
#include "../pixel/pyramid_blocks.h"

namespace unrain::device {

constexpr int kThreads = 256;

struct BlockTeam {
    __device__ int rank() const { return static_cast<int>(threadIdx.x); }
    __device__ int size() const { return static_cast<int>(blockDim.x); }
    __device__ void wait() const { __syncthreads(); }
};

__device__ inline std::ptrdiff_t thread_number() {
    return static_cast<std::ptrdiff_t>(blockIdx.x) * blockDim.x + threadIdx.x;
}

// Rows of blocks beyond the 65535 of a grid's y are taken by the same blocks, one after the other.
template <class T>
__global__ void frame_to_tensor_kernel(FrameToTensor a) {
    const std::ptrdiff_t x = thread_number();
    if (x >= a.padded_width) return;
    const std::ptrdiff_t rows = a.batch * a.padded_height;
    for (std::ptrdiff_t row = blockIdx.y * blockDim.y + threadIdx.y; row < rows; row += gridDim.y * blockDim.y) {
        frame_to_tensor_pixel<T>(a, row / a.padded_height, row % a.padded_height, x);
    }
}

template <class T>
__global__ void tensor_to_frame_kernel(TensorToFrame a) {
    const std::ptrdiff_t x = thread_number();
    if (x >= a.width) return;
    const std::ptrdiff_t rows = a.batch * a.height;
    for (std::ptrdiff_t row = blockIdx.y * blockDim.y + threadIdx.y; row < rows; row += gridDim.y * blockDim.y) {
        tensor_to_frame_pixel<T>(a, row / a.height, row % a.height, x);
    }
}

template <class T>
__global__ void box_kernel(GaussianPyramid a, long long outputs) {
    const std::ptrdiff_t index = thread_number();
    if (index < outputs) box_output<T>(a, index);
}

template <class T>
__global__ void box_gradient_kernel(GaussianPyramid a, long long numbers) {
    const std::ptrdiff_t index = thread_number();
    if (index < numbers) box_gradient<T>(a, index);
}

// Grid: tiles in a row x tiles in a column x (picture and channel).
template <class T>
__global__ void binomial_kernel(GaussianPyramid a, LevelGroup group) {
    __shared__ float shared[kSharedNumbers];
    const std::ptrdiff_t planes = a.pictures * a.channels;
    for (std::ptrdiff_t plane = blockIdx.z; plane < planes; plane += gridDim.z) {
        binomial_tile<T>(a, group, plane / a.channels, plane % a.channels, blockIdx.y, blockIdx.x, shared, BlockTeam{});
    }
}

template <class T, class Out>
__global__ void binomial_gradient_kernel(const float* coarser, const T* own, Out* to, long long height, long long width,
                                         long long channels, long long numbers) {
    const std::ptrdiff_t index = thread_number();
    if (index < numbers) binomial_gradient<T, Out>(coarser, own, to, height, width, channels, index);
}

template <class T>
__global__ void to_float_kernel(const T* from, float* to, long long numbers) {
    const std::ptrdiff_t index = thread_number();
    if (index < numbers) to[index] = load_one(from + index);
}

}  // namespace unrain::device

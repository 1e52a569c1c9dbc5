// Storage types: arithmetic is always float, these only say how numbers lie in memory.
#pragma once

#if defined(__CUDACC_RTC__)  // compiled at run time there are no standard headers
namespace std {
using uint8_t = unsigned char;
using uint16_t = unsigned short;
using uint32_t = unsigned int;
using size_t = decltype(sizeof(0));
using ptrdiff_t = decltype(static_cast<char*>(nullptr) - static_cast<char*>(nullptr));
}  // namespace std
#else
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string.h>
#endif

#if defined(__CUDACC__) || defined(__CUDACC_RTC__)
#define UNRAIN_HD __host__ __device__ __forceinline__
#elif defined(_MSC_VER)
#define UNRAIN_HD __forceinline
#elif defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)  // checks inlined everywhere compile for minutes
#define UNRAIN_HD inline
#else
#define UNRAIN_HD inline __attribute__((always_inline))
#endif

namespace unrain {

enum class DType : int { f32 = 0, bf16 = 1, f16 = 2, u8 = 3 };

struct bf16 {
    std::uint16_t bits;
};

struct f16 {
    std::uint16_t bits;
};

}  // namespace unrain

// What gains from AVX-512's products of bfloat16: convolutions alone. All else is the AVX-512 tier's.
#define UNRAIN_TIER avx512bf16
#define UNRAIN_SIMD_AVX512
#define UNRAIN_DOT_BF16
#include "../kernels/conv.h"

namespace unrain::avx512bf16 {

const char* conv_in_bf16(const ConvLayer& layer, const ConvCall& call);
const char* conv_in_bf16(const ConvLayer& layer, const ConvCall& call) { return conv(layer, call); }

}  // namespace unrain::avx512bf16

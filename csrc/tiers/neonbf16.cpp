// What gains from ARM's products of bfloat16: convolutions alone. All else is the NEON tier's.
#define UNRAIN_TIER neonbf16
#define UNRAIN_SIMD_NEON
#define UNRAIN_DOT_BF16
#include "../kernels/conv.h"

namespace unrain::neonbf16 {

const char* conv_in_bf16(const ConvLayer& layer, const ConvCall& call);
const char* conv_in_bf16(const ConvLayer& layer, const ConvCall& call) { return conv(layer, call); }

}  // namespace unrain::neonbf16

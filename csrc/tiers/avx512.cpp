#define UNRAIN_TIER avx512
#define UNRAIN_SIMD_AVX512
#include "tier.h"

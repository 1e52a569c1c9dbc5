#define UNRAIN_TIER avx2
#define UNRAIN_SIMD_AVX2
#include "tier.h"

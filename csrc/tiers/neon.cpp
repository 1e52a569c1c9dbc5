#define UNRAIN_TIER neon
#define UNRAIN_SIMD_NEON
#include "tier.h"

#define UNRAIN_TIER generic
#define UNRAIN_SIMD_GENERIC
#include "tier.h"

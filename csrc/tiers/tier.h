// Every kernel, compiled into the namespace of the tier that includes this; the one thing visible outside is its table.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "../kernels/charbonnier.h"
#include "../kernels/lstm_gates.h"

#define UNRAIN_STRING_(x) #x
#define UNRAIN_STRING(x) UNRAIN_STRING_(x)

namespace unrain::UNRAIN_TIER {

extern const Tier tier;
const Tier tier = {
    UNRAIN_STRING(UNRAIN_TIER),
    lstm_gates,
    charbonnier,
};

}  // namespace unrain::UNRAIN_TIER

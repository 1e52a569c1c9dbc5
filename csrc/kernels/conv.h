// One entry for every convolution of a tier: see csrc/conv.h.
#pragma once

#include "conv_direct.h"
#include "conv_winograd.h"

namespace unrain::UNRAIN_TIER {

static const char* conv(const ConvLayer& a, const ConvCall& call) {
    const ConvPlan p = plan_of(a);
    if (p.way == ConvWay::winograd) {
        convolve_winograd<Value>(a, p, call);
    } else {
        convolve_direct<Value>(a, p, call);
    }
    return nullptr;
}

}  // namespace unrain::UNRAIN_TIER

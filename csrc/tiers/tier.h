// Every kernel, compiled into the namespace of the tier that includes this; the one thing visible outside is its table.
#pragma once

#include "../kernels/camera_frame.h"
#include "../kernels/charbonnier.h"
#include "../kernels/conv.h"
#include "../kernels/conv_gradient.h"
#include "../kernels/frame_to_tensor.h"
#include "../kernels/gaussian_pyramid.h"
#include "../kernels/gru_gates.h"
#include "../kernels/lstm_gates.h"
#include "../kernels/memory_read.h"
#include "../kernels/memory_update.h"
#include "../kernels/program_whole.h"
#include "../kernels/ssim.h"
#include "../kernels/tensor_to_frame.h"

#define UNRAIN_STRING_(x) #x
#define UNRAIN_STRING(x) UNRAIN_STRING_(x)

namespace unrain::UNRAIN_TIER {

extern const Tier tier;
const Tier tier = {
    UNRAIN_STRING(UNRAIN_TIER),
    lstm_gates,
    gru_gates,
    conv,
    conv_gradient,
    charbonnier,
    gaussian_pyramid,
    frame_to_tensor,
    tensor_to_frame,
    ssim,
    memory_read,
    memory_update,
    {operation, picture_in, picture_padding, picture_out},
    {frame_in, frame_out, frame_through},
};

}  // namespace unrain::UNRAIN_TIER

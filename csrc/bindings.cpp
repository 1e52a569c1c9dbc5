// The CPU kernels for Python. Every op is one function that takes its struct in ops.h; tensors arrive as addresses. The
// Python side (kernels/<op>/native.py) has checked shapes, dtypes and layout and keeps the tensors alive; what is wrong
// all the same comes back as a message.
#include "bindings.h"

#include "ops.h"

using namespace unrain;

namespace {

#define UNRAIN_FIELD(x) field_of<decltype(Args::x)>(#x, offsetof(Args, x))

const Field* fields_of(const LstmGates*) {
    using Args = LstmGates;
    static constexpr Field fields[] = {
        UNRAIN_FIELD(pre),      UNRAIN_FIELD(c),
        UNRAIN_FIELD(peephole), UNRAIN_FIELD(rows),
        UNRAIN_FIELD(inner),    UNRAIN_FIELD(peephole_rows),
        UNRAIN_FIELD(dtype),    UNRAIN_FIELD(state_dtype),
        UNRAIN_FIELD(h),        UNRAIN_FIELD(c_next),
        UNRAIN_FIELD(grad_h),   UNRAIN_FIELD(grad_c_next),
        UNRAIN_FIELD(grad_pre), UNRAIN_FIELD(grad_c),
        UNRAIN_FIELD(threads),  {},
    };
    return fields;
}

const Field* fields_of(const GruGates*) {
    using Args = GruGates;
    static constexpr Field fields[] = {
        UNRAIN_FIELD(z),
        UNRAIN_FIELD(candidate),
        UNRAIN_FIELD(h),
        UNRAIN_FIELD(r),
        UNRAIN_FIELD(hidden),
        UNRAIN_FIELD(z_pitch),
        UNRAIN_FIELD(candidate_pitch),
        UNRAIN_FIELD(h_pitch),
        UNRAIN_FIELD(r_pitch),
        UNRAIN_FIELD(hidden_pitch),
        UNRAIN_FIELD(rows),
        UNRAIN_FIELD(inner),
        UNRAIN_FIELD(dtype),
        UNRAIN_FIELD(state_dtype),
        UNRAIN_FIELD(z_keeps),
        UNRAIN_FIELD(activation),
        UNRAIN_FIELD(h_next),
        UNRAIN_FIELD(grad),
        UNRAIN_FIELD(grad_z),
        UNRAIN_FIELD(grad_candidate),
        UNRAIN_FIELD(grad_h),
        UNRAIN_FIELD(grad_r),
        UNRAIN_FIELD(grad_hidden),
        UNRAIN_FIELD(threads),
        {},
    };
    return fields;
}

const Field* fields_of(const Charbonnier*) {
    using Args = Charbonnier;
    static constexpr Field fields[] = {
        UNRAIN_FIELD(pred),      UNRAIN_FIELD(target),      UNRAIN_FIELD(count),   UNRAIN_FIELD(dtype),
        UNRAIN_FIELD(eps),       UNRAIN_FIELD(reduction),   UNRAIN_FIELD(loss),    UNRAIN_FIELD(grad_loss),
        UNRAIN_FIELD(grad_pred), UNRAIN_FIELD(grad_target), UNRAIN_FIELD(threads), {},
    };
    return fields;
}

const Field* fields_of(const GaussianPyramid*) {
    using Args = GaussianPyramid;
    static constexpr Field fields[] = {
        UNRAIN_FIELD(x),           UNRAIN_FIELD(pictures),
        UNRAIN_FIELD(height),      UNRAIN_FIELD(width),
        UNRAIN_FIELD(channels),    UNRAIN_FIELD(kernel),
        UNRAIN_FIELD(count),       UNRAIN_FIELD(factors),
        UNRAIN_FIELD(dtype),       UNRAIN_FIELD(levels),
        UNRAIN_FIELD(grad_levels), UNRAIN_FIELD(grad_x),
        UNRAIN_FIELD(threads),     {},
    };
    return fields;
}

const Field* fields_of(const FrameToTensor*) {
    using Args = FrameToTensor;
    static constexpr Field fields[] = {
        UNRAIN_FIELD(frame),         UNRAIN_FIELD(image),   UNRAIN_FIELD(batch),
        UNRAIN_FIELD(height),        UNRAIN_FIELD(width),   UNRAIN_FIELD(padded_height),
        UNRAIN_FIELD(padded_width),  UNRAIN_FIELD(bgr),     UNRAIN_FIELD(nv12),
        UNRAIN_FIELD(channels_last), UNRAIN_FIELD(black),   UNRAIN_FIELD(white),
        UNRAIN_FIELD(chroma),        UNRAIN_FIELD(kr),      UNRAIN_FIELD(kb),
        UNRAIN_FIELD(dtype),         UNRAIN_FIELD(threads), {},
    };
    return fields;
}

const Field* fields_of(const TensorToFrame*) {
    using Args = TensorToFrame;
    static constexpr Field fields[] = {
        UNRAIN_FIELD(image),         UNRAIN_FIELD(residual),
        UNRAIN_FIELD(frame),         UNRAIN_FIELD(batch),
        UNRAIN_FIELD(image_height),  UNRAIN_FIELD(image_width),
        UNRAIN_FIELD(height),        UNRAIN_FIELD(width),
        UNRAIN_FIELD(bgr),           UNRAIN_FIELD(truncate),
        UNRAIN_FIELD(channels_last), UNRAIN_FIELD(dtype),
        UNRAIN_FIELD(threads),       {},
    };
    return fields;
}

const Field* fields_of(const Ssim*) {
    using Args = Ssim;
    static constexpr Field fields[] = {
        UNRAIN_FIELD(x),      UNRAIN_FIELD(y),        UNRAIN_FIELD(pictures), UNRAIN_FIELD(height),
        UNRAIN_FIELD(width),  UNRAIN_FIELD(channels), UNRAIN_FIELD(valid),    UNRAIN_FIELD(data_range),
        UNRAIN_FIELD(taps),   UNRAIN_FIELD(dtype),    UNRAIN_FIELD(result),   UNRAIN_FIELD(grad),
        UNRAIN_FIELD(grad_x), UNRAIN_FIELD(grad_y),   UNRAIN_FIELD(threads),  {},
    };
    return fields;
}

const Field* fields_of(const MemoryRead*) {
    using Args = MemoryRead;
    static constexpr Field fields[] = {
        UNRAIN_FIELD(query),      UNRAIN_FIELD(items),
        UNRAIN_FIELD(queries),    UNRAIN_FIELD(items_count),
        UNRAIN_FIELD(columns),    UNRAIN_FIELD(dtype),
        UNRAIN_FIELD(read),       UNRAIN_FIELD(weights),
        UNRAIN_FIELD(grad_read),  UNRAIN_FIELD(grad_weights),
        UNRAIN_FIELD(grad_query), UNRAIN_FIELD(grad_items),
        UNRAIN_FIELD(threads),    {},
    };
    return fields;
}

const Field* fields_of(const MemoryUpdate*) {
    using Args = MemoryUpdate;
    static constexpr Field fields[] = {
        UNRAIN_FIELD(query),
        UNRAIN_FIELD(items),
        UNRAIN_FIELD(queries),
        UNRAIN_FIELD(items_count),
        UNRAIN_FIELD(columns),
        UNRAIN_FIELD(hard),
        UNRAIN_FIELD(dtype),
        UNRAIN_FIELD(result),
        UNRAIN_FIELD(grad),
        UNRAIN_FIELD(grad_query),
        UNRAIN_FIELD(grad_items),
        UNRAIN_FIELD(threads),
        {},
    };
    return fields;
}

template <class Args>
const char* call(const void* arguments, int backward, const char* tier, std::ptrdiff_t*) {
    return run(*static_cast<const Args*>(arguments), backward != 0, tier);
}

template <class Args>
Function op(const char* name) {
    return {name, fields_of(static_cast<const Args*>(nullptr)), sizeof(Args), &call<Args>};
}

}  // namespace

UNRAIN_SHOWN const Function* unrain_native_ops() {
    // clang-format off
    static const Function ops[] = {
        op<LstmGates>("lstm_gates"),
        op<GruGates>("gru_gates"),
        op<Charbonnier>("charbonnier"),
        op<GaussianPyramid>("gaussian_pyramid"),
        op<FrameToTensor>("frame_to_tensor"),
        op<TensorToFrame>("tensor_to_frame"),
        op<Ssim>("ssim"),
        op<MemoryRead>("memory_read"),
        op<MemoryUpdate>("memory_update"),
        {},
    };
    // clang-format on
    return ops;
}

// The SIMD tiers this machine can run by number, the one taken by default first; nullptr after the last.
UNRAIN_SHOWN const char* unrain_native_tier(int number) {
    const Tier* const tier = runnable_tiers()[number];
    return tier == nullptr ? nullptr : tier->name;
}

UNRAIN_SHOWN int unrain_native_multiplies_bf16() { return multiplies_bf16() ? 1 : 0; }

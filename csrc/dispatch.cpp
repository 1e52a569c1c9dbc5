// Which tiers this machine can run, and the checks that every tier relies on. Compiled without SIMD flags: it must run
// where none of the tiers but the generic one can.
#include <cstring>

#include "ops.h"

#if defined(_MSC_VER) && defined(_M_X64)
#include <immintrin.h>
#include <intrin.h>
#elif defined(__x86_64__)
#include <cpuid.h>
#elif defined(UNRAIN_NEONBF16)
#include <sys/auxv.h>
#endif

namespace unrain {

#if defined(__x86_64__) || defined(_M_X64)
#define UNRAIN_X86 1
namespace avx2 {
extern const Tier tier;
}
namespace avx512 {
extern const Tier tier;
}
#elif defined(__aarch64__)
#define UNRAIN_ARM 1
namespace neon {
extern const Tier tier;
}
#endif
#if !defined(UNRAIN_NO_GENERIC)  // for machines all of which can run another one
namespace generic {
extern const Tier tier;
}
#endif

namespace {

#if defined(UNRAIN_X86)
struct Registers {
    unsigned a, b, c, d;
};

Registers cpuid(unsigned leaf, unsigned part = 0) {
    Registers r{};
#if defined(_MSC_VER)
    int out[4];
    __cpuidex(out, static_cast<int>(leaf), static_cast<int>(part));
    r = {static_cast<unsigned>(out[0]), static_cast<unsigned>(out[1]), static_cast<unsigned>(out[2]),
         static_cast<unsigned>(out[3])};
#else
    __get_cpuid_count(leaf, part, &r.a, &r.b, &r.c, &r.d);
#endif
    return r;
}

// Which register states the operating system saves: a CPU feature without it would fault.
unsigned long long saved_states() {
#if defined(_MSC_VER)
    return _xgetbv(0);
#else
    unsigned low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (static_cast<unsigned long long>(high) << 32) | low;
#endif
}

struct Features {
    bool avx2, avx512, avx512bf16;
};

Features detect() {
    constexpr unsigned kFma = 1U << 12, kOsxsave = 1U << 27, kAvx = 1U << 28, kF16c = 1U << 29;
    constexpr unsigned kAvx2 = 1U << 5, kBmi2 = 1U << 8, kBf16 = 1U << 5;
    constexpr unsigned kAvx512 = (1U << 16) | (1U << 17) | (1U << 30) | (1U << 31);  // F, DQ, BW, VL
    constexpr unsigned long long kYmm = 0x06, kZmm = 0xE6;
    const Registers one = cpuid(1), seven = cpuid(7);
    constexpr unsigned base = kFma | kOsxsave | kAvx | kF16c;
    if ((one.c & base) != base) return {};
    const unsigned long long states = saved_states();
    const bool avx2 = (seven.b & (kAvx2 | kBmi2)) == (kAvx2 | kBmi2) && (states & kYmm) == kYmm;
    const bool avx512 = avx2 && (seven.b & kAvx512) == kAvx512 && (states & kZmm) == kZmm;
    const bool bf16 = avx512 && seven.a >= 1 && (cpuid(7, 1).a & kBf16) != 0;
    return {avx2, avx512, bf16};
}
#endif

struct Choice {
    const Tier* tiers[4] = {};
    Choice() {
        int n = 0;
#if defined(UNRAIN_X86)
        const Features have = detect();
        if (have.avx512) tiers[n++] = &avx512::tier;
        if (have.avx2) tiers[n++] = &avx2::tier;
#elif defined(UNRAIN_ARM)
        tiers[n++] = &neon::tier;
#endif
#if !defined(UNRAIN_NO_GENERIC)
        tiers[n] = &generic::tier;
#endif
    }
};

constexpr const char* kThreads = "threads must be at least 1";

bool storage(DType d) { return d == DType::f32 || d == DType::bf16; }

const char* check(const LstmGates& a, bool backward) {
    if (a.threads < 1) return kThreads;
    if (!storage(a.dtype)) return "dtype must be float32 or bfloat16";
    if (a.state_dtype != DType::f32 && a.state_dtype != a.dtype) return "state_dtype must be that of pre, or float32";
    if (a.rows < 0 || a.inner < 0) return "rows and inner must not be negative";
    if (a.rows == 0 || a.inner == 0) return nullptr;
    if (a.pre == nullptr) return "pre is missing";
    if (a.peephole != nullptr && a.peephole_rows < 1) return "peephole_rows must be at least 1";
    if (backward) {
        if (a.grad_h == nullptr || a.grad_c_next == nullptr) return "grad_h or grad_c_next is missing";
        if (a.grad_pre == nullptr || (a.c != nullptr && a.grad_c == nullptr)) return "grad_pre or grad_c is missing";
    } else if (a.h == nullptr || a.c_next == nullptr) {
        return "h or c_next is missing";
    }
    return nullptr;
}

const char* check(const GruGates& a, bool backward) {
    if (a.threads < 1) return kThreads;
    if (!storage(a.dtype)) return "dtype must be float32 or bfloat16";
    if (a.state_dtype != DType::f32 && a.state_dtype != a.dtype) return "state_dtype must be that of z, or float32";
    if (a.activation != Act::none && a.activation != Act::relu && a.activation != Act::tanh) {
        return "activation must be none, relu or tanh";
    }
    if (a.rows < 0 || a.inner < 0) return "rows and inner must not be negative";
    if (a.rows == 0 || a.inner == 0) return nullptr;
    if (a.z == nullptr || a.candidate == nullptr) return "z or candidate is missing";
    if ((a.r == nullptr) != (a.hidden == nullptr)) return "r and hidden go together";
    if (!backward) return a.h_next == nullptr ? "h_next is missing" : nullptr;
    if (a.grad == nullptr || a.grad_z == nullptr || a.grad_candidate == nullptr) {
        return "grad, grad_z or grad_candidate is missing";
    }
    if (a.h != nullptr && a.grad_h == nullptr) return "grad_h is missing";
    return a.r != nullptr && (a.grad_r == nullptr || a.grad_hidden == nullptr) ? "grad_r or grad_hidden is missing"
                                                                               : nullptr;
}

const char* check(const Charbonnier& a, bool backward) {
    if (a.threads < 1) return kThreads;
    if (!storage(a.dtype)) return "dtype must be float32 or bfloat16";
    if (a.count < 0) return "count must not be negative";
    if (a.reduction < Reduction::none || a.reduction > Reduction::mean) return "reduction must be none, sum or mean";
    if (a.count > 0 && (a.pred == nullptr || a.target == nullptr)) return "pred or target is missing";
    if (backward ? a.grad_loss == nullptr && a.count > 0 : a.loss == nullptr && a.count > 0) {
        return backward ? "grad_loss is missing" : "loss is missing";
    }
    return nullptr;
}

const char* check(const GaussianPyramid& a, bool backward) {
    if (a.threads < 1) return kThreads;
    if (!storage(a.dtype) && (backward || a.dtype != DType::u8)) return "dtype must be float32, bfloat16 or uint8";
    if (a.count < 1 || a.count > kMostLevels) return "count must be between 1 and 16 levels";
    if (a.kernel != PyramidKernel::box && a.kernel != PyramidKernel::binomial) return "kernel must be box or binomial";
    if (a.pictures < 0 || a.channels < 0 || a.height < 1 || a.width < 1) return "height and width must be at least 1";
    for (int k = 0; k < a.count; ++k) {
        if (a.factors[k] < 2) return "factors must be at least 2";
        if (a.pictures * a.channels > 0 && (backward ? a.grad_levels[k] : a.levels[k]) == nullptr) {
            return "a level is missing";
        }
    }
    if (a.pictures * a.channels > 0 && (backward ? a.grad_x : a.x) == nullptr) return "x or grad_x is missing";
    return nullptr;
}

bool number_storage(DType d) { return storage(d) || d == DType::f16; }

const char* check(const FrameToTensor& a, bool backward) {
    if (backward) return "there is no backward pass";
    if (a.threads < 1) return kThreads;
    if (!number_storage(a.dtype)) return "dtype must be float32, float16 or bfloat16";
    if (a.batch < 0 || a.height < 1 || a.width < 1) return "height and width must be at least 1";
    if (a.padded_height < a.height || a.padded_width < a.width) return "the padded size must not be smaller";
    if (a.nv12 != 0 && (a.height % 2 != 0 || a.width % 2 != 0)) return "an NV12 frame must have even sides";
    if (a.batch > 0 && (a.frame == nullptr || a.image == nullptr)) return "frame or image is missing";
    return nullptr;
}

const char* check(const TensorToFrame& a, bool backward) {
    if (backward) return "there is no backward pass";
    if (a.threads < 1) return kThreads;
    if (!number_storage(a.dtype)) return "dtype must be float32, float16 or bfloat16";
    if (a.batch < 0 || a.height < 1 || a.width < 1) return "height and width must be at least 1";
    if (a.height > a.image_height || a.width > a.image_width) return "the frame must lie inside the image";
    if (a.batch > 0 && (a.image == nullptr || a.frame == nullptr)) return "image or frame is missing";
    return nullptr;
}

const char* check(const Ssim& a, bool backward) {
    if (a.threads < 1) return kThreads;
    if (!storage(a.dtype)) return "dtype must be float32 or bfloat16";
    if (a.pictures < 0 || a.channels < 0 || a.height < 0 || a.width < 0) return "sizes must not be negative";
    if (a.valid != 0 && (a.height < 11 || a.width < 11)) return "valid windows need at least 11 x 11 pixels";
    if (backward ? a.grad == nullptr : a.result == nullptr) return backward ? "grad is missing" : "result is missing";
    const bool empty = a.pictures * a.channels * a.height * a.width == 0;
    return !empty && (a.x == nullptr || a.y == nullptr) ? "x or y is missing" : nullptr;
}

template <class Args>
const char* check_memory(const Args& a) {
    if (a.threads < 1) return kThreads;
    if (!storage(a.dtype)) return "dtype must be float32 or bfloat16";
    if (a.queries < 0) return "queries must not be negative";
    if (a.items_count < 1 || a.columns < 1) return "items must hold at least one item of at least one number";
    if (a.items == nullptr || (a.queries > 0 && a.query == nullptr)) return "query or items is missing";
    return nullptr;
}

const char* check(const MemoryRead& a, bool backward) {
    if (const char* wrong = check_memory(a)) return wrong;
    if (!backward) return a.queries > 0 && a.read == nullptr ? "read is missing" : nullptr;
    if (a.queries > 0 && (a.grad_read == nullptr || a.grad_query == nullptr))
        return "grad_read or grad_query is missing";
    return a.grad_items == nullptr ? "grad_items is missing" : nullptr;
}

const char* check(const MemoryUpdate& a, bool backward) {
    if (const char* wrong = check_memory(a)) return wrong;
    if (!backward) return a.result == nullptr ? "result is missing" : nullptr;
    if (a.grad == nullptr || a.grad_items == nullptr) return "grad or grad_items is missing";
    return a.queries > 0 && a.grad_query == nullptr ? "grad_query is missing" : nullptr;
}

}  // namespace

const Tier* const* runnable_tiers() {
    static const Choice choice;
    return choice.tiers;
}

const Tier* pick_tier(const char* name) {
    for (const Tier* const* t = runnable_tiers(); *t != nullptr; ++t) {
        if (name == nullptr || std::strcmp((*t)->name, name) == 0) return *t;
    }
    return nullptr;
}

bool multiplies_bf16() {
#if defined(UNRAIN_X86)
    static const bool can = detect().avx512bf16;
    return can;
#elif defined(UNRAIN_NEONBF16)
    constexpr unsigned long kBf16 = 1UL << 14;  // HWCAP2_BF16, which older headers do not name
    return (getauxval(AT_HWCAP2) & kBf16) != 0;
#else
    return false;
#endif
}

#define UNRAIN_RUN(Args, op)                                             \
    const char* run(const Args& args, bool backward, const char* tier) { \
        if (const char* wrong = check(args, backward)) return wrong;     \
        const Tier* chosen = pick_tier(tier);                            \
        return chosen == nullptr ? kNoTier : chosen->op(args, backward); \
    }

UNRAIN_RUN(LstmGates, lstm_gates)
UNRAIN_RUN(GruGates, gru_gates)
UNRAIN_RUN(Charbonnier, charbonnier)
UNRAIN_RUN(GaussianPyramid, gaussian_pyramid)
UNRAIN_RUN(FrameToTensor, frame_to_tensor)
UNRAIN_RUN(TensorToFrame, tensor_to_frame)
UNRAIN_RUN(Ssim, ssim)
UNRAIN_RUN(MemoryRead, memory_read)
UNRAIN_RUN(MemoryUpdate, memory_update)

}  // namespace unrain

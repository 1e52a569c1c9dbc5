// Every op on every tier this machine has, with buffers of exactly the size they may touch (the address sanitizer
// watches the ends), outputs poisoned with NaN, 1 thread against 3 bit for bit, and every tier against the generic one.
#include "../../csrc/ops.h"

#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <random>
#include <string>
#include <vector>

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

#include "check.h"

using namespace unrain;

namespace {

using Index = std::ptrdiff_t;

std::size_t bytes_of(DType d) { return d == DType::f32 ? 4 : d == DType::u8 ? 1 : 2; }

// Numbers of one dtype in memory of their very size.
struct Buffer {
    DType dtype = DType::f32;
    std::vector<unsigned char> memory;

    Buffer() = default;
    Buffer(DType d, Index count) : dtype(d), memory(static_cast<std::size_t>(count) * bytes_of(d), 0xFF) {}  // NaN
    Index count() const { return static_cast<Index>(memory.size() / bytes_of(dtype)); }
    void* data() { return memory.empty() ? nullptr : memory.data(); }

    float get(Index k) const {
        const unsigned char* p = memory.data() + static_cast<std::size_t>(k) * bytes_of(dtype);
        if (dtype == DType::u8) return *p;
        std::uint32_t bits = 0;
        if (dtype == DType::f32) {
            std::memcpy(&bits, p, 4);
        } else {
            std::uint16_t half;
            std::memcpy(&half, p, 2);
            if (dtype == DType::f16) {  // normal numbers only: what the tests put in
                const int exponent = (half >> 10) & 31;
                const float mantissa = static_cast<float>((half & 1023) | (exponent != 0 ? 1024 : 0));
                const float size = exponent == 31 ? std::numeric_limits<float>::quiet_NaN()
                                                  : std::ldexp(mantissa, (exponent != 0 ? exponent : 1) - 25);
                return (half & 0x8000) != 0 ? -size : size;
            }
            bits = static_cast<std::uint32_t>(half) << 16;
        }
        float x;
        std::memcpy(&x, &bits, 4);
        return x;
    }
};

Buffer random_buffer(DType dtype, Index count, unsigned seed, float scale = 1.0F) {
    Buffer b(dtype, count);
    std::mt19937 random(seed);
    std::normal_distribution<float> normal(0.0F, scale);
    for (Index k = 0; k < count; ++k) {
        unsigned char* p = b.memory.data() + static_cast<std::size_t>(k) * bytes_of(dtype);
        const float x = normal(random);
        std::uint32_t bits;
        std::memcpy(&bits, &x, 4);
        if (dtype == DType::u8) {
            *p = static_cast<unsigned char>(random());
        } else if (dtype == DType::f32) {
            std::memcpy(p, &bits, 4);
        } else if (dtype == DType::bf16) {
            const std::uint16_t half = static_cast<std::uint16_t>(bits >> 16);
            std::memcpy(p, &half, 2);
        } else {
            const std::uint16_t half = static_cast<std::uint16_t>(0x3000 + random() % 0x0C00);  // 0.125 to 1
            std::memcpy(p, &half, 2);
        }
    }
    return b;
}

// Runs `call(outputs, threads, tier)` on all tiers and thread counts. A tier may differ from the generic one by
// `within` times the largest value (and one unit in the last place of the storage).
void compare(const std::string& what, const std::vector<Buffer>& empty, double within,
             const std::function<const char*(std::vector<Buffer>&, int, const char*)>& call) {
    std::vector<Buffer> generic = empty;
    const char* wrong = call(generic, 1, "generic");
    CHECK(wrong == nullptr, "%s: %s", what.c_str(), wrong);
    for (const Tier* const* tier = runnable_tiers(); *tier != nullptr; ++tier) {
        std::vector<Buffer> one = empty, three = empty;
        wrong = call(one, 1, (*tier)->name);
        CHECK(wrong == nullptr, "%s on %s: %s", what.c_str(), (*tier)->name, wrong);
        call(three, 3, (*tier)->name);
        for (std::size_t b = 0; b < one.size(); ++b) {
            CHECK(one[b].memory == three[b].memory, "%s on %s: output %d changes with threads", what.c_str(),
                  (*tier)->name, int(b));
            double largest = 0;
            for (Index k = 0; k < one[b].count(); ++k) {
                largest = std::fmax(largest, std::fabs(static_cast<double>(generic[b].get(k))));
            }
            const double unit = one[b].dtype == DType::f32 ? 0 : one[b].dtype == DType::u8 ? 0 : 1.0 / 128;
            for (Index k = 0; k < one[b].count(); ++k) {
                const double got = one[b].get(k), want = generic[b].get(k);
                const bool close = std::fabs(got - want) <= (within + unit) * largest + 1e-30;
                CHECK(close, "%s on %s: output %d at %d is %g, not %g", what.c_str(), (*tier)->name, int(b), int(k),
                      got, want);
                if (!close) break;
            }
        }
    }
}

void check_lstm_gates() {
    for (const DType dtype : {DType::f32, DType::bf16}) {
        for (const DType state : {dtype, DType::f32}) {
            for (const Index inner : {1, 3, 16, 33, 5000}) {
                for (const bool first : {false, true}) {
                    for (const bool peephole : {false, true}) {
                        const Index rows = inner > 1000 ? 2 : 7, gates = first ? 3 : 4, n = rows * inner;
                        Buffer pre = random_buffer(dtype, n * gates, 1, 2.0F), c = random_buffer(state, n, 2);
                        Buffer p = random_buffer(dtype, 3 * inner, 3), gh = random_buffer(dtype, n, 4);
                        Buffer gc = random_buffer(state, n, 5);
                        LstmGates a{};
                        a.pre = pre.data();
                        a.c = first ? nullptr : c.data();
                        a.peephole = peephole ? p.data() : nullptr;
                        a.rows = rows;
                        a.inner = inner;
                        a.peephole_rows = 1;
                        a.dtype = dtype;
                        a.state_dtype = state;
                        a.grad_h = gh.data();
                        a.grad_c_next = gc.data();
                        compare("lstm_gates", {Buffer(dtype, n), Buffer(state, n)}, 1e-6,
                                [a](std::vector<Buffer>& out, int threads, const char* tier) {
                                    LstmGates with = a;
                                    with.threads = threads;
                                    with.h = out[0].data();
                                    with.c_next = out[1].data();
                                    return run(with, false, tier);
                                });
                        compare("lstm_gates backward", {Buffer(dtype, n * gates), Buffer(state, first ? 0 : n)}, 3e-6,
                                [a](std::vector<Buffer>& out, int threads, const char* tier) {
                                    LstmGates with = a;
                                    with.threads = threads;
                                    with.grad_pre = out[0].data();
                                    with.grad_c = out[1].data();
                                    return run(with, true, tier);
                                });
                    }
                }
            }
        }
    }
}

void check_gru_gates() {
    for (const DType dtype : {DType::f32, DType::bf16}) {
        for (const DType state : {dtype, DType::f32}) {
            for (const Index inner : {1, 3, 16, 33, 5000}) {
                for (const int kind : {0, 1, 2, 3, 4, 5}) {  // first steps or not, by each activation
                    const bool first = kind < 3, after = kind != 1;
                    const Index rows = inner > 1000 ? 2 : 7, n = rows * inner;
                    Buffer gates = random_buffer(dtype, 2 * n, 1, 2.0F), q = random_buffer(dtype, n, 2, 2.0F);
                    Buffer h = random_buffer(state, n, 3), hidden = random_buffer(dtype, n, 4);
                    Buffer grad = random_buffer(state, n, 5);
                    GruGates a{};
                    a.z = gates.data();  // z and r of a row side by side
                    a.candidate = q.data();
                    a.h = first ? nullptr : h.data();
                    a.r = after ? static_cast<unsigned char*>(gates.data()) + inner * Index(bytes_of(dtype)) : nullptr;
                    a.hidden = after ? hidden.data() : nullptr;
                    a.z_pitch = a.r_pitch = 2 * inner;
                    a.candidate_pitch = a.h_pitch = a.hidden_pitch = inner;
                    a.rows = rows;
                    a.inner = inner;
                    a.dtype = dtype;
                    a.state_dtype = state;
                    a.z_keeps = kind % 2;
                    a.activation = kind % 3 == 0 ? Act::tanh : kind % 3 == 1 ? Act::none : Act::relu;
                    a.grad = grad.data();
                    compare("gru_gates", {Buffer(state, n)}, 1e-6,
                            [a](std::vector<Buffer>& out, int threads, const char* tier) {
                                GruGates with = a;
                                with.threads = threads;
                                with.h_next = out[0].data();
                                return run(with, false, tier);
                            });
                    const Buffer like_q(dtype, n), like_r(dtype, after ? n : 0), like_h(state, first ? 0 : n);
                    compare("gru_gates backward", {like_q, like_q, like_h, like_r, like_r}, 3e-6,
                            [a](std::vector<Buffer>& out, int threads, const char* tier) {
                                GruGates with = a;
                                with.threads = threads;
                                with.grad_z = out[0].data();
                                with.grad_candidate = out[1].data();
                                with.grad_h = out[2].data();
                                with.grad_r = out[3].data();
                                with.grad_hidden = out[4].data();
                                return run(with, true, tier);
                            });
                }
            }
        }
    }
}

void check_charbonnier() {
    for (const DType dtype : {DType::f32, DType::bf16}) {
        for (const Index count : {1, 17, 1000, 100003}) {
            for (const Reduction reduction : {Reduction::none, Reduction::sum, Reduction::mean}) {
                const Index losses = reduction == Reduction::none ? count : 1;
                Buffer pred = random_buffer(dtype, count, 1), target = random_buffer(dtype, count, 2);
                Buffer grad = random_buffer(dtype, losses, 3);
                Charbonnier a{};
                a.pred = pred.data();
                a.target = target.data();
                a.count = count;
                a.dtype = dtype;
                a.eps = 1e-3F;
                a.reduction = reduction;
                a.grad_loss = grad.data();
                compare("charbonnier", {Buffer(dtype, losses)}, 1e-6,
                        [a](std::vector<Buffer>& out, int threads, const char* tier) {
                            Charbonnier with = a;
                            with.threads = threads;
                            with.loss = out[0].data();
                            return run(with, false, tier);
                        });
                compare("charbonnier backward", {Buffer(dtype, count), Buffer(dtype, count)}, 1e-6,
                        [a](std::vector<Buffer>& out, int threads, const char* tier) {
                            Charbonnier with = a;
                            with.threads = threads;
                            with.grad_pred = out[0].data();
                            with.grad_target = out[1].data();
                            return run(with, true, tier);
                        });
            }
        }
    }
}

void check_ssim() {
    const Index sizes[][3] = {{1, 1, 1}, {7, 5, 3}, {11, 11, 1}, {70, 40, 3}, {13, 530, 1}, {12, 30, 20}};
    for (const DType dtype : {DType::f32, DType::bf16}) {
        for (const auto& size : sizes) {
            for (const bool valid : {false, true}) {
                if (valid && (size[0] < 11 || size[1] < 11)) continue;
                const Index n = 2 * size[0] * size[1] * size[2];
                Buffer x = random_buffer(dtype, n, 1, 0.3F), y = random_buffer(dtype, n, 2, 0.3F);
                Buffer grad = random_buffer(dtype, 1, 3);
                Ssim a{};
                a.x = x.data();
                a.y = y.data();
                a.pictures = 2;
                a.height = size[0];
                a.width = size[1];
                a.channels = size[2];
                a.valid = valid;
                a.data_range = 1.0F;
                const float taps[6] = {0.00102838F, 0.00759876F, 0.03600077F, 0.10936069F, 0.21300554F, 0.26601172F};
                std::memcpy(a.taps, taps, sizeof(taps));
                a.dtype = dtype;
                a.grad = grad.data();
                compare("ssim", {Buffer(dtype, 1)}, 1e-4, [a](std::vector<Buffer>& out, int threads, const char* tier) {
                    Ssim with = a;
                    with.threads = threads;
                    with.result = out[0].data();
                    return run(with, false, tier);
                });
                compare("ssim backward", {Buffer(dtype, n), Buffer(dtype, n)}, 1e-3,
                        [a](std::vector<Buffer>& out, int threads, const char* tier) {
                            Ssim with = a;
                            with.threads = threads;
                            with.grad_x = out[0].data();
                            with.grad_y = out[1].data();
                            return run(with, true, tier);
                        });
            }
        }
    }
}

void check_memory() {
    const Index sizes[][3] = {{1, 1, 1}, {50, 20, 16}, {0, 3, 8}, {700, 7, 33}, {33, 65, 5}, {1100, 13, 40}};
    for (const DType dtype : {DType::f32, DType::bf16}) {
        for (const auto& size : sizes) {
            const Index n = size[0], m = size[1], c = size[2];
            Buffer query = random_buffer(dtype, n * c, 1), items = random_buffer(dtype, m * c, 2);
            Buffer grad_read = random_buffer(dtype, n * c, 3), grad_weights = random_buffer(dtype, n * m, 4);
            Buffer grad = random_buffer(dtype, m * c, 5);
            MemoryRead a{};
            a.query = query.data();
            a.items = items.data();
            a.queries = n;
            a.items_count = m;
            a.columns = c;
            a.dtype = dtype;
            a.grad_read = grad_read.data();
            a.grad_weights = grad_weights.data();
            compare("memory_read", {Buffer(dtype, n * c), Buffer(dtype, n * m)}, 1e-5,
                    [a](std::vector<Buffer>& out, int threads, const char* tier) {
                        MemoryRead with = a;
                        with.threads = threads;
                        with.read = out[0].data();
                        with.weights = out[1].data();
                        return run(with, false, tier);
                    });
            compare("memory_read backward", {Buffer(dtype, n * c), Buffer(dtype, m * c)}, 1e-4,
                    [a](std::vector<Buffer>& out, int threads, const char* tier) {
                        MemoryRead with = a;
                        with.threads = threads;
                        with.grad_query = out[0].data();
                        with.grad_items = out[1].data();
                        return run(with, true, tier);
                    });
            for (const bool hard : {false, true}) {
                MemoryUpdate u{};
                u.query = query.data();
                u.items = items.data();
                u.queries = n;
                u.items_count = m;
                u.columns = c;
                u.hard = hard;
                u.dtype = dtype;
                u.grad = grad.data();
                compare("memory_update", {Buffer(dtype, m * c)}, 1e-5,
                        [u](std::vector<Buffer>& out, int threads, const char* tier) {
                            MemoryUpdate with = u;
                            with.threads = threads;
                            with.result = out[0].data();
                            return run(with, false, tier);
                        });
                compare("memory_update backward", {Buffer(dtype, n * c), Buffer(dtype, m * c)}, 1e-4,
                        [u](std::vector<Buffer>& out, int threads, const char* tier) {
                            MemoryUpdate with = u;
                            with.threads = threads;
                            with.grad_query = out[0].data();
                            with.grad_items = out[1].data();
                            return run(with, true, tier);
                        });
            }
        }
    }
}

GaussianPyramid pyramid(Buffer& x, Index height, Index width, Index channels, PyramidKernel kernel,
                        const std::vector<int>& factors) {
    GaussianPyramid a{};
    a.x = x.data();
    a.pictures = 2;
    a.height = height;
    a.width = width;
    a.channels = channels;
    a.kernel = kernel;
    a.count = static_cast<int>(factors.size());
    for (std::size_t k = 0; k < factors.size(); ++k) a.factors[k] = factors[k];
    a.dtype = x.dtype;
    return a;
}

void check_pyramid() {
    const Index sizes[][3] = {{1, 1, 1}, {2, 3, 3}, {7, 5, 1}, {9, 70, 3}, {33, 131, 1}, {5, 6, 20}};
    const std::vector<std::vector<int>> box = {{2, 4}, {3}, {4, 6}};
    for (const DType dtype : {DType::f32, DType::bf16, DType::u8}) {
        for (const auto& size : sizes) {
            for (int kind = 0; kind < 4; ++kind) {
                const PyramidKernel kernel = kind < 3 ? PyramidKernel::box : PyramidKernel::binomial;
                const std::vector<int> factors =
                    kind < 3 ? box[static_cast<std::size_t>(kind)] : std::vector<int>{2, 4, 8};
                Buffer x = random_buffer(dtype, 2 * size[0] * size[1] * size[2], 1);
                const GaussianPyramid a = pyramid(x, size[0], size[1], size[2], kernel, factors);
                std::vector<Buffer> levels, grads;
                for (const int factor : factors) {
                    const Index n = 2 * ((size[0] + factor - 1) / factor) * ((size[1] + factor - 1) / factor) * size[2];
                    levels.emplace_back(dtype, n);
                    grads.push_back(random_buffer(dtype, n, static_cast<unsigned>(factor)));
                }
                compare("gaussian_pyramid", levels, 1e-6, [a](std::vector<Buffer>& out, int threads, const char* tier) {
                    GaussianPyramid with = a;
                    with.threads = threads;
                    for (std::size_t k = 0; k < out.size(); ++k) with.levels[k] = out[k].data();
                    return run(with, false, tier);
                });
                if (dtype == DType::u8) continue;
                compare("gaussian_pyramid backward", {Buffer(dtype, x.count())}, 1e-6,
                        [a, &grads](std::vector<Buffer>& out, int threads, const char* tier) {
                            GaussianPyramid with = a;
                            with.threads = threads;
                            for (std::size_t k = 0; k < grads.size(); ++k) with.grad_levels[k] = grads[k].data();
                            with.grad_x = out[0].data();
                            return run(with, true, tier);
                        });
            }
        }
    }
}

void check_frames() {
    const Index sizes[][2] = {{2, 2}, {8, 6}, {18, 34}, {16, 130}};
    for (const DType dtype : {DType::f32, DType::f16, DType::bf16}) {
        for (const auto& size : sizes) {
            for (int kind = 0; kind < 6; ++kind) {
                const bool nv12 = kind % 3 == 2, last = kind >= 3;
                Buffer frame = random_buffer(DType::u8, 2 * size[0] * size[1] * (nv12 ? 3 : 6) / 2, 1);
                FrameToTensor a{};
                a.frame = static_cast<const std::uint8_t*>(frame.data());
                a.batch = 2;
                a.height = size[0];
                a.width = size[1];
                a.padded_height = (size[0] + 7) / 8 * 8;
                a.padded_width = (size[1] + 7) / 8 * 8;
                a.bgr = kind % 3 == 1;
                a.nv12 = nv12;
                a.channels_last = last;
                a.black = 16;
                a.white = 219;
                a.chroma = 224;
                a.kr = 0.299F;
                a.kb = 0.114F;
                a.dtype = dtype;
                compare("frame_to_tensor", {Buffer(dtype, 2 * 3 * a.padded_height * a.padded_width)}, 0,
                        [a](std::vector<Buffer>& out, int threads, const char* tier) {
                            FrameToTensor with = a;
                            with.threads = threads;
                            with.image = out[0].data();
                            return run(with, false, tier);
                        });

                Buffer image = random_buffer(dtype, 2 * 3 * size[0] * size[1], 2),
                       beside = random_buffer(dtype, image.count(), 3);
                TensorToFrame t{};
                t.image = image.data();
                t.residual = nv12 ? beside.data() : nullptr;
                t.batch = 2;
                t.image_height = size[0];
                t.image_width = size[1];
                t.height = size[0] - 1;
                t.width = size[1] - 1;
                t.bgr = kind % 3 == 1;
                t.truncate = nv12;
                t.channels_last = last;
                t.dtype = dtype;
                compare("tensor_to_frame", {Buffer(DType::u8, 2 * 3 * t.height * t.width)}, 0,
                        [t](std::vector<Buffer>& out, int threads, const char* tier) {
                            TensorToFrame with = t;
                            with.threads = threads;
                            with.frame = static_cast<std::uint8_t*>(out[0].data());
                            return run(with, false, tier);
                        });
            }
        }
    }
}

void check_wrong_arguments() {
    Charbonnier a{};
    CHECK(run(a, false) != nullptr, "no threads");
    a.threads = 1;
    CHECK(run(a, false) == nullptr, "nothing to do is fine");
    CHECK(run(a, false, "no such tier") != nullptr, "an unknown tier");
    a.count = -1;
    CHECK(run(a, false) != nullptr, "a negative count");
    a.count = 4;
    CHECK(run(a, false) != nullptr, "missing tensors");
    a.dtype = DType::u8;
    CHECK(run(a, false) != nullptr, "a dtype it does not know");
}

void check_denormals() {
#if defined(__x86_64__)
    const unsigned before = _mm_getcsr();
    const Index count = 300000;
    Buffer pred = random_buffer(DType::f32, count, 1, 1e-39F), target = random_buffer(DType::f32, count, 2, 1e-39F);
    Buffer loss(DType::f32, count);
    Charbonnier a{};
    a.pred = pred.data();
    a.target = target.data();
    a.loss = loss.data();
    a.count = count;
    a.eps = 1e-30F;  // its square is nothing
    for (const int threads : {1, 2}) {
        a.threads = threads;
        CHECK(run(a, false) == nullptr, "denormals");
        float largest = 0;
        for (Index k = 0; k < count; ++k) largest = std::fmax(largest, loss.get(k));
        // The square of eps is held at the smallest normal number, whose root is what is left.
        CHECK(largest <= 1.1e-19F, "denormals are flushed in every thread, yet one came out as %g", double(largest));
        CHECK((_mm_getcsr() & 0x8040U) == (before & 0x8040U), "the caller's mode is put back");
    }
#endif
}

}  // namespace

void check_ops() {
    check_lstm_gates();
    check_gru_gates();
    check_charbonnier();
    check_ssim();
    check_memory();
    check_pyramid();
    check_frames();
    check_wrong_arguments();
    check_denormals();
}

// The vector type and its functions, compiled once per tier with that tier's flags, against double precision.
#include <cmath>
#include <limits>
#include <random>

#include "simd/bytes.h"
#include "simd/math.h"
#include "check.h"

namespace unrain::UNRAIN_TIER {

void check_vectors();

namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN(), kInf = std::numeric_limits<float>::infinity();

template <class F>
void lanes(float (&out)[kLanes], const F& result) {
    store(out, result);
}

// The largest error of a function in units of the last place of the true value, over many numbers.
template <class Approximate, class Exact>
double worst_ulp(float low, float high, const Approximate& approximate, const Exact& exact) {
    std::mt19937 random(1);
    std::uniform_real_distribution<float> pick(low, high);
    double worst = 0;
    for (int round = 0; round < 20000; ++round) {
        float x[kLanes], y[kLanes];
        for (float& each : x) each = pick(random) * (round % 3 == 0 ? 1e-3F : 1.0F);
        store(y, approximate(load(x)));
        for (int i = 0; i < kLanes; ++i) {
            const double want = exact(static_cast<double>(x[i]));
            const double unit = std::fabs(static_cast<double>(std::nextafter(static_cast<float>(want), kInf)) -
                                          static_cast<double>(static_cast<float>(want)));
            const double error = std::fabs(static_cast<double>(y[i]) - want) / unit;
            worst = error > worst ? error : worst;
        }
    }
    return worst;
}

void check_functions() {
    Vec slope;
    double worst = worst_ulp(-80.0F, 80.0F, [](Vec x) { return exp(x); }, [](double x) { return std::exp(x); });
    CHECK(worst < 2.0, "exp is off by %g ulp", worst);
    worst = worst_ulp(-12.0F, 12.0F, [&](Vec x) { return tanh(x, slope); }, [](double x) { return std::tanh(x); });
    CHECK(worst < 3.0, "tanh is off by %g ulp", worst);
    worst = worst_ulp(-30.0F, 30.0F, [](Vec x) { return sigmoid(x); }, [](double x) { return 1 / (1 + std::exp(-x)); });
    CHECK(worst < 3.5, "sigmoid is off by %g ulp", worst);

    const struct {
        float x, exp, tanh, sigmoid;
    } ends[] = {{200.0F, 2e38F, 1.0F, 1.0F},
                {kInf, 2e38F, 1.0F, 1.0F},
                {-200.0F, 0.0F, -1.0F, 0.0F},
                {-kInf, 0.0F, -1.0F, 0.0F},
                {0.0F, 1.0F, 0.0F, 0.5F}};
    for (const auto& end : ends) {
        float e[kLanes], t[kLanes], s[kLanes];
        lanes(e, exp(set1(end.x)));
        lanes(t, tanh(set1(end.x), slope));
        lanes(s, sigmoid(set1(end.x)));
        CHECK(end.exp > 1e38F ? e[0] >= end.exp : std::fabs(e[0] - end.exp) < 1e-37F, "exp(%g) = %g", double(end.x),
              double(e[0]));
        CHECK(std::fabs(t[0] - end.tanh) <= 0.0F, "tanh(%g) = %g", double(end.x), double(t[0]));
        CHECK(std::fabs(s[0] - end.sigmoid) < 1e-37F, "sigmoid(%g) = %g", double(end.x), double(s[0]));
    }
    float e[kLanes], t[kLanes], s[kLanes], both[kLanes];
    lanes(e, exp(set1(kNan)));
    lanes(t, tanh(set1(kNan), slope));
    lanes(s, sigmoid(set1(kNan)));
    lanes(both, sigmoid_times_tanh(set1(kNan), set1(1.0F)));
    CHECK(std::isnan(e[0]) && std::isnan(t[0]) && std::isnan(s[0]) && std::isnan(both[0]), "NaN must go through");
}

template <class T>
void check_halves(float largest) {
    // Every pattern of 16 bits survives the way to float and back, and rounding agrees with the one-at-a-time routine.
    for (std::uint32_t start = 0; start < 65536; start += kLanes) {
        T in[kLanes], out[kLanes];
        for (std::uint32_t i = 0; i < kLanes; ++i) in[i].bits = static_cast<std::uint16_t>(start + i);
        store(out, load(in));
        for (int i = 0; i < kLanes; ++i) {
            const float x = load_one(&in[i]);
            const bool same = std::isnan(x) ? std::isnan(load_one(&out[i])) : in[i].bits == out[i].bits;
            CHECK(same, "%04x came back as %04x", unsigned(in[i].bits), unsigned(out[i].bits));
            T alone;
            store_one(&alone, x);
            CHECK(std::isnan(x) || alone.bits == in[i].bits, "%04x alone came back as %04x", unsigned(in[i].bits),
                  unsigned(alone.bits));
        }
    }
    std::mt19937 random(2);
    std::uniform_real_distribution<float> exponent(-30.0F, 18.0F), mantissa(-2.0F, 2.0F);
    for (int round = 0; round < 5000; ++round) {
        float x[kLanes];
        T out[kLanes];
        for (float& each : x) each = mantissa(random) * std::exp2(std::floor(exponent(random)));
        x[0] = round % 2 == 0 ? largest : kInf;
        store(out, load(x));
        for (int i = 0; i < kLanes; ++i) {
            T alone;
            store_one(&alone, x[i]);
            CHECK(alone.bits == out[i].bits, "%a: %04x and %04x", double(x[i]), unsigned(alone.bits),
                  unsigned(out[i].bits));
        }
    }
}

void check_moves() {
    float a[2 * kLanes], b[2 * kLanes], square[kLanes][kLanes];
    for (int i = 0; i < 2 * kLanes; ++i) a[i] = static_cast<float>(i);
    Vec even, odd, low, high;
    deinterleave(load(a), load(a + kLanes), even, odd);
    store(b, even);
    store(b + kLanes, odd);
    for (int i = 0; i < kLanes; ++i) {
        CHECK(int(b[i]) == 2 * i && int(b[kLanes + i]) == 2 * i + 1, "deinterleave, lane %d", i);
    }
    interleave(even, odd, low, high);
    store(b, low);
    store(b + kLanes, high);
    for (int i = 0; i < 2 * kLanes; ++i) CHECK(int(b[i]) == i, "interleave, lane %d", i);

    Vec rows[kLanes];
    for (int i = 0; i < kLanes; ++i) rows[i] = load(a) + set1(static_cast<float>(100 * i));
    transpose(rows);
    for (int i = 0; i < kLanes; ++i) store(square[i], rows[i]);
    for (int i = 0; i < kLanes; ++i) {
        for (int j = 0; j < kLanes; ++j) CHECK(int(square[i][j]) == 100 * j + i, "transpose, %d %d", i, j);
    }
    CHECK(int(sum(load(a))) == kLanes * (kLanes - 1) / 2, "sum");

    for (Index n = 1; n < 3 * kPixelsAtOnce + 2; ++n) {
        // Exactly as much memory as there are pixels: a read or write too far is the sanitizer's to find.
        std::uint8_t* pixels = new std::uint8_t[static_cast<std::size_t>(3 * n)];
        std::uint8_t* back = new std::uint8_t[static_cast<std::size_t>(3 * n)];
        std::uint8_t* memory = new std::uint8_t[static_cast<std::size_t>(3 * n)];
        for (Index i = 0; i < 3 * n; ++i) pixels[i] = static_cast<std::uint8_t>(i * 7);
        std::uint8_t* const planes[3] = {memory, memory + n, memory + 2 * n};
        const std::uint8_t* const sources[3] = {planes[0], planes[1], planes[2]};
        split_pixels(pixels, planes, n);
        join_pixels(sources, back, n);
        for (Index i = 0; i < 3 * n; ++i) {
            CHECK(back[i] == pixels[i] && planes[i % 3][i / 3] == pixels[i], "pixels, byte %d of %d", int(i),
                  int(3 * n));
        }
        delete[] pixels;
        delete[] back;
        delete[] memory;
    }
}

}  // namespace

void check_vectors() {
    check_functions();
    check_halves<bf16>(3.3e38F);
    check_halves<f16>(65519.0F);
    check_moves();
}

}  // namespace unrain::UNRAIN_TIER

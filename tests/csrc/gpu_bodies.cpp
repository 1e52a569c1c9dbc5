// The bodies of the CUDA kernels, run on the host by a team of one thread, against the C++ loops: their indices,
// borders and arithmetic are checked here where there is no GPU, under the sanitizers too.
#define UNRAIN_TIER device

#include <cmath>
#include <random>
#include <vector>

#include "../../csrc/pixel/frames.h"
#include "../../csrc/pixel/pyramid_blocks.h"
#include "check.h"

using namespace unrain;

namespace {

using Index = std::ptrdiff_t;

struct Alone {
    int rank() const { return 0; }
    int size() const { return 1; }
    void wait() const {}
};

std::vector<std::uint8_t> random_bytes(Index count) {
    std::mt19937 random(5);
    std::vector<std::uint8_t> bytes(static_cast<std::size_t>(count));
    for (std::uint8_t& each : bytes) each = static_cast<std::uint8_t>(random());
    return bytes;
}

std::vector<float> random_numbers(Index count, unsigned seed) {
    std::mt19937 random(seed);
    std::uniform_real_distribution<float> pick(-0.2F, 1.2F);
    std::vector<float> numbers(static_cast<std::size_t>(count));
    for (float& each : numbers) each = pick(random);
    return numbers;
}

void check_frames() {
    for (int kind = 0; kind < 6; ++kind) {
        const bool nv12 = kind % 3 == 2;
        FrameToTensor a{};
        a.batch = 2;
        a.height = 18;
        a.width = 34;
        a.padded_height = 24;
        a.padded_width = 40;
        a.bgr = kind % 3 == 1;
        a.nv12 = nv12;
        a.channels_last = kind >= 3;
        a.black = 16;
        a.white = 219;
        a.chroma = 224;
        a.kr = 0.2126F;
        a.kb = 0.0722F;
        a.threads = 1;
        const std::vector<std::uint8_t> frame = random_bytes(a.batch * a.height * a.width * (nv12 ? 3 : 6) / 2);
        a.frame = frame.data();
        std::vector<float> loop(static_cast<std::size_t>(a.batch * 3 * a.padded_height * a.padded_width), NAN),
            body = loop;
        a.image = loop.data();
        CHECK(run(a, false) == nullptr, "frame_to_tensor");
        a.image = body.data();
        for (Index b = 0; b < a.batch; ++b) {
            for (Index y = 0; y < a.padded_height; ++y) {
                for (Index x = 0; x < a.padded_width; ++x) device::frame_to_tensor_pixel<float>(a, b, y, x);
            }
        }
        CHECK(loop == body, "frame_to_tensor, kind %d", kind);

        TensorToFrame t{};
        t.batch = 2;
        t.image_height = 24;
        t.image_width = 40;
        t.height = 18;
        t.width = 34;
        t.bgr = a.bgr;
        t.truncate = nv12;
        t.channels_last = a.channels_last;
        t.threads = 1;
        const std::vector<float> beside = random_numbers(static_cast<Index>(loop.size()), 2);
        t.image = loop.data();
        t.residual = nv12 ? nullptr : beside.data();
        std::vector<std::uint8_t> by_loop(static_cast<std::size_t>(t.batch * t.height * t.width * 3)),
            by_body = by_loop;
        t.frame = by_loop.data();
        CHECK(run(t, false) == nullptr, "tensor_to_frame");
        t.frame = by_body.data();
        for (Index b = 0; b < t.batch; ++b) {
            for (Index y = 0; y < t.height; ++y) {
                for (Index x = 0; x < t.width; ++x) device::tensor_to_frame_pixel<float>(t, b, y, x);
            }
        }
        CHECK(by_loop == by_body, "tensor_to_frame, kind %d", kind);
    }
}

// Every level by the bodies, in the launches that kernels/gaussian_pyramid/cuda.py makes of them.
template <class T>
void levels_by_bodies(const GaussianPyramid& a) {
    if (a.kernel == PyramidKernel::box) {
        Index outputs = 0;
        for (int k = 0; k < a.count; ++k) outputs += device::level_numbers(a, k);
        for (Index k = 0; k < outputs; ++k) device::box_output<T>(a, k);
        return;
    }
    for (int first = 0; first < a.count; first += device::kMostAtOnce) {
        const int count = a.count - first < device::kMostAtOnce ? a.count - first : device::kMostAtOnce;
        const Index height = device::halved(a.height, first), width = device::halved(a.width, first);
        const device::LevelGroup group{first == 0 ? a.x : a.levels[first - 1], height, width, first, count};
        const Index rows = (device::halved(height, count) + device::kTile - 1) / device::kTile;
        const Index columns = (device::halved(width, count) + device::kTile - 1) / device::kTile;
        for (Index plane = 0; plane < a.pictures * a.channels; ++plane) {
            for (Index tile = 0; tile < rows * columns; ++tile) {
                std::vector<float> shared(device::kSharedNumbers, NAN);
                device::binomial_tile<T>(a, group, plane / a.channels, plane % a.channels, tile / columns,
                                         tile % columns, shared.data(), Alone{});
            }
        }
    }
}

template <class T>
double apart(const std::vector<std::vector<T>>& a, const std::vector<std::vector<T>>& b) {
    double worst = 0;
    for (std::size_t k = 0; k < a.size(); ++k) {
        for (std::size_t i = 0; i < a[k].size(); ++i) {
            const double distance = std::fabs(static_cast<double>(a[k][i]) - static_cast<double>(b[k][i]));
            worst = distance <= worst ? worst : distance;  // NaN stays
        }
    }
    return worst;
}

template <class T>
void check_levels(const std::vector<T>& x, GaussianPyramid a, double within) {
    a.x = x.data();
    std::vector<std::vector<T>> loop, body;
    for (int k = 0; k < a.count; ++k) loop.emplace_back(static_cast<std::size_t>(device::level_numbers(a, k)), T(77));
    body = loop;
    for (int k = 0; k < a.count; ++k) a.levels[k] = loop[static_cast<std::size_t>(k)].data();
    CHECK(run(a, false) == nullptr, "gaussian_pyramid");
    for (int k = 0; k < a.count; ++k) a.levels[k] = body[static_cast<std::size_t>(k)].data();
    levels_by_bodies<T>(a);
    const double distance = apart(loop, body);
    CHECK(distance <= within, "levels of %d x %d x %d, kernel %d: %g apart", int(a.height), int(a.width),
          int(a.channels), int(a.kernel), distance);
}

void check_gradient(GaussianPyramid a, Index numbers) {
    std::vector<std::vector<float>> grads;
    for (int k = 0; k < a.count; ++k)
        grads.push_back(random_numbers(device::level_numbers(a, k), static_cast<unsigned>(k)));
    for (int k = 0; k < a.count; ++k) a.grad_levels[k] = grads[static_cast<std::size_t>(k)].data();
    std::vector<std::vector<float>> loop(1, std::vector<float>(static_cast<std::size_t>(numbers), NAN)), body = loop;
    a.grad_x = loop[0].data();
    CHECK(run(a, true) == nullptr, "gaussian_pyramid backward");
    a.grad_x = body[0].data();
    if (a.kernel == PyramidKernel::box) {
        for (Index k = 0; k < numbers; ++k) device::box_gradient<float>(a, k);
    } else {
        std::vector<float> coarser = grads.back();
        for (int level = a.count - 1; level >= 0; --level) {
            const Index height = device::halved(a.height, level), width = device::halved(a.width, level);
            const float* own = level > 0 ? grads[static_cast<std::size_t>(level - 1)].data() : nullptr;
            std::vector<float> finer(static_cast<std::size_t>(a.pictures * height * width * a.channels), NAN);
            for (Index k = 0; k < static_cast<Index>(finer.size()); ++k) {
                device::binomial_gradient(coarser.data(), own, finer.data(), height, width, a.channels, k);
            }
            coarser = finer;
        }
        body[0] = coarser;
    }
    const double distance = apart(loop, body);
    CHECK(distance <= 1e-6, "gradient of %d x %d x %d, kernel %d: %g apart", int(a.height), int(a.width),
          int(a.channels), int(a.kernel), distance);
}

void check_pyramid() {
    const Index sizes[][3] = {{1, 1, 1}, {2, 3, 1}, {5, 4, 3}, {40, 33, 1}, {131, 300, 1}, {129, 70, 3}, {256, 128, 1}};
    for (const auto& size : sizes) {
        for (const bool box : {true, false}) {
            for (int count = 1; count <= 5; ++count) {
                GaussianPyramid a{};
                a.pictures = 2;
                a.height = size[0];
                a.width = size[1];
                a.channels = size[2];
                a.kernel = box ? PyramidKernel::box : PyramidKernel::binomial;
                a.count = count;
                for (int k = 0; k < count; ++k) a.factors[k] = box ? k + 2 : 2 << k;
                a.threads = 1;
                const Index numbers = 2 * size[0] * size[1] * size[2];
                a.dtype = DType::f32;
                check_levels(random_numbers(numbers, 3), a, 1e-6);
                check_gradient(a, numbers);
                a.dtype = DType::u8;
                check_levels(random_bytes(numbers), a, 0);
            }
        }
    }
}

}  // namespace

void check_gpu_bodies() {
    check_frames();
    check_pyramid();
}

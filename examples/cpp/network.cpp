#include "network.h"
#include "integrity.h"

#include <ATen/Context.h>
#include <ATen/Functions.h>
#include <ATen/Parallel.h>
#include <c10/core/InferenceMode.h>
#include <torch/csrc/inductor/aoti_package/model_package_loader.h>
#if __has_include(<torch/headeronly/version.h>)
#include <torch/headeronly/version.h>
#else
#include <torch/csrc/api/include/torch/version.h>
#endif

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <stdexcept>
#include <vector>

struct Network::Torch {
    torch::inductor::AOTIModelPackageLoader loader;
    at::Tensor host;                 // float32 [1, 3, height, width], values in [0, 1]
    std::vector<at::Tensor> inputs;  // the same where the package computes; on the CPU `host` itself

    Torch(const std::string& package, int height, int width, const std::string& device)
        : loader(package, "model", /*run_single_threaded=*/false, /*num_runners=*/1),
          host(at::empty({1, 3, height, width}, at::kFloat)),
          inputs{device == "cpu" ? host : at::empty_like(host, c10::Device(device))} {}
};

namespace {

using Metadata = std::unordered_map<std::string, std::string>;

const std::string& entry(const Metadata& metadata, const std::string& key, const std::string& package) {
    const auto found = metadata.find(key);
    if (found == metadata.end())
        throw std::runtime_error(package + " does not say its " + key + "; make it with unrain export --to package");
    return found->second;
}

int number(const Metadata& metadata, const std::string& key, int largest, const std::string& package) {
    const std::string& text = entry(metadata, key, package);
    char* end = nullptr;
    const long value = std::strtol(text.c_str(), &end, 10);
    if (text.empty() || *end != '\0' || value < 1 || value > largest)
        throw std::runtime_error(package + " says " + key + " is " + text.substr(0, 40));
    return int(value);
}

// The machine code in a package for a CPU needs the vector instructions of the machine that made it.
void require_instructions(const Metadata& metadata, const std::string& package) {
#if defined(__x86_64__)
    const auto found = metadata.find("AOTI_CPU_ISA");
    const std::string isa = found == metadata.end() ? "" : found->second;
    const bool avx512 = isa.find("AVX512") != std::string::npos, avx2 = isa.find("AVX2") != std::string::npos;
    if ((avx512 && !__builtin_cpu_supports("avx512f")) || (avx2 && !__builtin_cpu_supports("avx2")))
        throw std::runtime_error(package + " needs " + isa + ", which this CPU lacks; export it on such a machine");
#else
    (void)metadata, (void)package;
#endif
}

// libtorch's messages go on with a C++ stack for many lines.
std::string first_line(const std::string& text) { return text.substr(0, text.find('\n')); }

}  // namespace

Network::Network(const std::string& package, int threads) : threads_(threads) {
    require_intact(package);
    Metadata metadata;
    try {
        // Read before any of its code is loaded.
        metadata = torch::inductor::AOTIModelPackageLoader::load_metadata_from_package(package, "model");
    } catch (const std::exception& error) {
        throw std::runtime_error(package + " is no package, or only a part of one: " + first_line(error.what()));
    }
    name_ = entry(metadata, "unrain_model", package);
    height_ = number(metadata, "unrain_height", 16384, package);
    width_ = number(metadata, "unrain_width", 16384, package);
    const std::string made_by = entry(metadata, "unrain_libtorch", package);
    if (made_by != TORCH_VERSION)
        throw std::runtime_error(package + " was made by torch " + made_by + ", this program has " TORCH_VERSION +
                                 "; export it again, or build against that torch");
    if (number(metadata, "unrain_batch", 1024, package) != 1)
        throw std::runtime_error(package + " takes several pictures at once; export it without --batch");
    const std::string device = entry(metadata, "AOTI_DEVICE_KEY", package);
    if (device == "cpu") require_instructions(metadata, package);
    if (device != "cpu" && !at::hasCUDA())
        throw std::runtime_error(package + " is for " + device + ", and this libtorch finds none here");
    try {
        torch_ = std::make_unique<Torch>(package, height_, width_, device);
    } catch (const std::exception& error) {
        throw std::runtime_error(package + " cannot be loaded: " + first_line(error.what()));
    }
}

Network::~Network() = default;

void Network::enter_thread() const {
    if (threads_ > 0) at::set_num_threads(threads_);
    at::globalContext().setFlushDenormal(true);  // numbers below 1e-38 cost tens of times the others
}

bool Network::derain(const std::uint8_t* frame, std::uint8_t* derained) {
    const c10::InferenceMode no_gradients;
    const std::int64_t pixels = std::int64_t(height_) * width_;
    at::Tensor& host = torch_->host;
    float* const planes = host.data_ptr<float>();
    for (std::int64_t i = 0; i < pixels; ++i)
        for (int channel = 0; channel < 3; ++channel)
            planes[channel * pixels + i] = float(frame[3 * i + channel]) / 255.0f;
    if (!torch_->inputs[0].is_same(host)) torch_->inputs[0].copy_(host);

    const std::vector<at::Tensor> outputs = torch_->loader.run(torch_->inputs);
    if (outputs.size() != 1 || outputs[0].sizes() != host.sizes() || outputs[0].scalar_type() != at::kFloat)
        throw std::runtime_error("the package gives something else than a picture");
    const at::Tensor picture = outputs[0].to(at::kCPU).contiguous();
    const float* const values = picture.data_ptr<float>();
    // NaN and infinity survive being multiplied by zero and added up.
    float poison = 0.0f;
    for (std::int64_t i = 0; i < 3 * pixels; ++i) poison += values[i] * 0.0f;
    if (poison != 0.0f) return false;
    for (std::int64_t i = 0; i < pixels; ++i)
        for (int channel = 0; channel < 3; ++channel) {
            const float value = std::nearbyint(values[channel * pixels + i] * 255.0f);
            derained[3 * i + channel] = std::uint8_t(std::clamp(value, 0.0f, 255.0f));
        }
    return true;
}

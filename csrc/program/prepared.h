// A program's weights as one machine computes with them: packed for a precision. Read-only once made, and shared by all
// contexts; it needs the program's bytes for as long as it lives.
#pragma once

#include <vector>

#include "operation.h"
#include "program.h"

namespace unrain::program {

struct Arithmetic {
    DType maps = DType::f32;      // of all that may be stored so: float32 or bfloat16
    DType products = DType::f32;  // bfloat16 only for such maps, and where multiplies_bf16()
};

// What instructions that compute the same on other values share.
struct Layer {
    ConvLayer conv = {};                                   // of conv and conv_lstm
    const void* packed = nullptr;                          // their weights
    const float* constants[kMostOperationConstants] = {};  // of the other operations
};

class Prepared {
public:
    // Which layers there are; false with a message where one cannot run.
    bool plan(const Program& program, Arithmetic arithmetic, Message& message);

    // Bytes that `pack` fills, 64 bytes aligned.
    std::size_t bytes() const { return bytes_; }
    bool pack(void* memory, Message& message);

    const Program& program() const { return *program_; }
    const Arithmetic& arithmetic() const { return arithmetic_; }
    const Layer& layer(const Instruction& instruction) const {
        return layers_[layer_of_[static_cast<std::size_t>(&instruction - program_->instructions)]];
    }

    DType dtype_of(const Value& v) const {
        const bool computed = v.kind == Kind::map && !is_thin(v) && v.storage == Storage::compute;
        return computed ? arithmetic_.maps : DType::f32;
    }
    // Of one number per picture, or of one pixel of a map.
    std::size_t pixel_bytes(const Value& v) const {
        return std::size_t{stored_channels(v)} * (dtype_of(v) == DType::f32 ? 4 : 2);
    }

private:
    struct Use {
        const Run* run;
        const Instruction* instruction;  // the first that uses the layer
    };
    bool same(const Use& a, const Run& run, const Instruction& b) const;
    ConvLayer conv_of(const Use& use) const;
    std::size_t lay_out(void* memory);

    const Program* program_ = nullptr;
    Arithmetic arithmetic_;
    std::vector<Use> uses_;  // of each layer
    std::vector<Layer> layers_;
    std::vector<std::uint32_t> layer_of_;  // for each instruction
    std::size_t bytes_ = 0;
};

}  // namespace unrain::program

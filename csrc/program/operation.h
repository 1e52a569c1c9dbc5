// What one instruction that is no convolution works on: csrc/kernels/program_*.h run it.
#pragma once

#include "../conv.h"
#include "format.h"

namespace unrain::program {

constexpr int kMostOperationConstants = 4;

// A map, or a vector as a map of one pixel. Of each pixel `stored` numbers lie in memory.
struct Place {
    void* data = nullptr;  // null: absent
    std::ptrdiff_t channels = 0, stored = 0, height = 0, width = 0;
    DType dtype = DType::f32;
    bool vector = false;

    UNRAIN_HD bool thin() const { return stored == static_cast<std::ptrdiff_t>(kThinChannels); }
    UNRAIN_HD std::ptrdiff_t pixels() const { return height * width; }  // of one picture
    UNRAIN_HD std::ptrdiff_t numbers() const { return pixels() * stored; }
};

// Constants of an operation, as prepared:
//   per channel  filled up to the stored channels (a thin map's four repeated up to 16): slopes, scales, offsets, bias
//   affine       scale, offset, order (whole numbers, as float), slope
//   dense        weight [inputs stored, outputs stored], bias, slope
//   norms        scale, offset
//   memory_read  items [count, stored], and once more at length one
//   fill         values
struct Operation {
    Op op = Op::copy;
    Act act = Act::none;
    Place y, second;
    int operands = 0;
    Place x[kMostOperands];
    const float* constants[kMostOperationConstants] = {};  // null: absent
    const std::int32_t* attribute = nullptr;               // six of them
    std::ptrdiff_t batch = 1;
    void* workspace = nullptr;  // operation_workspace() bytes, 64 bytes aligned
    int threads = 1;
};

// The two ends of a run: planar float32 pictures beside the map that the instructions know.
struct PictureCall {
    const float* from = nullptr;  // picture_in: [batch, channels, height, width]
    float* to = nullptr;          // picture_out: the same
    Place map;                    // of the padded size
    Padding padding = Padding::reflected;
    std::ptrdiff_t batch = 1, height = 0, width = 0;
    int threads = 1;
};

// What a tier offers to programs.
struct Kernels {
    void (*operation)(const Operation&);
    void (*picture_in)(const PictureCall&);
    void (*picture_padding)(const PictureCall&);  // only what lies beyond the picture, from what lies in it
    void (*picture_out)(const PictureCall&);
};

// Bytes that an operation of these places works in.
std::ptrdiff_t operation_workspace(const Operation& operation);

// Pixels that one task of a reduction over a picture sums up.
constexpr std::ptrdiff_t kReducedPixels = 2048;

}  // namespace unrain::program

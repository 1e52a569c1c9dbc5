#include "prepared.h"

#include <cmath>
#include <cstring>
#include <map>
#include <new>

#include "../ops.h"
#include "carver.h"

namespace unrain::program {

namespace {

// A constant in float32; where it is stored so, its place in the file.
class Numbers {
public:
    Numbers(const Program& program, std::uint32_t constant) : count_(0), numbers_(nullptr) {
        if (constant == kAbsent) return;
        const Constant& c = program.constants[constant];
        const unsigned char* from = program.data + c.offset;
        count_ = static_cast<std::size_t>(c.count);
        if (c.dtype == 0) {
            numbers_ = reinterpret_cast<const float*>(from);
            return;
        }
        converted_.resize(count_);
        for (std::size_t k = 0; k < count_; ++k) converted_[k] = number_at(program, c, k);
        numbers_ = converted_.data();
    }
    bool there() const { return numbers_ != nullptr; }
    std::size_t count() const { return count_; }
    const float* data() const { return numbers_; }
    float operator[](std::size_t k) const { return numbers_[count_ == 1 ? 0 : k]; }

    // One number for each of so many outputs.
    const float* spread(std::size_t outputs, std::vector<float>& memory) const {
        if (!there() || count_ == outputs) return numbers_;
        memory.assign(outputs, numbers_[0]);
        return memory.data();
    }

private:
    std::size_t count_;
    const float* numbers_;
    std::vector<float> converted_;
};

// What the flags ask for comes behind an operation's own constants.
struct Flagged {
    std::uint32_t bias = kAbsent, slope1 = kAbsent, slope2 = kAbsent;
    Flagged(const Program& p, const Instruction& i, std::uint32_t own) {
        if ((i.flags & kBias) != 0) bias = p.constant(i, own++);
        if ((i.flags & kSlope1) != 0) slope1 = p.constant(i, own++);
        if ((i.flags & kSlope2) != 0) slope2 = p.constant(i, own++);
    }
};

bool is_conv(const Instruction& i) { return i.op == Op::conv || i.op == Op::conv_lstm; }

std::size_t row_length(const Value& v) {
    const std::size_t stored = stored_channels(v);
    return stored < kChannelBlock ? kChannelBlock : stored;
}

// A number for each stored channel; those of a thin map repeat.
const float* channel_row(const Program& p, std::uint32_t constant, const Value& y, Carver& carver) {
    if (constant == kAbsent) return nullptr;
    const std::size_t length = row_length(y), stored = stored_channels(y);
    float* row = carver.take<float>(length);
    if (row == nullptr) return nullptr;
    const Numbers numbers(p, constant);
    for (std::size_t k = 0; k < length; ++k) row[k] = k % stored < y.channels ? numbers[k % stored] : 0.0F;
    return row;
}

// [inputs, outputs stored], from [outputs, inputs].
const float* dense_weights(const Program& p, std::uint32_t constant, const Value& x, const Value& y, Carver& carver) {
    const std::size_t stored = stored_channels(y);
    float* turned = carver.take<float>(x.channels * stored);
    if (turned == nullptr) return nullptr;
    const Numbers numbers(p, constant);
    std::memset(turned, 0, x.channels * stored * sizeof(float));
    for (std::size_t o = 0; o < y.channels; ++o) {
        for (std::size_t i = 0; i < x.channels; ++i) turned[i * stored + o] = numbers.data()[o * x.channels + i];
    }
    return turned;
}

// The items as they are and at length one.
void memory_items(const Program& p, const Instruction& i, const Value& y, Carver& carver,
                  const float* (&constants)[kMostOperationConstants]) {
    const std::size_t count = static_cast<std::size_t>(i.attribute[0]), columns = y.channels;
    float *raw = carver.take<float>(count * columns), *unit = carver.take<float>(count * columns);
    constants[0] = raw;
    constants[1] = unit;
    if (raw == nullptr) return;
    const Numbers numbers(p, p.constant(i, 0));
    std::memcpy(raw, numbers.data(), count * columns * sizeof(float));
    for (std::size_t m = 0; m < count; ++m) {
        double square = 0;
        for (std::size_t k = 0; k < columns; ++k) {
            square += static_cast<double>(raw[m * columns + k]) * static_cast<double>(raw[m * columns + k]);
        }
        const double length = std::sqrt(square), least = 1e-12;
        for (std::size_t k = 0; k < columns; ++k) {
            const double by = length < least ? least : length;
            unit[m * columns + k] = static_cast<float>(static_cast<double>(raw[m * columns + k]) / by);
        }
    }
}

void lay_out_constants(const Program& p, const Run& run, const Instruction& i, Carver& carver, Layer& layer) {
    const Value& y = p.value(run, i.output);
    auto& constants = layer.constants;
    const auto own = [&](std::uint32_t k) { return k < i.constants ? p.constant(i, k) : kAbsent; };
    switch (i.op) {
        case Op::add:
        case Op::sub:
        case Op::mul:
            constants[0] = channel_row(p, Flagged(p, i, 0).slope1, y, carver);
            break;
        case Op::affine:
            for (std::uint32_t k = 0; k < 3; ++k) constants[k] = channel_row(p, own(k), y, carver);
            constants[3] = channel_row(p, Flagged(p, i, 3).slope1, y, carver);
            break;
        case Op::dense: {
            const Flagged flagged(p, i, 1);
            constants[0] = dense_weights(p, own(0), p.value(run, p.operand(i, 0)), y, carver);
            constants[1] = channel_row(p, flagged.bias, y, carver);
            constants[2] = channel_row(p, flagged.slope1, y, carver);
            break;
        }
        case Op::instance_norm:
        case Op::channel_norm:
            for (std::uint32_t k = 0; k < 2; ++k) constants[k] = channel_row(p, own(k), y, carver);
            break;
        case Op::memory_read:
            memory_items(p, i, y, carver, constants);
            break;
        case Op::fill:
            constants[0] = channel_row(p, own(0), y, carver);
            break;
        default:
            break;
    }
}

}  // namespace

bool Prepared::same(const Use& use, const Run& run, const Instruction& b) const {
    const Instruction& a = *use.instruction;
    const Program& p = *program_;
    const bool alike = a.op == b.op && a.act1 == b.act1 && a.act2 == b.act2 && a.flags == b.flags &&
                       a.operands == b.operands && a.constants == b.constants &&
                       std::memcmp(a.attribute, b.attribute, sizeof(a.attribute)) == 0;
    if (!alike) return false;
    for (std::uint32_t k = 0; k < a.constants; ++k) {
        if (p.constant(a, k) != p.constant(b, k)) return false;
    }
    const auto like = [](const Value& v, const Value& w) {
        return v.kind == w.kind && v.storage == w.storage && v.channels == w.channels;
    };
    for (std::uint32_t k = 0; k < a.operands; ++k) {
        const std::uint32_t of_a = p.operand(a, k), of_b = p.operand(b, k);
        if ((of_a == kAbsent) != (of_b == kAbsent)) return false;
        if (of_a != kAbsent && !like(p.value(*use.run, of_a), p.value(run, of_b))) return false;
    }
    return like(p.value(*use.run, a.output), p.value(run, b.output));
}

ConvLayer Prepared::conv_of(const Use& use) const {
    const Program& p = *program_;
    const Instruction& i = *use.instruction;
    const Value& y = p.value(*use.run, i.output);
    const bool cell = i.op == Op::conv_lstm;
    ConvLayer layer{};
    layer.kernel = i.attribute[0];
    layer.stride = cell ? 1 : i.attribute[1];
    layer.dilation = cell ? 1 : i.attribute[2];
    layer.groups = cell ? 1 : i.attribute[3];
    layer.form = cell ? 0 : i.attribute[4];
    layer.shuffle = !cell && i.attribute[5] == 2 ? 2 : 1;
    layer.gates = cell ? i.attribute[1] : 0;
    layer.adds = (i.flags & kAdds) != 0;
    layer.sources = static_cast<int>(i.operands) - (layer.adds || layer.gates == 4 ? 1 : 0);
    for (int k = 0; k < layer.sources; ++k) {
        const Value& x = p.value(*use.run, p.operand(i, static_cast<std::uint32_t>(k)));
        layer.source[k] = {static_cast<std::ptrdiff_t>(x.channels), is_thin(x), dtype_of(x)};
    }
    layer.outputs = static_cast<std::ptrdiff_t>(y.channels) * (cell ? layer.gates : layer.shuffle * layer.shuffle);
    layer.act1 = static_cast<Act>(i.act1);
    layer.act2 = static_cast<Act>(i.act2);
    layer.maps = arithmetic_.maps;
    layer.products = arithmetic_.products;
    layer.y_dtype = dtype_of(y);
    layer.y_thin = is_thin(y);
    layer.add_dtype = DType::f32;
    if (layer.adds) layer.add_dtype = dtype_of(p.value(*use.run, p.operand(i, i.operands - 1)));
    return layer;
}

bool Prepared::plan(const Program& program, Arithmetic arithmetic, Message& message) {
    const bool known = arithmetic.maps == DType::f32 || arithmetic.maps == DType::bf16;
    const bool products = arithmetic.products == DType::f32 ||
                          (arithmetic.products == DType::bf16 && arithmetic.maps == DType::bf16 && multiplies_bf16());
    if (!known || !products) return message.say("maps and products must be float32 or bfloat16 that this machine has");
    program_ = &program;
    arithmetic_ = arithmetic;
    try {
        layer_of_.assign(program.header->instructions, 0);
        std::map<std::uint32_t, std::vector<std::uint32_t>> by_constant;
        for (std::uint32_t r = 0; r < program.header->runs; ++r) {
            const Run& run = program.runs[r];
            for (std::uint32_t k = 0; k < run.instructions; ++k) {
                const Instruction& i = program.instruction(run, k);
                auto& similar = by_constant[i.constants > 0 ? program.constant(i, 0) : kAbsent];
                std::uint32_t found = kAbsent;
                for (const std::uint32_t layer : similar) {
                    if (same(uses_[layer], run, i)) found = layer;
                }
                if (found == kAbsent) {
                    found = static_cast<std::uint32_t>(uses_.size());
                    uses_.push_back({&run, &i});
                    similar.push_back(found);
                }
                layer_of_[run.first_instruction + k] = found;
            }
        }
        layers_.assign(uses_.size(), Layer{});
        for (std::size_t k = 0; k < uses_.size(); ++k) {
            if (!is_conv(*uses_[k].instruction)) continue;
            layers_[k].conv = conv_of(uses_[k]);
            if (const char* wrong = check(layers_[k].conv)) {
                const Origin origin(program, *uses_[k].instruction);
                return message.say("no kernel for the convolution %s: %s", origin.text, wrong);
            }
        }
        bytes_ = lay_out(nullptr);
        return true;
    } catch (const std::bad_alloc&) {
        return message.say("not enough memory to prepare this program");
    }
}

std::size_t Prepared::lay_out(void* memory) {
    const Program& p = *program_;
    Carver carver(memory);
    for (std::size_t k = 0; k < uses_.size(); ++k) {
        const Instruction& i = *uses_[k].instruction;
        Layer& layer = layers_[k];
        if (!is_conv(i)) {
            lay_out_constants(p, *uses_[k].run, i, carver, layer);
            continue;
        }
        char* packed = carver.take<char>(static_cast<std::size_t>(packed_bytes(layer.conv)));
        layer.packed = packed;
        if (packed == nullptr) continue;
        const Flagged flagged(p, i, 1);
        const Numbers weight(p, p.constant(i, 0)), bias(p, flagged.bias);
        const Numbers slope1(p, flagged.slope1), slope2(p, flagged.slope2);
        std::vector<float> spread1, spread2;
        const auto outputs = static_cast<std::size_t>(layer.conv.outputs);
        unrain::pack(layer.conv, weight.data(), bias.data(), slope1.spread(outputs, spread1),
                     slope2.spread(outputs, spread2), packed);
    }
    return carver.used();
}

bool Prepared::pack(void* memory, Message& message) {
    try {
        lay_out(memory);
        return true;
    } catch (const std::bad_alloc&) {
        return message.say("not enough memory to pack the weights");
    }
}

}  // namespace unrain::program

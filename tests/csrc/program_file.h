// A small program file made in memory, of nearly every operation: what the tests and the fuzzer of the core begin with.
#pragma once

#include <cstring>
#include <initializer_list>
#include <random>
#include <string>
#include <vector>

#include "../../csrc/program/format.h"
#include "../../csrc/program/sha256.h"

namespace program_file {

using namespace unrain::program;

struct Writer {
    std::vector<Run> runs;
    std::vector<Value> values;
    std::vector<Instruction> instructions;
    std::vector<std::uint32_t> operands;
    std::vector<Constant> constants;
    std::vector<Mark> marks;
    std::vector<Port> ports;
    std::vector<unsigned char> data;
    std::string text;
    std::mt19937 random{7};

    std::uint32_t value(std::uint32_t channels, int down = 0, Kind kind = Kind::map,
                        Storage storage = Storage::compute) {
        values.push_back({kind, storage, static_cast<std::uint8_t>(down), 0, channels});
        return static_cast<std::uint32_t>(values.size()) - 1 - runs.back().first_value;
    }

    std::uint32_t constant(std::size_t count, float scale = 0.2F) {
        data.resize((data.size() + 63) / 64 * 64);
        constants.push_back({data.size(), count, 0, 0});
        std::normal_distribution<float> normal(0, scale);
        for (std::size_t k = 0; k < count; ++k) {
            const float number = normal(random);
            const auto* bytes = reinterpret_cast<const unsigned char*>(&number);
            data.insert(data.end(), bytes, bytes + 4);
        }
        return static_cast<std::uint32_t>(constants.size()) - 1;
    }

    void instruction(Op op, std::uint32_t output, std::initializer_list<std::uint32_t> from,
                     std::initializer_list<std::uint32_t> held, std::initializer_list<std::int32_t> attributes = {},
                     int flags = 0, int act1 = 0, std::uint32_t second = kAbsent) {
        Instruction i{};
        i.op = op;
        i.act1 = static_cast<std::uint16_t>(act1);
        i.flags = static_cast<std::uint16_t>(flags);
        i.output = output;
        i.second_output = second;
        i.first_operand = static_cast<std::uint32_t>(operands.size());
        i.operands = static_cast<std::uint32_t>(from.size());
        operands.insert(operands.end(), from);
        i.first_constant = static_cast<std::uint32_t>(operands.size());
        i.constants = static_cast<std::uint32_t>(held.size());
        operands.insert(operands.end(), held);
        i.text = static_cast<std::uint32_t>(text.size());
        text += "layer " + std::to_string(instructions.size()) + '\0';
        std::size_t k = 0;
        for (const std::int32_t each : attributes) i.attribute[k++] = each;
        instructions.push_back(i);
    }

    std::vector<unsigned char> bytes() const {
        std::vector<unsigned char> file(sizeof(Header));
        Header h{};
        const auto put = [&file](const void* from, std::size_t count) {
            file.resize((file.size() + 63) / 64 * 64);
            const std::size_t at = file.size();
            const auto* first = static_cast<const unsigned char*>(from);
            file.insert(file.end(), first, first + count);
            return static_cast<std::uint64_t>(at);
        };
        const auto table = [&put](const auto& records, std::uint32_t& count) {
            count = static_cast<std::uint32_t>(records.size());
            return put(records.data(), records.size() * sizeof(records[0]));
        };
        h.runs_at = table(runs, h.runs);
        h.values_at = table(values, h.values);
        h.instructions_at = table(instructions, h.instructions);
        h.operands_at = table(operands, h.operands);
        h.constants_at = table(constants, h.constants);
        h.marks_at = table(marks, h.marks);
        h.ports_at = table(ports, h.ports);
        h.data_at = put(data.data(), h.data_bytes = data.size());
        h.text_at = put(text.data(), h.text_bytes = text.size());
        h.card_at = put("{}", h.card_bytes = 2);
        std::memcpy(h.magic, kMagic, sizeof(kMagic));
        h.version = kVersion;
        h.multiple = 2;
        h.in_channels = h.out_channels = 3;
        h.file_bytes = file.size();
        std::uint8_t digest[32];
        sha256(file.data() + sizeof(Header), file.size() - sizeof(Header), digest);
        std::memcpy(h.sha256, digest, sizeof(digest));
        std::memcpy(file.data(), &h, sizeof(h));
        return file;
    }
};

// Two runs of a cell and what may follow it; the weights are the same ones.
inline std::vector<unsigned char> small() {
    Writer w;
    const std::uint32_t enter = w.constant(20 * 3 * 9), bias = w.constant(20), gates3 = w.constant(48 * 20 * 9),
                        gates4 = w.constant(64 * 20 * 9), inner = w.constant(16 * 16), shares = w.constant(16 * 16),
                        slope = w.constant(16), double_size = w.constant(16 * 16 * 4), leave = w.constant(3 * 20 * 9),
                        filling = w.constant(1), items = w.constant(5 * 16);
    for (int run = 0; run < 2; ++run) {
        Run r{};
        r.first_value = static_cast<std::uint32_t>(w.values.size());
        r.first_instruction = static_cast<std::uint32_t>(w.instructions.size());
        r.first_mark = static_cast<std::uint32_t>(w.marks.size());
        r.first_port = static_cast<std::uint32_t>(w.ports.size());
        w.runs.push_back(r);
        const auto picture = w.value(3, 0, Kind::map, Storage::float32);
        const auto before = w.value(16, 0, Kind::map, Storage::float32);  // the port; of no use in the first run
        const auto wide = w.value(20), h = w.value(16), c = w.value(16, 0, Kind::map, Storage::float32);
        w.instruction(Op::conv, wide, {picture}, {enter, bias}, {3, 1, 1, 1, 0, 0}, kBias, 1);
        if (run == 0) {
            w.instruction(Op::fill, before, {picture}, {w.constant(16)});
            w.instruction(Op::conv_lstm, h, {wide}, {gates3}, {3, 3}, 0, 0, c);
        } else {
            w.instruction(Op::conv_lstm, h, {wide, before}, {gates4}, {3, 4}, 0, 0, c);
        }
        const auto half = w.value(16, 1), sum = w.value(16, 1), average = w.value(16, 0, Kind::vector);
        const auto share = w.value(16, 0, Kind::vector), scaled = w.value(16, 1);
        w.instruction(Op::pool, half, {h}, {}, {1, 2});
        w.instruction(Op::conv, sum, {half, half}, {inner}, {1, 1, 1, 1, 0, 0}, kAdds, 2);
        w.instruction(Op::mean, average, {sum}, {});
        w.instruction(Op::dense, share, {average}, {shares, slope}, {}, kSlope1, 3);
        w.instruction(Op::mul, scaled, {sum, share}, {});
        const auto normed = w.value(16, 1, Kind::map, Storage::float32),
                   read = w.value(16, 1, Kind::map, Storage::float32);
        const auto level = w.value(16, 1), small = w.value(16, 1), back = w.value(16), joined = w.value(36);
        std::int32_t eps, one;
        const float tiny = 1e-5F, most = 1.0F;
        std::memcpy(&eps, &tiny, 4);
        std::memcpy(&one, &most, 4);
        w.instruction(Op::instance_norm, normed, {scaled}, {kAbsent, kAbsent}, {eps});
        w.instruction(Op::memory_read, read, {normed}, {items}, {5});
        w.instruction(Op::channel_norm, level, {read}, {}, {eps, 1});
        w.instruction(Op::lerp, small, {scaled, level, read}, {});
        w.instruction(Op::conv, back, {small}, {double_size}, {2, 2, 1, 1, 1, 0});
        w.instruction(Op::copy, joined, {wide, back}, {});
        const auto part = w.value(20), unshuffled = w.value(80, 1), shuffled = w.value(20), filled = w.value(1);
        const auto less = w.value(1), even = w.value(20), result = w.value(3), bounded = w.value(3);
        w.instruction(Op::slice, part, {joined}, {}, {7});
        w.instruction(Op::unshuffle, unshuffled, {part}, {}, {2});
        w.instruction(Op::shuffle, shuffled, {unshuffled}, {}, {2});
        w.instruction(Op::fill, filled, {picture}, {filling});
        w.instruction(Op::affine, less, {filled}, {filling, filling, kAbsent}, {}, 0, 5);
        w.instruction(Op::sub, even, {shuffled, wide}, {}, {}, 0, 4);
        w.instruction(Op::conv, result, {even, picture}, {leave}, {3, 1, 1, 1, 0, 0}, kAdds);
        w.instruction(Op::clamp, bounded, {result}, {}, {0, one});
        Run& made = w.runs.back();
        made.values = static_cast<std::uint32_t>(w.values.size()) - made.first_value;
        made.instructions = static_cast<std::uint32_t>(w.instructions.size()) - made.first_instruction;
        made.marks = made.ports = 1;
        w.marks.push_back({made.instructions, bounded, static_cast<std::uint32_t>(w.operands.size()), 0});
        w.operands.push_back(c);
        w.ports.push_back({run == 0 ? kAbsent : before, 16, 0, 1});
    }
    return w.bytes();
}

}  // namespace program_file

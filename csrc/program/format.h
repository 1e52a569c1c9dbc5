// The records of a program file (`.unrain`), little endian, each section 64 bytes aligned: a Header, tables, the
// weights as they were trained, texts, and a card in JSON. Python writes them (engine/program/file.py), program.cpp
// checks them.
#pragma once

#include <cstddef>
#include <cstdint>

namespace unrain::program {

constexpr char kMagic[8] = {'\x89', 'U', 'N', 'R', 'A', 'I', 'N', '\n'};
constexpr std::uint32_t kVersion = 1;
constexpr std::uint32_t kAbsent = 0xFFFFFFFF;  // of an operand, a constant, a second output or a port's value
constexpr std::uint32_t kMostSources = 16;     // maps side by side
constexpr std::uint32_t kMostOperands = kMostSources + 1;
constexpr std::uint32_t kMostConstants = 5;
constexpr std::uint32_t kThinChannels = 4;   // of a map with no more, four float32 numbers per pixel are stored
constexpr std::uint32_t kChannelBlock = 16;  // of any other, a multiple of this many
constexpr std::uint32_t kMostRuns = 2;

// What lies below and to the right of a picture whose sides are no multiples.
enum class Padding : std::uint32_t { reflected = 0, edge = 1, zeros = 2 };

struct Header {
    char magic[8];
    std::uint32_t version;
    std::uint32_t multiple;   // of which both sides of the padded picture are
    std::uint8_t sha256[32];  // of all that is behind the header
    std::uint64_t file_bytes;
    std::uint32_t runs, values, instructions, operands, constants, marks, ports, in_channels;
    std::uint32_t out_channels;
    Padding padding;
    std::uint64_t runs_at, values_at, instructions_at, operands_at, constants_at, marks_at, ports_at;
    std::uint64_t data_at, data_bytes, text_at, text_bytes, card_at, card_bytes;
    std::uint8_t zeros[56];
};
static_assert(sizeof(Header) == 256);

// Instructions from zero states, or (the second run) from states that come in by ports. Values count from first_value.
struct Run {
    std::uint32_t first_value, values, first_instruction, instructions, first_mark, marks, first_port, ports;
};
static_assert(sizeof(Run) == 32);

enum class Kind : std::uint8_t { map = 0, vector = 1 };
enum class Storage : std::uint8_t { compute = 0, float32 = 1 };

// Value 0 of each run is the picture. A map is [batch, height >> log2_down, width >> log2_down, stored channels]; a
// vector [batch, stored channels] in float32.
struct Value {
    Kind kind;
    Storage storage;
    std::uint8_t log2_down, zero;
    std::uint32_t channels;
};
static_assert(sizeof(Value) == 8);

enum class Op : std::uint16_t {
    conv = 1,
    conv_lstm,
    pool,
    shuffle,
    unshuffle,
    add,
    sub,
    mul,
    affine,
    clamp,
    lerp,
    lstm,
    mean,
    dense,
    instance_norm,
    channel_norm,
    memory_read,
    copy,
    fill,
    slice,
};
constexpr int kLastOp = static_cast<int>(Op::slice);

enum Flag : std::uint16_t { kBias = 1, kSlope1 = 2, kAdds = 4, kSlope2 = 8 };

struct Instruction {
    Op op;
    std::uint16_t act1, act2, flags;
    std::uint32_t output, second_output;
    std::uint32_t first_operand, operands;    // values, in the table of operands
    std::uint32_t first_constant, constants;  // the same table: constants
    std::uint32_t only_for_mark;              // 1 more than that mark's number in its run; 0: always
    std::uint32_t text;                       // offset of a zero-terminated text: where it comes from
    std::int32_t attribute[6];
};
static_assert(sizeof(Instruction) == 64);

struct Constant {
    std::uint64_t offset, count;  // from data_at
    std::uint32_t dtype, zero;    // 0 float32, 1 float16
};
static_assert(sizeof(Constant) == 24);

struct Mark {
    std::uint32_t after;        // so many of the run's instructions are done
    std::uint32_t picture;      // a value
    std::uint32_t first_state;  // in the table of operands: a value for each port
    std::uint32_t zero;
};
static_assert(sizeof(Mark) == 16);

struct Port {
    std::uint32_t value;  // of the second run; absent in the first
    std::uint32_t channels, log2_down, storage;
};
static_assert(sizeof(Port) == 16);

}  // namespace unrain::program

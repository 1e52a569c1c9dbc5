// A program file that was found to be right, as a view of its bytes. Read-only: any number of threads may share it.
#pragma once

#include <cstddef>

#include "format.h"
#include "message.h"

namespace unrain::program {

struct Program {
    const Header* header = nullptr;
    const Run* runs = nullptr;
    const Value* values = nullptr;
    const Instruction* instructions = nullptr;
    const std::uint32_t* operands = nullptr;
    const Constant* constants = nullptr;
    const Mark* marks = nullptr;
    const Port* ports = nullptr;
    const unsigned char* data = nullptr;
    const char *texts = nullptr, *card = nullptr;  // the card is not terminated: header->card_bytes

    const Value& value(const Run& run, std::uint32_t id) const { return values[run.first_value + id]; }
    const Instruction& instruction(const Run& run, std::uint32_t k) const {
        return instructions[run.first_instruction + k];
    }
    const Mark& mark(const Run& run, std::uint32_t k) const { return marks[run.first_mark + k]; }
    const Port& port(const Run& run, std::uint32_t k) const { return ports[run.first_port + k]; }
    std::uint32_t operand(const Instruction& i, std::uint32_t k) const { return operands[i.first_operand + k]; }
    std::uint32_t constant(const Instruction& i, std::uint32_t k) const { return operands[i.first_constant + k]; }
};

inline bool is_thin(const Value& v) { return v.kind == Kind::map && v.channels <= kThinChannels; }

inline std::uint32_t stored_channels(const Value& v) {
    return is_thin(v) ? kThinChannels : (v.channels + kChannelBlock - 1) / kChannelBlock * kChannelBlock;
}

// A number of a constant, in float32 whatever it is stored in.
float number_at(const Program& program, const Constant& constant, std::size_t k);

// Where an instruction comes from, for messages: printable, and not longer than a line takes.
struct Origin {
    char text[96];
    Origin(const Program& program, const Instruction& instruction);
};

// The file at `bytes` (64 bytes aligned; they must stay) in `program`, once everything in it was checked; or false.
bool read(const void* bytes, std::size_t size, Program& program, Message& message);

// The same without its hash, which a test of the other checks would have to forge.
bool read_unhashed(const void* bytes, std::size_t size, Program& program, Message& message);

// What `read` checks once all tables lie inside the file: shapes, and that nothing is used before it was written.
bool check_runs(const Program& program, Message& message);

}  // namespace unrain::program

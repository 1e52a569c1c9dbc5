#include "program.h"

#include <cmath>
#include <cstring>
#include <initializer_list>

#include "sha256.h"

namespace unrain::program {

namespace {

float from_half(std::uint16_t h) {
    const int exponent = (h >> 10) & 31, mantissa = h & 1023;
    float size;
    if (exponent == 31) {
        size = mantissa == 0 ? HUGE_VALF : std::nanf("");
    } else {
        size = std::ldexp(static_cast<float>(exponent == 0 ? mantissa : mantissa + 1024),
                          (exponent == 0 ? 1 : exponent) - 25);
    }
    return (h & 0x8000) != 0 ? -size : size;
}

constexpr std::uint64_t kSection = 64;
constexpr std::uint32_t kMostRecords = 1U << 20, kMostInstructions = 1U << 16;
constexpr std::uint32_t kMostMultiple = 64;

class Sections {
public:
    Sections(const unsigned char* bytes, std::uint64_t size, Message& message)
        : bytes_(bytes), size_(size), message_(message) {}

    template <class Record>
    bool take(const char* name, std::uint64_t at, std::uint64_t count, const Record*& records) const {
        const bool fits = at >= sizeof(Header) && at <= size_ && count <= (size_ - at) / sizeof(Record);
        if (!fits || at % kSection != 0) {
            return message_.say("program file: the %s do not lie inside the file", name);
        }
        records = reinterpret_cast<const Record*>(bytes_ + at);
        return true;
    }

private:
    const unsigned char* bytes_;
    std::uint64_t size_;
    Message& message_;
};

bool check_header(const Header& h, std::uint64_t size, Message& message) {
    if (std::memcmp(h.magic, kMagic, sizeof(kMagic)) != 0) return message.say("this is no program file (.unrain)");
    if (h.version != kVersion) {
        return message.say("program file: version %u, and this build reads version %u", h.version, kVersion);
    }
    if (h.file_bytes != size) return message.say("program file: cut short, or something follows it");
    if (h.multiple < 1 || h.multiple > kMostMultiple || (h.multiple & (h.multiple - 1)) != 0) {
        return message.say("program file: its multiple must be a power of two up to %u", kMostMultiple);
    }
    if (h.runs < 1 || h.runs > kMostRuns) return message.say("program file: it must hold one or two runs");
    for (const std::uint32_t count : {h.values, h.instructions, h.operands, h.constants, h.marks, h.ports}) {
        if (count > kMostRecords) return message.say("program file: a table is too long");
    }
    if (h.instructions > kMostInstructions) return message.say("program file: too many instructions");
    if (h.padding > Padding::zeros) return message.say("program file: an unknown padding");
    for (const std::uint8_t zero : h.zeros) {
        if (zero != 0) return message.say("program file: the end of its header is not zero");
    }
    return true;
}

bool is_aligned(const void* bytes) { return reinterpret_cast<std::uintptr_t>(bytes) % kSection == 0; }

bool check_constants(const Program& program, Message& message) {
    const Header& h = *program.header;
    for (std::uint32_t k = 0; k < h.constants; ++k) {
        const Constant& c = program.constants[k];
        if (c.dtype > 1 || c.zero != 0) return message.say("program file: constant %u is of an unknown kind", k);
        const std::uint64_t each = c.dtype == 0 ? 4 : 2;
        const bool fits = c.offset <= h.data_bytes && c.count <= (h.data_bytes - c.offset) / each;
        if (!fits || c.offset % kSection != 0) {
            return message.say("program file: constant %u does not lie inside the file", k);
        }
    }
    return true;
}

}  // namespace

float number_at(const Program& program, const Constant& constant, std::size_t k) {
    const unsigned char* from = program.data + constant.offset;
    if (constant.dtype == 0) {
        float number;
        std::memcpy(&number, from + 4 * k, 4);
        return number;
    }
    std::uint16_t half;
    std::memcpy(&half, from + 2 * k, 2);
    return from_half(half);
}

Origin::Origin(const Program& program, const Instruction& instruction) {
    const char* from = program.texts + instruction.text;
    std::size_t k = 0;
    for (; from[k] != '\0' && k + 1 < sizeof(text); ++k) text[k] = from[k] < ' ' || from[k] > '~' ? '?' : from[k];
    text[k] = '\0';
}

bool read_unhashed(const void* bytes, std::size_t size, Program& program, Message& message) {
    if (bytes == nullptr || size < sizeof(Header)) return message.say("this is no program file (.unrain)");
    if (!is_aligned(bytes)) {
        return message.say("program file: its bytes must lie 64 bytes aligned");
    }
    const auto* base = static_cast<const unsigned char*>(bytes);
    const auto& h = *static_cast<const Header*>(bytes);
    if (!check_header(h, size, message)) return false;
    const Sections sections(base, size, message);
    Program found;
    found.header = &h;
    const bool there = sections.take("runs", h.runs_at, h.runs, found.runs) &&
                       sections.take("values", h.values_at, h.values, found.values) &&
                       sections.take("instructions", h.instructions_at, h.instructions, found.instructions) &&
                       sections.take("operands", h.operands_at, h.operands, found.operands) &&
                       sections.take("constants", h.constants_at, h.constants, found.constants) &&
                       sections.take("marks", h.marks_at, h.marks, found.marks) &&
                       sections.take("ports", h.ports_at, h.ports, found.ports) &&
                       sections.take("weights", h.data_at, h.data_bytes, found.data) &&
                       sections.take("texts", h.text_at, h.text_bytes, found.texts) &&
                       sections.take("card", h.card_at, h.card_bytes, found.card);
    if (!there) return false;
    if (h.text_bytes == 0 || found.texts[h.text_bytes - 1] != '\0') {
        return message.say("program file: its texts do not end");
    }
    if (!check_constants(found, message) || !check_runs(found, message)) return false;
    program = found;
    return true;
}

bool read(const void* bytes, std::size_t size, Program& program, Message& message) {
    // What was damaged on its way says so, whatever else may be wrong with it.
    if (bytes != nullptr && size >= sizeof(Header) && is_aligned(bytes)) {
        const auto& header = *static_cast<const Header*>(bytes);
        if (!check_header(header, size, message)) return false;
        std::uint8_t digest[32];
        sha256(static_cast<const unsigned char*>(bytes) + sizeof(Header), size - sizeof(Header), digest);
        if (std::memcmp(digest, header.sha256, sizeof(digest)) != 0) {
            return message.say("program file: it is damaged (its checksum is another one)");
        }
    }
    return read_unhashed(bytes, size, program, message);
}

}  // namespace unrain::program

// What an instruction asks of its operands and constants.
#include <cmath>
#include <cstring>
#include <initializer_list>

#include "check.h"

namespace unrain::program {

namespace {

constexpr std::uint32_t kActs = 8, kSlopeAct = 3;
constexpr int kMostKernel = 15, kMostDilation = 64;

float as_float(std::int32_t bits) {
    float x;
    std::memcpy(&x, &bits, 4);
    return x;
}

// One instruction with its operands looked up.
class InstructionCheck {
public:
    InstructionCheck(const Program& program, const Run& run, const Instruction& i, Message& message)
        : p_(program), run_(run), i_(i), message_(message), y_(program.value(run, i.output)) {}

    bool operator()() {
        if (i_.act1 >= kActs || i_.act2 >= kActs || (i_.flags & ~(kBias | kSlope1 | kAdds | kSlope2)) != 0) {
            return wrong("an unknown activation or flag");
        }
        if ((i_.act1 == kSlopeAct) != has(kSlope1) || (i_.act2 == kSlopeAct) != has(kSlope2)) {
            return wrong("a slope that is missing or has no use");
        }
        if (i_.act2 != 0 && i_.op != Op::conv) return wrong("a second activation");
        if (has(kAdds) && i_.op != Op::conv) return wrong("a sum in the wrong place");
        if (has(kBias) && i_.op != Op::conv && i_.op != Op::conv_lstm && i_.op != Op::dense) return wrong("a bias");
        const bool two = i_.op == Op::conv_lstm || i_.op == Op::lstm;
        if (two != (i_.second_output != kAbsent)) return wrong("outputs");
        return of_its_kind() || wrong("its operands");
    }

private:
    bool of_its_kind() {
        switch (i_.op) {
            case Op::conv:
                return conv();
            case Op::conv_lstm:
                return conv_lstm();
            case Op::pool:
                return pool();
            case Op::shuffle:
                return shuffled(y_, x(0));
            case Op::unshuffle:
                return shuffled(x(0), y_);
            case Op::add:
            case Op::sub:
            case Op::mul:
                return two_maps();
            case Op::affine:
                return affine();
            case Op::clamp:
                return one_map() && constants(0);
            case Op::lerp:
                return operands(3) && all_like(3, y_) && constants(0);
            case Op::lstm:
                return lstm();
            case Op::mean:
                return operands(1) && map(0) && constants(0) &&
                       (y_.kind == Kind::vector && y_.channels == x(0).channels ? true : wrong("its output"));
            case Op::dense:
                return dense();
            case Op::instance_norm:
            case Op::channel_norm:
                return norm();
            case Op::memory_read:
                return memory_read();
            case Op::copy:
                return copy();
            case Op::fill:
                return operands(1) && is_map(y_) && constants(1) && count(0, y_.channels);
            case Op::slice:
                return slice();
        }
        return wrong("an operation that this build does not know");
    }

    bool conv() {
        const std::uint32_t adds = has(kAdds) ? 1 : 0, sources = i_.operands - adds;
        const auto [kernel, stride, dilation, groups, form, shuffle] = i_.attribute;
        if (i_.operands <= adds || sources > kMostSources || !is_map(y_)) return wrong("its operands");
        if (kernel < 1 || kernel > kMostKernel || dilation < 1 || dilation > kMostDilation || form < 0 || form > 1) {
            return wrong("its kernel, dilation or form");
        }
        const int down = log2_of(stride);
        if (down < 0 || down > 3 || (shuffle != 0 && shuffle != 1 && shuffle != 2)) return wrong("its stride");
        const bool doubles = form == 1, shuffles = shuffle == 2;
        if (doubles && (kernel < 2 || kernel > 4 || stride != 2 || dilation != 1)) return wrong("its form");
        if (!doubles && kernel % 2 == 0 && (kernel != stride || dilation != 1)) return wrong("its kernel");
        std::uint64_t inputs = 0;
        for (std::uint32_t k = 0; k < sources; ++k) {
            if (!map(k) || !same_size(x(k), x(0))) return wrong("its operands");
            inputs += x(k).channels;
        }
        const int scale = x(0).log2_down + (doubles ? -1 : down) - (shuffles ? 1 : 0);
        if (scale != y_.log2_down) return wrong("the size of its output");
        const std::uint64_t outputs = std::uint64_t{y_.channels} * (shuffles ? 4 : 1);
        if (groups < 1 || inputs > kMostChannels || outputs > kMostChannels) return wrong("its groups or channels");
        const auto parts = static_cast<std::uint64_t>(groups);
        if (inputs % parts != 0 || outputs % parts != 0) return wrong("its groups");
        const auto taps = static_cast<std::uint64_t>(kernel) * static_cast<std::uint64_t>(kernel);
        if (!constants(1) || !count(0, inputs * outputs / parts * taps)) return false;
        std::uint32_t next = 1;
        if (has(kBias) && !count(next++, outputs)) return false;
        if (has(kSlope1) && !one_or(next++, outputs)) return false;
        if (has(kSlope2) && !one_or(next++, outputs)) return false;
        return adds == 0 || like(sources, y_);
    }

    bool conv_lstm() {
        const int kernel = i_.attribute[0], gates = i_.attribute[1];
        if (kernel < 1 || kernel > kMostKernel || kernel % 2 == 0 || (gates != 3 && gates != 4)) {
            return wrong("its kernel or gates");
        }
        const std::uint32_t carried = gates == 4 ? 1 : 0, sources = i_.operands - carried;
        if (i_.operands <= carried || sources > kMostSources || !is_map(y_)) return wrong("its operands");
        std::uint64_t inputs = 0;
        for (std::uint32_t k = 0; k < sources; ++k) {
            if (!map(k) || !same_size(x(k), y_)) return wrong("its operands");
            inputs += x(k).channels;
        }
        const std::uint64_t outputs = std::uint64_t{y_.channels} * static_cast<std::uint64_t>(gates);
        if (inputs > kMostChannels || outputs > kMostChannels) return wrong("its channels");
        const auto taps = static_cast<std::uint64_t>(kernel) * static_cast<std::uint64_t>(kernel);
        if (!constants(1) || !count(0, inputs * outputs * taps)) return false;
        if (has(kBias) && !count(1, outputs)) return false;
        return cell_state(second()) && (carried == 0 || cell_state(x(sources)));
    }

    bool pool() {
        const int kind = i_.attribute[0], down = log2_of(i_.attribute[1]);
        if (!operands(1) || !map(0) || !is_map(y_) || !constants(0)) return false;
        if (kind < 0 || kind > 1 || down < 0) return wrong("its kind or factor");
        return y_.channels == x(0).channels && y_.log2_down == x(0).log2_down + down ? true : wrong("its output");
    }

    // `large` is at the finer scale, `small` has more channels.
    bool shuffled(const Value& large, const Value& small) {
        const int r = i_.attribute[0], down = log2_of(r);
        if (!operands(1) || !is_map(large) || !is_map(small) || !constants(0)) return false;
        if (down < 1 || down > 3 || small.log2_down != large.log2_down + down) return wrong("its factor");
        const std::uint64_t channels = std::uint64_t{large.channels} * static_cast<std::uint64_t>(r * r);
        return channels == small.channels ? true : wrong("its channels");
    }

    bool two_maps() {
        if (!operands(2) || !like(0, y_) || !constants(0)) return false;
        const Value& b = x(1);
        const bool fits = b.channels == y_.channels && (b.kind == Kind::vector || same_kind(b, y_));
        if (!fits) return wrong("its second operand");
        return !has(kSlope1) || one_or(0, y_.channels);
    }

    // Constants: scale, offset and order, each of which may be absent, and a slope.
    bool affine() {
        if (!operands(1) || !same_kind(x(0), y_)) return wrong("its operand");
        const bool ordered = i_.constants > 2 && p_.constant(i_, 2) != kAbsent;
        if (!ordered && x(0).channels != y_.channels) return wrong("its channels");
        if (i_.constants != (has(kSlope1) ? 4U : 3U)) return wrong("its constants");
        for (std::uint32_t k = 0; k < 2; ++k) {
            if (p_.constant(i_, k) != kAbsent && !one_or(k, y_.channels)) return false;
        }
        if (has(kSlope1) && !one_or(3, y_.channels)) return false;
        return !ordered || (count(2, y_.channels) && order(x(0).channels));
    }

    bool order(std::uint32_t channels) {
        const Constant& c = p_.constants[p_.constant(i_, 2)];
        for (std::uint64_t k = 0; k < c.count; ++k) {
            const float from = number_at(p_, c, k);
            if (!(from >= 0 && from < static_cast<float>(channels)) || from != std::floor(from)) {
                return wrong("the order of its channels");
            }
        }
        return true;
    }

    bool lstm() {
        if (!operands(5) || !is_map(y_) || !constants(0) || !cell_state(second())) return false;
        const bool first = !there(4);
        for (std::uint32_t k = 0; k < 4; ++k) {
            if (k == 1 && first ? there(1) : !there(k) || !like(k, y_)) return wrong("its operands");
        }
        return first || cell_state(x(4));
    }

    bool dense() {
        if (!operands(1) || x(0).kind != Kind::vector || y_.kind != Kind::vector) return wrong("its operands");
        if (!constants(1) || !count(0, std::uint64_t{x(0).channels} * y_.channels)) return false;
        std::uint32_t next = 1;
        if (has(kBias) && !count(next++, y_.channels)) return false;
        return !has(kSlope1) || one_or(next, y_.channels);
    }

    bool norm() {
        const float eps = as_float(i_.attribute[0]);
        if (!(eps >= 0 && eps < 1e6F)) return wrong("its eps");
        if (i_.op == Op::channel_norm && (i_.attribute[1] < 0 || i_.attribute[1] > 1)) return wrong("its kind");
        if (!one_map() || i_.constants > 2) return wrong("its constants");
        for (std::uint32_t k = 0; k < i_.constants; ++k) {
            if (p_.constant(i_, k) != kAbsent && !count(k, y_.channels)) return false;
        }
        return true;
    }

    bool memory_read() {
        const std::int32_t items = i_.attribute[0];
        if (items < 1 || items > 1 << 16) return wrong("the number of its items");
        if (y_.channels % kChannelBlock != 0) return wrong("its channels (a multiple of 16)");
        if (!one_map() || !constants(1) || !count(0, static_cast<std::uint64_t>(items) * y_.channels)) return false;
        return x(0).storage == y_.storage ? true : wrong("its storage, which is not that of its operand");
    }

    bool copy() {
        if (i_.operands < 1 || i_.operands > kMostSources || !is_map(y_) || !constants(0)) return wrong("its operands");
        std::uint64_t channels = 0;
        for (std::uint32_t k = 0; k < i_.operands; ++k) {
            if (!map(k) || !same_size(x(k), y_)) return wrong("its operands");
            channels += x(k).channels;
        }
        return channels == y_.channels ? true : wrong("its channels");
    }

    bool slice() {
        if (!operands(1) || x(0).kind != y_.kind || !same_size(x(0), y_) || !constants(0)) return wrong("its operand");
        const std::int64_t first = i_.attribute[0];
        return first >= 0 && first + y_.channels <= x(0).channels ? true : wrong("its channels");
    }

    bool one_map() { return operands(1) && like(0, y_) && is_map(y_) ? true : wrong("its operand"); }
    bool has(Flag flag) const { return (i_.flags & flag) != 0; }
    const Value& x(std::uint32_t k) const { return p_.value(run_, p_.operand(i_, k)); }
    const Value& second() const { return p_.value(run_, i_.second_output); }
    bool there(std::uint32_t k) const { return p_.operand(i_, k) != kAbsent; }
    static bool is_map(const Value& v) { return v.kind == Kind::map; }
    bool map(std::uint32_t k) const { return is_map(x(k)); }
    static bool same_size(const Value& a, const Value& b) { return a.log2_down == b.log2_down; }
    static bool same_kind(const Value& a, const Value& b) { return a.kind == b.kind && same_size(a, b); }

    bool like(std::uint32_t k, const Value& v) {
        return same_kind(x(k), v) && x(k).channels == v.channels ? true : wrong("an operand of another shape");
    }
    bool all_like(std::uint32_t number, const Value& v) {
        for (std::uint32_t k = 0; k < number; ++k) {
            if (!like(k, v)) return false;
        }
        return true;
    }
    bool cell_state(const Value& c) {
        const bool right = same_kind(c, y_) && c.channels == y_.channels && c.storage == Storage::float32;
        return right ? true : wrong("its cell state");
    }
    bool operands(std::uint32_t number) { return i_.operands == number ? true : wrong("its operands"); }

    // At least so many of its own constants, and then those that the flags ask for.
    bool constants(std::uint32_t own) {
        std::uint32_t all = own;
        for (const Flag flag : {kBias, kSlope1, kSlope2}) all += has(flag) ? 1 : 0;
        return i_.constants == all ? true : wrong("its constants");
    }
    bool count(std::uint32_t k, std::uint64_t numbers) {
        if (k >= i_.constants || p_.constant(i_, k) == kAbsent) return wrong("its constants");
        return p_.constants[p_.constant(i_, k)].count == numbers ? true : wrong("the size of a constant");
    }
    bool one_or(std::uint32_t k, std::uint64_t numbers) {
        if (k >= i_.constants || p_.constant(i_, k) == kAbsent) return wrong("its constants");
        const std::uint64_t has_count = p_.constants[p_.constant(i_, k)].count;
        return has_count == 1 || has_count == numbers ? true : wrong("the size of a constant");
    }

    bool wrong(const char* what) {
        const Origin origin(p_, i_);
        return message_.say("program file: operation %d (%s): wrong: %s", static_cast<int>(i_.op), origin.text, what);
    }

    const Program& p_;
    const Run& run_;
    const Instruction& i_;
    Message& message_;
    const Value& y_;
};

}  // namespace

bool check_instruction(const Program& program, const Run& run, const Instruction& instruction, Message& message) {
    return InstructionCheck(program, run, instruction, message)();
}

}  // namespace unrain::program

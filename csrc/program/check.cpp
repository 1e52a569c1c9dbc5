// What a run asks of its values, ports, marks and of the order of its instructions.
#include <new>
#include <vector>

#include "check.h"

namespace unrain::program {

namespace {

// One run: what each instruction reads was written before it, once.
class RunCheck {
public:
    RunCheck(const Program& program, std::uint32_t number, Message& message)
        : p_(program), number_(number), run_(program.runs[number]), message_(message) {}

    bool operator()() {
        if (!inside() || !values() || !ports()) return false;
        written_.assign(run_.values, kNever);
        written_[0] = kAlways;
        for (std::uint32_t k = 0; number_ > 0 && k < run_.ports; ++k) {
            std::uint32_t& place = written_[p_.port(run_, k).value];
            if (place != kNever) return message_.say("program file: two ports share a value");
            place = kAlways;
        }
        std::uint32_t mark = 0;
        for (std::uint32_t k = 0; k <= run_.instructions; ++k) {
            for (; mark < run_.marks && p_.mark(run_, mark).after == k; ++mark) {
                if (!marked(mark)) return false;
            }
            if (mark < run_.marks && p_.mark(run_, mark).after < k) return wrong("the order of its marks");
            if (k < run_.instructions && !instruction(k, mark)) return false;
        }
        return mark == run_.marks ? true : wrong("a mark behind its end");
    }

private:
    static constexpr std::uint32_t kNever = kAbsent, kAlways = 0;  // else 1 more than the only mark it is written for

    bool inside() {
        const Header& h = *p_.header;
        const auto fits = [](std::uint32_t first, std::uint32_t count, std::uint32_t all) {
            return first <= all && count <= all - first;
        };
        const bool all = fits(run_.first_value, run_.values, h.values) &&
                         fits(run_.first_instruction, run_.instructions, h.instructions) &&
                         fits(run_.first_mark, run_.marks, h.marks) && fits(run_.first_port, run_.ports, h.ports);
        if (!all) return wrong("a part outside its table");
        return run_.values > 0 && run_.marks > 0 ? true : wrong("no picture or no mark");
    }

    bool values() {
        const int most_down = log2_of(p_.header->multiple);
        for (std::uint32_t k = 0; k < run_.values; ++k) {
            const Value& v = p_.value(run_, k);
            const bool known = v.kind <= Kind::vector && v.storage <= Storage::float32 && v.zero == 0;
            if (!known || v.channels < 1 || v.channels > kMostChannels) return wrong("a value of an unknown kind");
            const int most_scale = v.kind == Kind::map ? most_down : 0;
            if (v.log2_down > most_scale) return wrong("a value of a scale that the padded size does not have");
        }
        const Value& picture = p_.value(run_, 0);
        const bool right = picture.kind == Kind::map && picture.log2_down == 0;
        return right && picture.channels == p_.header->in_channels ? true : wrong("its picture");
    }

    bool ports() {
        if (run_.ports != p_.runs[0].ports) return wrong("other ports than the first run's");
        for (std::uint32_t k = 0; k < run_.ports; ++k) {
            const Port &port = p_.port(run_, k), &first = p_.port(p_.runs[0], k);
            const bool same = port.channels == first.channels && port.log2_down == first.log2_down;
            if (!same || port.storage != first.storage || port.storage > 1) return wrong("a port");
            if (number_ == 0 ? port.value != kAbsent : port.value >= run_.values) return wrong("the value of a port");
            if (number_ > 0 && !fits_port(p_.value(run_, port.value), port)) return wrong("the value of a port");
        }
        return true;
    }

    static bool fits_port(const Value& v, const Port& port) {
        const bool shape = v.kind == Kind::map && v.channels == port.channels && v.log2_down == port.log2_down;
        return shape && (is_thin(v) || static_cast<std::uint32_t>(v.storage) == port.storage);
    }

    bool marked(std::uint32_t number) {
        const Mark& mark = p_.mark(run_, number);
        if (mark.zero != 0 || mark.picture >= run_.values) return wrong("a mark");
        const Value& picture = p_.value(run_, mark.picture);
        const std::uint32_t written = written_[mark.picture];
        const bool ready = written == kAlways || written == number + 1;
        const bool right = picture.kind == Kind::map && picture.log2_down == 0;
        if (!ready || !right || picture.channels != p_.header->out_channels) return wrong("the picture of a mark");
        if (run_.ports == 0) return true;
        const std::uint32_t all = p_.header->operands;
        if (mark.first_state > all || run_.ports > all - mark.first_state) return wrong("the states of a mark");
        for (std::uint32_t k = 0; k < run_.ports; ++k) {
            const std::uint32_t id = p_.operands[mark.first_state + k];
            if (id >= run_.values || (written_[id] != kAlways && written_[id] != number + 1)) {
                return wrong("a state of a mark");
            }
            if (!fits_port(p_.value(run_, id), p_.port(run_, k))) return wrong("the shape of a state");
        }
        return true;
    }

    // `mark` is the one that comes next.
    bool instruction(std::uint32_t number, std::uint32_t mark) {
        const Instruction& i = p_.instruction(run_, number);
        const Header& h = *p_.header;
        if (i.text >= h.text_bytes) return wrong("a text");
        const auto inside = [&h](std::uint32_t first, std::uint32_t count) {
            return first <= h.operands && count <= h.operands - first;
        };
        if (i.operands > kMostOperands || i.constants > kMostConstants || !inside(i.first_operand, i.operands) ||
            !inside(i.first_constant, i.constants)) {
            return wrong("operands outside their table");
        }
        if (i.only_for_mark != 0 && i.only_for_mark != mark + 1) return wrong("an instruction for another mark");
        const bool lstm = i.op == Op::lstm;  // alone may lack operands
        for (std::uint32_t k = 0; k < i.operands; ++k) {
            const std::uint32_t id = p_.operand(i, k);
            if (id == kAbsent && lstm) continue;
            if (id >= run_.values) return wrong("an operand");
            if (written_[id] != kAlways && (written_[id] == kNever || written_[id] != i.only_for_mark)) {
                return wrong("a value that is used before it is written");
            }
        }
        for (std::uint32_t k = 0; k < i.constants; ++k) {
            if (p_.constant(i, k) != kAbsent && p_.constant(i, k) >= h.constants) return wrong("a constant");
        }
        const bool two = i.second_output != kAbsent;
        if (!write(i.output, i.only_for_mark) || (two && !write(i.second_output, i.only_for_mark))) {
            return wrong("a value that is written twice");
        }
        return check_instruction(p_, run_, i, message_);
    }

    bool write(std::uint32_t id, std::uint32_t only_for_mark) {
        if (id >= run_.values || written_[id] != kNever) return false;
        written_[id] = only_for_mark;
        return true;
    }

    bool wrong(const char* what) { return message_.say("program file: run %u: wrong: %s", number_, what); }

    const Program& p_;
    const std::uint32_t number_;
    const Run& run_;
    Message& message_;
    std::vector<std::uint32_t> written_;
};

}  // namespace

bool check_runs(const Program& program, Message& message) {
    try {
        for (std::uint32_t k = 0; k < program.header->runs; ++k) {
            if (!RunCheck(program, k, message)()) return false;
        }
        return true;
    } catch (const std::bad_alloc&) {
        return message.say("not enough memory to read this program");
    }
}

}  // namespace unrain::program

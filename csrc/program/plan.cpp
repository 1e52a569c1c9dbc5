#include "plan.h"

#include <algorithm>
#include <initializer_list>
#include <new>

#include "carver.h"

namespace unrain::program {

namespace {

constexpr std::ptrdiff_t kMostSide = 1 << 16;
constexpr double kMostBytes = 1e13;
constexpr std::uint32_t kForever = kAbsent;

// A stretch of memory and the time in which it is needed, in half instructions: instruction k reads and writes at
// 2 k + 2, the mark behind it comes at 2 k + 3, and what the caller brings is there at 0.
struct Buffer {
    std::size_t bytes = 0;
    std::uint32_t first = 0, last = 0;
    std::size_t offset = 0;
};

std::uint32_t time_of(std::uint32_t instruction) { return 2 * instruction + 2; }

class RunPlan {
public:
    RunPlan(const Plan& plan, std::uint32_t number)
        : plan_(plan), p_(plan.program()), number_(number), run_(p_.runs[number]) {}

    // Returns the bytes of the arena.
    std::size_t operator()(std::vector<std::size_t>& offsets) {
        find_lives();
        share_in_place();
        const std::size_t bytes = place();
        offsets.resize(run_.values);
        for (std::uint32_t v = 0; v < run_.values; ++v) offsets[v] = buffers_[buffer_of_[v]].offset;
        return bytes;
    }

private:
    void find_lives() {
        buffers_.resize(run_.values);
        buffer_of_.resize(run_.values);
        for (std::uint32_t v = 0; v < run_.values; ++v) {
            const Value& value = p_.value(run_, v);
            const auto pixels = static_cast<std::size_t>(plan_.height_of(value) * plan_.width_of(value));
            const auto batch = static_cast<std::size_t>(plan_.size.batch);
            buffers_[v].bytes = aligned_bytes(batch * pixels * plan_.prepared->pixel_bytes(value));
            buffer_of_[v] = v;
        }
        for (std::uint32_t k = 0; k < run_.instructions; ++k) {
            const Instruction& i = p_.instruction(run_, k);
            for (std::uint32_t n = 0; n < i.operands; ++n) use(p_.operand(i, n), time_of(k));
            for (const std::uint32_t output : {i.output, i.second_output}) {
                if (output == kAbsent) continue;
                buffers_[output].first = time_of(k);
                use(output, time_of(k) + 1);  // beyond the instruction's own time: two outputs never share a place
            }
        }
        for (std::uint32_t k = 0; k < run_.marks; ++k) {
            const Mark& mark = p_.mark(run_, k);
            const std::uint32_t time = 2 * mark.after + 1;
            use(mark.picture, time);
            for (std::uint32_t n = 0; n < run_.ports; ++n) use(p_.operands[mark.first_state + n], time);
        }
        // All ports are filled, one after the other, before anything runs: none may lie in another's place.
        for (std::uint32_t k = 0; number_ > 0 && k < run_.ports; ++k) use(p_.port(run_, k).value, 1);
        use(0, 1);
    }

    void use(std::uint32_t value, std::uint32_t time) {
        if (value != kAbsent) buffers_[value].last = std::max(buffers_[value].last, time);
    }

    // Lets an output lie where an operand lay that is not needed again, if every number needs only those at its place.
    void share_in_place() {
        for (std::uint32_t k = 0; k < run_.instructions; ++k) {
            const Instruction& i = p_.instruction(run_, k);
            const std::uint32_t from = first_pixelwise(i);
            for (const std::uint32_t output : {i.output, i.second_output}) {
                if (output == kAbsent) continue;
                if (output == i.output && i.op == Op::conv_lstm) continue;  // the neighbours of h are still read
                for (std::uint32_t n = from; n < i.operands; ++n) {
                    if (take_place(i, p_.operand(i, n), output, time_of(k))) break;
                }
            }
        }
    }

    // Operands from this one on are read where y is written, and nowhere else.
    static std::uint32_t first_pixelwise(const Instruction& i) {
        switch (i.op) {
            case Op::conv:
                return (i.flags & kAdds) != 0 ? i.operands - 1 : i.operands;
            case Op::conv_lstm:
                return i.attribute[1] == 4 ? i.operands - 1 : i.operands;
            case Op::add:
            case Op::sub:
            case Op::mul:
            case Op::clamp:
            case Op::lerp:
            case Op::lstm:
                return 0;
            case Op::affine:
                return i.constants > 2 ? i.operands : 0;
            default:
                return i.operands;
        }
    }

    bool take_place(const Instruction& i, std::uint32_t operand, std::uint32_t output, std::uint32_t time) {
        if (operand == kAbsent) return false;
        const std::uint32_t place = buffer_of_[operand];
        Buffer &old = buffers_[place], &own = buffers_[output];
        if (old.last != time || old.bytes != own.bytes) return false;
        const Value &from = p_.value(run_, operand), &to = p_.value(run_, output);
        const bool alike = from.kind == to.kind && stored_channels(from) == stored_channels(to) &&
                           plan_.prepared->dtype_of(from) == plan_.prepared->dtype_of(to);
        if (!alike) return false;
        for (std::uint32_t n = 0; n < first_pixelwise(i); ++n) {  // a map of a convolution that is added to it, too
            if (p_.operand(i, n) != kAbsent && buffer_of_[p_.operand(i, n)] == place) return false;
        }
        old.last = own.last;
        buffer_of_[output] = place;
        own.bytes = 0;
        return true;
    }

    // The largest first, each into the smallest gap that it fits in between those that are needed at the same time.
    std::size_t place() {
        std::vector<std::uint32_t> order;
        for (std::uint32_t v = 0; v < run_.values; ++v) {
            if (buffers_[v].bytes > 0) order.push_back(v);
        }
        std::stable_sort(order.begin(), order.end(), [this](std::uint32_t a, std::uint32_t b) {
            return buffers_[a].bytes != buffers_[b].bytes ? buffers_[a].bytes > buffers_[b].bytes
                                                          : buffers_[a].first < buffers_[b].first;
        });
        std::vector<std::uint32_t> placed;  // by offset
        std::size_t total = 0;
        for (const std::uint32_t v : order) {
            Buffer& own = buffers_[v];
            std::size_t end = 0, best = 0, best_gap = 0;
            bool found = false;
            for (const std::uint32_t w : placed) {
                const Buffer& other = buffers_[w];
                if (other.last < own.first || own.last < other.first) continue;
                if (other.offset >= end + own.bytes && (!found || other.offset - end < best_gap)) {
                    found = true;
                    best = end;
                    best_gap = other.offset - end;
                }
                end = std::max(end, other.offset + other.bytes);
            }
            own.offset = found ? best : end;
            total = std::max(total, own.offset + own.bytes);
            const auto behind =
                std::upper_bound(placed.begin(), placed.end(), own.offset,
                                 [this](std::size_t offset, std::uint32_t w) { return offset < buffers_[w].offset; });
            placed.insert(behind, v);
        }
        return total;
    }

    const Plan& plan_;
    const Program& p_;
    const std::uint32_t number_;
    const Run& run_;
    std::vector<Buffer> buffers_;           // of each value
    std::vector<std::uint32_t> buffer_of_;  // the value whose buffer a value lies in
};

std::size_t workspace_of(const Plan& plan, std::uint32_t run, const Instruction& i) {
    const Operation operation = operation_of(plan, run, i, nullptr);
    if (i.op != Op::conv && i.op != Op::conv_lstm) return static_cast<std::size_t>(operation_workspace(operation));
    const Place& x = operation.x[0];
    return static_cast<std::size_t>(
        workspace_bytes(plan.prepared->layer(i).conv, plan.size.batch, x.height, x.width, plan.threads));
}

// In floating point, which does not overflow.
double all_bytes(const Plan& plan, const Run& run) {
    double bytes = 0;
    for (std::uint32_t v = 0; v < run.values; ++v) {
        const Value& value = plan.program().value(run, v);
        bytes += static_cast<double>(plan.size.batch) * static_cast<double>(plan.height_of(value)) *
                 static_cast<double>(plan.width_of(value)) * static_cast<double>(plan.prepared->pixel_bytes(value));
    }
    return bytes;
}

}  // namespace

Place place_of(const Plan& plan, std::uint32_t run, std::uint32_t value, char* arena) {
    Place place;
    if (value == kAbsent) return place;
    const Value& v = plan.program().value(plan.program().runs[run], value);
    place.channels = static_cast<std::ptrdiff_t>(v.channels);
    place.stored = static_cast<std::ptrdiff_t>(stored_channels(v));
    place.height = plan.height_of(v);
    place.width = plan.width_of(v);
    place.dtype = plan.prepared->dtype_of(v);
    place.vector = v.kind == Kind::vector;
    if (arena != nullptr) place.data = arena + plan.offsets[run][value];
    return place;
}

Operation operation_of(const Plan& plan, std::uint32_t run, const Instruction& i, char* arena) {
    Operation operation;
    operation.op = i.op;
    operation.act = static_cast<Act>(i.act1);
    operation.y = place_of(plan, run, i.output, arena);
    operation.second = place_of(plan, run, i.second_output, arena);
    operation.operands = static_cast<int>(i.operands);
    for (std::uint32_t k = 0; k < i.operands; ++k) {
        operation.x[k] = place_of(plan, run, plan.program().operand(i, k), arena);
    }
    const Layer& layer = plan.prepared->layer(i);
    std::copy(std::begin(layer.constants), std::end(layer.constants), operation.constants);
    operation.attribute = i.attribute;
    operation.batch = plan.size.batch;
    operation.threads = plan.threads;
    return operation;
}

std::ptrdiff_t operation_workspace(const Operation& o) {
    constexpr std::ptrdiff_t kBytes = 4, kMostQueries = 32;
    const Place& x = o.x[0];
    const std::ptrdiff_t stretches = o.batch * ((x.pixels() + kReducedPixels - 1) / kReducedPixels);
    const std::ptrdiff_t row = std::max<std::ptrdiff_t>(x.stored, kChannelBlock);
    if (o.op == Op::mean) return stretches * row * kBytes;
    if (o.op == Op::instance_norm) return 2 * (stretches + o.batch) * row * kBytes;
    if (o.op == Op::memory_read) return (2 * x.stored + o.attribute[0] + 2) * kMostQueries * o.threads * kBytes;
    return 0;
}

bool make_plan(const Prepared& prepared, Size size, int threads, Plan& plan, Message& message) {
    const auto side = [](std::ptrdiff_t x) { return x >= 1 && x <= kMostSide; };
    if (!side(size.batch) || !side(size.height) || !side(size.width)) {
        return message.say("pictures must have 1 to %d pixels a side", static_cast<int>(kMostSide));
    }
    if (threads < 1 || threads > 4096) return message.say("threads must be at least 1");
    const Program& program = prepared.program();
    const auto multiple = static_cast<std::ptrdiff_t>(program.header->multiple);
    Plan made;
    made.prepared = &prepared;
    made.size = size;
    made.height = (size.height + multiple - 1) / multiple * multiple;
    made.width = (size.width + multiple - 1) / multiple * multiple;
    made.threads = threads;
    try {
        for (std::uint32_t r = 0; r < program.header->runs; ++r) {
            const Run& run = program.runs[r];
            if (all_bytes(made, run) > kMostBytes) return message.say("pictures of this size need too much memory");
            made.arena = std::max(made.arena, RunPlan(made, r)(made.offsets[r]));
            for (std::uint32_t k = 0; k < run.instructions; ++k) {
                made.workspace = std::max(made.workspace, workspace_of(made, r, program.instruction(run, k)));
            }
        }
        made.workspace = aligned_bytes(made.workspace);
        plan = std::move(made);
        return true;
    } catch (const std::bad_alloc&) {
        return message.say("not enough memory to plan a run");
    }
}

}  // namespace unrain::program

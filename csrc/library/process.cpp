// One frame after the other. Nothing here allocates, blocks or throws.
#include <time.h>

#include <cmath>
#include <cstring>

#include "context.h"

using unrain::library::FrameCall;
using unrain::library::FrameShape;
using unrain::library::shape_of;

namespace {

constexpr double kMostChange = 0.5;  // of the range, on average: no rain is that
constexpr double kFading = 0.9;      // a stage that once took long is tried again

long long now_us() {
    timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return static_cast<long long>(t.tv_sec) * 1000000 + t.tv_nsec / 1000;
}

struct Deadline {
    long long at;
    bool there;
    bool passed() const { return there && now_us() > at; }
    bool leaves(double microseconds) const {
        return !there || static_cast<double>(now_us()) + microseconds <= static_cast<double>(at);
    }
};

bool has_passed(const void* deadline) { return static_cast<const Deadline*>(deadline)->passed(); }

const char* what_is_wrong(const unrain_frame* frame, unrain_format format, const unrain_options& o, bool output) {
    if (frame == nullptr) return output ? "the frame to write is missing" : "the frame is missing";
    const FrameShape shape = shape_of(format, o.width, o.height);
    for (int k = 0; k < shape.planes; ++k) {
        if (frame->data[k] == nullptr) {
            return output ? "a plane of the frame to write is missing" : "a plane of the frame is missing";
        }
        if (std::abs(frame->stride[k]) < shape.row_bytes[k]) {
            return output ? "a stride of the frame to write is smaller than a row" : "a stride is smaller than a row";
        }
    }
    return nullptr;
}

// What comes is kept: `out` may be `in`, and a fault may show when half of it is written.
void keep(unrain_context& c, const unrain_frame& in) {
    const FrameShape shape = shape_of(c.options.input, c.options.width, c.options.height);
    for (int k = 0; k < shape.planes; ++k) {
        for (std::ptrdiff_t y = 0; y < shape.rows[k]; ++y) {
            std::memcpy(c.raw.data[k] + y * c.raw.stride[k], in.data[k] + y * in.stride[k],
                        static_cast<std::size_t>(shape.row_bytes[k]));
        }
    }
}

class Frame {
public:
    Frame(unrain_context& c, const unrain_frame& out, Deadline deadline) : c_(c), deadline_(deadline) {
        call_.raw = {c.raw.format, {c.raw.data[0], c.raw.data[1]}, {c.raw.stride[0], c.raw.stride[1]}};
        call_.out = {static_cast<unrain::library::Format>(c.options.output), {out.data[0], out.data[1]},
                     {out.stride[0], out.stride[1]}};
        call_.height = c.options.height;
        call_.width = c.options.width;
        call_.strength = c.options.strength;
        call_.change = c.change;
        call_.staging = c.staging;
        call_.threads = c.options.threads;
    }

    unrain_outcome derain() {
        if (c_.options.strength == 0.0F) {
            c_.tier->frames.through(call_);
            return in_time();
        }
        c_.core->give_up_when(deadline_.there ? has_passed : nullptr, &deadline_);
        if (!start()) return pass_through();
        const auto stages = static_cast<std::uint32_t>(c_.options.stages);
        for (std::uint32_t mark = deadline_.there ? 1 : stages; mark <= stages; ++mark) {
            if (mark > 1 && deadline_.there && !deadline_.leaves(c_.stage_us)) {
                c_.stage_us *= kFading;
                return finish(mark - 1, late());
            }
            const long long begin = now_us();
            if (!c_.core->advance(mark, nullptr, c_.reason)) return stop(mark);
            write(mark);
            if (!believable()) return pass_through();
            const auto took = static_cast<double>(now_us() - begin);
            c_.stage_us = took > kFading * c_.stage_us ? took : kFading * c_.stage_us;
        }
        return finish(stages, in_time());
    }

private:
    unrain_outcome in_time() { return deadline_.passed() ? late() : UNRAIN_OK; }

    unrain_outcome late() {
        c_.reason.say("the deadline passed");
        return UNRAIN_LATE;
    }

    unrain_outcome pass_through() {
        c_.carried = false;
        c_.tier->frames.through(call_);
        return UNRAIN_PASSTHROUGH;
    }

    // The core gave up in the stage before this mark: an earlier stage's picture is there, or none.
    unrain_outcome stop(std::uint32_t mark) {
        c_.carried = false;
        const bool failed = c_.reason.text[0] != '\0';
        if (!failed && mark > 1) return late();
        if (!failed) c_.reason.say("no stage was ready at the deadline");
        return pass_through();
    }

    bool start() {
        run_ = c_.carried ? 1 : 0;
        copy_states(run_, 0);
        const unrain::program::Place picture = c_.core->picture(run_);
        call_.map = static_cast<float*>(picture.data);
        call_.map_width = picture.width;
        c_.tier->frames.in(call_);
        return c_.core->start_written(run_, c_.reason);
    }

    void write(std::uint32_t mark) {
        const unrain::program::Place picture = c_.core->picture(run_, mark);
        call_.map = static_cast<float*>(picture.data);
        call_.map_width = picture.width;
        c_.tier->frames.out(call_);
    }

    bool believable() {
        using unrain::library::kSampled;
        const std::ptrdiff_t rows = (call_.height + kSampled - 1) / kSampled;
        const std::ptrdiff_t sampled = 3 * rows * ((call_.width + kSampled - 1) / kSampled);
        double change = 0;
        for (std::ptrdiff_t k = 0; k < unrain::library::tasks_of(call_.height); ++k) {
            change += static_cast<double>(c_.change[k]);
        }
        if (!std::isfinite(change)) return c_.reason.say("the result is not finite");
        if (change > kMostChange * static_cast<double>(sampled)) {
            return c_.reason.say("the picture changed beyond belief");
        }
        return true;
    }

    unrain_outcome finish(std::uint32_t mark, unrain_outcome outcome) {
        if (c_.carries) {
            copy_states(run_, mark);
            c_.carried = true;
        }
        return outcome;
    }

    // Mark 0: what was kept into the ports of a second run; else what that mark left is kept.
    void copy_states(std::uint32_t run, std::uint32_t mark) {
        if (!c_.carries || (mark == 0 && run == 0)) return;
        char* kept = c_.states;
        for (std::uint32_t k = 0; k < c_.file->program.runs[1].ports; ++k) {
            const unrain::program::Place place = mark == 0 ? c_.core->port(1, k) : c_.core->state(run, mark, k);
            const auto bytes =
                static_cast<std::size_t>(place.numbers()) * (place.dtype == unrain::DType::f32 ? 4 : 2);
            std::memcpy(mark == 0 ? place.data : kept, mark == 0 ? kept : place.data, bytes);
            kept += unrain::program::aligned_bytes(bytes);
        }
    }

    unrain_context& c_;
    Deadline deadline_;
    FrameCall call_;
    std::uint32_t run_ = 0;
};

void count(unrain_context& c, unrain_outcome outcome, long long microseconds) {
    ++c.counters.frames;
    if (outcome == UNRAIN_OK) ++c.counters.ok;
    if (outcome == UNRAIN_LATE) ++c.counters.late;
    if (outcome == UNRAIN_PASSTHROUGH) ++c.counters.passthrough;
    c.latencies.add(microseconds);
}

}  // namespace

extern "C" {

unrain_outcome unrain_process(unrain_context* context, const unrain_frame* in, const unrain_frame* out) {
    if (context == nullptr) return UNRAIN_REFUSED;
    const long long begin = now_us();
    unrain_context& c = *context;
    c.reason.text[0] = '\0';
    const char* wrong = what_is_wrong(in, c.options.input, c.options, false);
    if (wrong == nullptr) wrong = what_is_wrong(out, c.options.output, c.options, true);
    if (wrong != nullptr) {
        c.reason.say("%s", wrong);
        return UNRAIN_REFUSED;
    }
    keep(c, *in);
    const Deadline deadline = {begin + c.options.deadline_us, c.options.deadline_us > 0};
    const unrain_outcome outcome = Frame(c, *out, deadline).derain();
    count(c, outcome, now_us() - begin);
    return outcome;
}

const char* unrain_reason(const unrain_context* context) {
    return context != nullptr ? context->reason.text : "the context is missing";
}

void unrain_reset(unrain_context* context) {
    if (context != nullptr) context->carried = false;
}

unrain_counters unrain_statistics(const unrain_context* context) {
    if (context == nullptr) return {};
    unrain_counters counters = context->counters;
    counters.p50_us = context->latencies.quantile(50);
    counters.p99_us = context->latencies.quantile(99);
    counters.max_us = context->latencies.longest();
    return counters;
}

}  // extern "C"

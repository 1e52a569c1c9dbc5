// One call in flight: a program's values for pictures of one size. A context lies in memory that the caller gives, and
// nothing is allocated once it is there. One thread at a time; any number of contexts may share a program.
#pragma once

#include "plan.h"

namespace unrain::program {

class Context {
public:
    // The plan stays for as long as the context; the memory is plan.bytes() long and 64 bytes aligned.
    Context(const Plan& plan, void* memory, const Kernels& kernels, const char* tier)
        : plan_(plan), arena_(static_cast<char*>(memory)), kernels_(kernels), tier_(tier) {}

    // Begins a run on planar float32 pictures [batch, channels, height, width]. Run 1 goes on from what lies in its
    // ports.
    bool start(std::uint32_t run, const float* pictures, Message& message);

    // The same on pictures that the caller wrote into `picture(run)`, without their padding.
    bool start_written(std::uint32_t run, Message& message);

    // Computes up to that mark (from 1 on), less what only other marks want, and its picture unless `pictures` is null.
    bool advance(std::uint32_t mark, float* pictures, Message& message);

    std::uint32_t marks(std::uint32_t run) const { return plan_.program().runs[run].marks; }
    const Plan& plan() const { return plan_; }

    // Asked between instructions: where it is true, `advance` returns false without a message, and the run is over.
    void give_up_when(bool (*late)(const void*), const void* of) {
        late_ = late;
        late_of_ = of;
    }

    // Where the pictures of a run lie before it, and those of a mark once it was the last that was computed.
    Place picture(std::uint32_t run) const { return place_of(plan_, run, 0, arena_); }
    Place picture(std::uint32_t run, std::uint32_t mark) const;

    // Where the state of a port lies before a run, and once that mark was the last that was computed.
    Place port(std::uint32_t run, std::uint32_t number) const;
    Place state(std::uint32_t run, std::uint32_t mark, std::uint32_t number) const;

private:
    void begin();
    bool instruction(const Instruction& i, Message& message);
    PictureCall pictures_at(std::uint32_t value) const;

    const Plan& plan_;
    char* arena_;
    const Kernels& kernels_;
    const char* tier_;
    bool (*late_)(const void*) = nullptr;
    const void* late_of_ = nullptr;
    std::uint32_t run_ = 0, done_ = 0;
    bool started_ = false;
};

}  // namespace unrain::program

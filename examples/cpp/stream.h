// Frames in, frames out, in bounded time, whatever happens to the network: the guard rules of unrain.Stream.
#pragma once

#include "network.h"

#include <array>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

// What became of a frame. All but the first two are the raw frame.
enum class Outcome { derained, late, no_time, busy, not_finite, error, disbelieved, resting, self_test, count };

const char* name(Outcome outcome);

// After `after` faults in a row it takes a rest of `recover` frames, and then tries one; a try that fails doubles the
// rest, to sixteen times at most.
class Patience {
public:
    bool resting();  // call once a frame
    void succeeded();
    void failed();

private:
    static constexpr int after = 5, recover = 60, most = 16;
    int faults_ = 0, good_ = 0, rest_ = 0, next_rest_ = recover;
    bool trying_ = false;
};

class Stream {
public:
    using Clock = std::chrono::steady_clock;

    // Makes every buffer and tests itself: two runs on one frame, which must agree. `deadline_ms`: 0 waits for ever.
    // `network` is this stream's own from here on.
    Stream(Network& network, double deadline_ms);
    ~Stream();  // waits for what is under way

    // Puts the derained frame into `out`, or `frame` itself, before the deadline and two copies of a frame have passed.
    // Never throws.
    Outcome process(const std::uint8_t* frame, std::uint8_t* out) noexcept;

    const std::string& last_error() const { return last_error_; }
    std::int64_t frames() const { return frames_; }

    // One line: how many frames became what, and how long they took.
    std::string summary() const;

    // Ends the thread; false when what is under way hangs, and nothing it uses may be taken away.
    bool close(std::chrono::seconds patience);

private:
    Outcome derain(const std::uint8_t* frame, std::uint8_t* out, Clock::time_point deadline);
    bool changed_too_much(const std::uint8_t* frame) const;
    std::string test_itself();
    void work();

    Network& network_;
    const std::chrono::duration<double> deadline_;
    Patience patience_;
    std::string last_error_;
    std::vector<std::uint8_t> frame_, result_;  // the worker's while busy_, the caller's otherwise

    std::mutex lock_;
    std::condition_variable changed_;
    bool busy_ = false, has_job_ = false, closed_ = false, exited_ = false;
    Outcome done_ = Outcome::no_time;  // of the frame handed over last
    std::string problem_;              // what the network threw at it
    double typical_seconds_ = 0.0;

    bool passed_self_test_ = false;
    std::int64_t frames_ = 0;
    std::array<std::int64_t, std::size_t(Outcome::count)> counts_{};
    std::array<float, 4096> latencies_{};  // of the last frames, in milliseconds
    float slowest_ = 0.0f;
    std::thread thread_;
};

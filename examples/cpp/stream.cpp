#include "stream.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>

namespace {

constexpr int sparse = 8;         // frames are compared at every 8th pixel of every 8th row
constexpr double believed = 0.5;  // the largest mean change of a frame, in [0, 1]
constexpr double same_decibels = 50.0;
constexpr std::chrono::hours forever{24 * 365};

double decibels(const std::vector<std::uint8_t>& a, const std::vector<std::uint8_t>& b) {
    double sum = 0.0;
    for (std::size_t i = 0; i < a.size(); ++i) sum += std::pow(double(a[i]) - double(b[i]), 2);
    return sum == 0.0 ? HUGE_VAL : 10.0 * std::log10(255.0 * 255.0 * double(a.size()) / sum);
}

}  // namespace

const char* name(Outcome outcome) {
    switch (outcome) {
        case Outcome::derained:
            return "derained";
        case Outcome::late:
            return "late";
        case Outcome::no_time:
            return "not ready at the deadline";
        case Outcome::busy:
            return "the frame before still computed";
        case Outcome::not_finite:
            return "values that are no numbers";
        case Outcome::error:
            return "error in the network";
        case Outcome::disbelieved:
            return "changed beyond belief";
        case Outcome::resting:
            return "resting after repeated faults";
        case Outcome::self_test:
            return "the self-test failed";
        case Outcome::count:
            break;
    }
    return "?";
}

bool Patience::resting() {
    if (rest_ == 0) return false;
    if (--rest_ == 0) {
        trying_ = true;  // the next frame
        faults_ = after - 1;
    }
    return true;
}

void Patience::succeeded() {
    faults_ = 0;
    if (++good_ < recover) return;
    next_rest_ = recover;
    trying_ = false;
}

void Patience::failed() {
    good_ = 0;
    if (++faults_ < after) return;
    if (trying_) next_rest_ = std::min(2 * next_rest_, most * recover);
    rest_ = next_rest_;
    faults_ = 0;
    trying_ = false;
}

Stream::Stream(Network& network, double deadline_ms)
    : network_(network),
      deadline_(deadline_ms > 0 ? std::chrono::duration<double>(deadline_ms / 1e3) : forever),
      frame_(network.frame_bytes()),
      result_(network.frame_bytes()),
      thread_([this] { work(); }) {
    try {
        last_error_ = test_itself();
        passed_self_test_ = last_error_.empty();
    } catch (const std::exception& error) {
        last_error_ = error.what();
    }
}

Stream::~Stream() {
    close(std::chrono::seconds(0));
    thread_.join();
}

Outcome Stream::process(const std::uint8_t* frame, std::uint8_t* out) noexcept {
    const auto begin = Clock::now();
    Outcome outcome = Outcome::error;
    try {
        if (!passed_self_test_)
            outcome = Outcome::self_test;
        else if (patience_.resting())
            outcome = Outcome::resting;
        else
            outcome = derain(frame, out, begin + std::chrono::duration_cast<Clock::duration>(deadline_));
    } catch (const std::exception& error) {
        last_error_ = error.what();
    }
    if (outcome != Outcome::derained && outcome != Outcome::late) std::memcpy(out, frame, frame_.size());
    const auto took = std::chrono::duration<float, std::milli>(Clock::now() - begin).count();
    latencies_[std::size_t(frames_++) % latencies_.size()] = took;
    slowest_ = std::max(slowest_, took);
    ++counts_[std::size_t(outcome)];
    return outcome;
}

Outcome Stream::derain(const std::uint8_t* frame, std::uint8_t* out, Clock::time_point deadline) {
    std::unique_lock<std::mutex> hold(lock_);
    const auto idle = [this] { return !busy_; };
    // One that cannot end in time would only delay the next.
    const auto typical = std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(typical_seconds_));
    if (!changed_.wait_until(hold, deadline - typical, idle)) return Outcome::busy;  // its own fault was counted then
    std::memcpy(frame_.data(), frame, frame_.size());
    has_job_ = busy_ = true;
    changed_.notify_all();
    if (!changed_.wait_until(hold, deadline, idle)) {
        patience_.failed();
        return Outcome::no_time;
    }
    Outcome outcome = done_;
    if (outcome == Outcome::error) last_error_ = problem_;
    if (outcome == Outcome::derained && changed_too_much(frame)) outcome = Outcome::disbelieved;
    if (outcome != Outcome::derained) {
        patience_.failed();
        return outcome;
    }
    std::memcpy(out, result_.data(), result_.size());
    if (Clock::now() > deadline) {
        patience_.failed();
        return Outcome::late;
    }
    patience_.succeeded();
    return outcome;
}

void Stream::work() {
    network_.enter_thread();
    std::unique_lock<std::mutex> hold(lock_);
    while (true) {
        changed_.wait(hold, [this] { return has_job_ || closed_; });
        if (closed_) break;
        has_job_ = false;
        hold.unlock();
        const auto begin = Clock::now();
        Outcome outcome = Outcome::error;
        std::string problem;
        try {
            outcome = network_.derain(frame_.data(), result_.data()) ? Outcome::derained : Outcome::not_finite;
        } catch (const std::exception& error) {
            problem = error.what();
            problem = problem.substr(0, std::min(problem.find('\n'), std::size_t(300)));
        } catch (...) {
            problem = "something that is no exception of C++";
        }
        const double took = std::chrono::duration<double>(Clock::now() - begin).count();
        hold.lock();
        typical_seconds_ = typical_seconds_ == 0.0 ? took : 0.5 * (typical_seconds_ + took);
        done_ = outcome;
        problem_ = std::move(problem);
        busy_ = false;
        changed_.notify_all();
    }
    exited_ = true;
    changed_.notify_all();
}

bool Stream::changed_too_much(const std::uint8_t* frame) const {
    const int height = network_.height(), width = network_.width();
    std::int64_t sum = 0, count = 0;
    for (int row = 0; row < height; row += sparse)
        for (int column = 0; column < width; column += sparse)
            for (int channel = 0; channel < 3; ++channel, ++count) {
                const std::size_t i =
                    3 * (std::size_t(row) * std::size_t(width) + std::size_t(column)) + std::size_t(channel);
                sum += std::abs(int(frame[i]) - int(result_[i]));
            }
    return double(sum) / double(count) > believed * 255.0;
}

std::string Stream::test_itself() {
    std::vector<std::uint8_t> frame(frame_.size()), first, out(frame_.size());
    for (std::size_t i = 0; i < frame.size(); ++i) frame[i] = std::uint8_t(255 * i / frame.size());
    for (int run = 0; run < 2; ++run) {
        const Outcome outcome = derain(frame.data(), out.data(), Clock::now() + forever);
        if (outcome == Outcome::error) return last_error_;
        if (outcome != Outcome::derained) return name(outcome);
        if (run == 0) first = out;
    }
    return decibels(first, out) < same_decibels ? "two runs on one frame differ" : "";
}

std::string Stream::summary() const {
    std::int64_t raw = 0;
    std::string reasons;
    for (std::size_t i = std::size_t(Outcome::no_time); i < counts_.size(); ++i) {
        raw += counts_[i];
        if (counts_[i] == 0) continue;
        reasons += (reasons.empty() ? " (" : ", ") + std::to_string(counts_[i]) + " " + name(Outcome(i));
    }
    if (!reasons.empty()) reasons += ")";
    const std::size_t known = std::size_t(std::min<std::int64_t>(frames_, std::int64_t(latencies_.size())));
    std::vector<float> sorted(latencies_.begin(), latencies_.begin() + std::ptrdiff_t(known));
    std::sort(sorted.begin(), sorted.end());
    const auto at = [&](double share) { return known ? double(sorted[std::size_t(share * double(known - 1))]) : 0.0; };
    char times[128];
    std::snprintf(times, sizeof times, "; p50 %.1f ms, p99 %.1f, max %.1f", at(0.5), at(0.99), double(slowest_));
    return std::to_string(frames_) + " frames, " + std::to_string(counts_[std::size_t(Outcome::derained)]) +
           " derained, " + std::to_string(counts_[std::size_t(Outcome::late)]) + " late, " + std::to_string(raw) +
           " raw" + reasons + times;
}

bool Stream::close(std::chrono::seconds patience) {
    std::unique_lock<std::mutex> hold(lock_);
    closed_ = true;
    changed_.notify_all();
    return changed_.wait_for(hold, patience, [this] { return exited_; });
}

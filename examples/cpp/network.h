// A package made by `unrain export --to package`: one network, compiled for one size of frames.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

class Network {
public:
    // Throws std::runtime_error with one line that says what is wrong with the file. `threads`: 0 for torch's choice.
    Network(const std::string& package, int threads);
    ~Network();

    int height() const { return height_; }
    int width() const { return width_; }
    std::size_t frame_bytes() const { return std::size_t(height_) * std::size_t(width_) * 3; }
    const std::string& name() const { return name_; }

    // `frame` and `derained` are RGB, 8 bits, [height][width][3]. False when a value was no number; `derained` is then
    // as it was. Throws what libtorch throws.
    bool derain(const std::uint8_t* frame, std::uint8_t* derained);

    // Once in the thread that calls derain().
    void enter_thread() const;

private:
    struct Torch;  // kept out of this header: whoever uses it compiles without torch's
    std::unique_ptr<Torch> torch_;
    std::string name_;
    int height_ = 0, width_ = 0, threads_;
};

// wiper: takes the rain out of a picture, or out of raw frames from a pipe, without Python.
#include "network.h"
#include "ppm.h"
#include "stream.h"

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>
#include <unistd.h>
#if defined(__GLIBC__)
#include <malloc.h>
#endif

namespace {

constexpr const char* usage =
    "usage: wiper PACKAGE.pt2 -i rainy.ppm -o clean.ppm [--threads N]\n"
    "       wiper PACKAGE.pt2 [--deadline-ms MS] [--threads N] <rainy.rgb >clean.rgb   raw rgb24 frames\n"
    "PACKAGE.pt2 comes from `unrain export MODEL --to package --size HxW`; frames have that size.\n";

struct Options {
    std::string package, in, out;
    double deadline_ms = 33.0;  // of a frame from the pipe; 0: none
    int threads = 0;
};

double number(const std::string& option, const char* text, double least, double most) {
    char* end = nullptr;
    const double value = std::strtod(text, &end);
    if (end == text || *end != '\0' || !(value >= least && value <= most))
        throw std::runtime_error(option + " must be a number from " + std::to_string(int(least)) + " to " +
                                 std::to_string(int(most)) + ", got " + text);
    return value;
}

Options parse(int count, char** words) {
    Options options;
    for (int i = 1; i < count; ++i) {
        const std::string word = words[i];
        if (word == "-h" || word == "--help") {
            std::fputs(usage, stdout);
            std::exit(0);
        }
        if (word[0] != '-') {
            if (!options.package.empty()) throw std::runtime_error("one package at a time, got " + word + " too");
            options.package = word;
            continue;
        }
        if (word != "-i" && word != "-o" && word != "--deadline-ms" && word != "--threads")
            throw std::runtime_error("there is no option " + word + "; wiper --help lists them");
        if (++i == count) throw std::runtime_error(word + " needs a value");
        if (word == "-i") options.in = words[i];
        if (word == "-o") options.out = words[i];
        if (word == "--deadline-ms") options.deadline_ms = number(word, words[i], 0, 1e6);
        if (word == "--threads") options.threads = int(number(word, words[i], 1, 1024));
    }
    if (options.package.empty()) throw std::runtime_error("name a package; wiper --help says how");
    if (options.in.empty() != options.out.empty()) throw std::runtime_error("a picture needs both -i and -o");
    if (options.in.empty() && isatty(STDIN_FILENO))
        throw std::runtime_error("frames come from a pipe, and standard input is a terminal; wiper --help says how");
    return options;
}

// Bytes read before the end of the input, `wanted` at most.
std::size_t fill(std::uint8_t* data, std::size_t wanted) {
    std::size_t got = 0;
    while (got < wanted) {
        const ssize_t more = ::read(STDIN_FILENO, data + got, wanted - got);
        if (more < 0 && errno == EINTR) continue;
        if (more < 0) throw std::runtime_error(std::string("the input cannot be read: ") + std::strerror(errno));
        if (more == 0) break;
        got += std::size_t(more);
    }
    return got;
}

void drain(const std::uint8_t* data, std::size_t length) {
    while (length > 0) {
        const ssize_t more = ::write(STDOUT_FILENO, data, length);
        if (more < 0 && errno == EINTR) continue;
        if (more < 0) throw std::runtime_error(std::string("the output cannot be written: ") + std::strerror(errno));
        data += more;
        length -= std::size_t(more);
    }
}

void derain_picture(Network& network, const Options& options) {
    Picture picture = read_ppm(options.in);
    if (picture.height != network.height() || picture.width != network.width())
        throw std::runtime_error(options.in + " is " + std::to_string(picture.height) + "x" +
                                 std::to_string(picture.width) + ", the package takes " +
                                 std::to_string(network.height()) + "x" + std::to_string(network.width()));
    Stream stream(network, 0);
    Picture clean = picture;
    const Outcome outcome = stream.process(picture.rgb.data(), clean.rgb.data());
    if (outcome != Outcome::derained)
        throw std::runtime_error(options.in + " is not derained: " + name(outcome) +
                                 (stream.last_error().empty() ? "" : ": " + stream.last_error()));
    write_ppm(options.out, clean);
    std::fprintf(stderr, "wiper: %s\n", stream.summary().c_str());
}

void derain_frames(Network& network, const Options& options) {
    Stream stream(network, options.deadline_ms);
    if (!stream.last_error().empty())
        std::fprintf(stderr, "wiper: every frame passes raw, the self-test failed: %s\n", stream.last_error().c_str());
    std::vector<std::uint8_t> frame(network.frame_bytes()), out(network.frame_bytes());
    std::size_t got = 0;
    std::string problem;
    try {
        while ((got = fill(frame.data(), frame.size())) == frame.size()) {
            stream.process(frame.data(), out.data());
            drain(out.data(), out.size());
        }
    } catch (const std::exception& error) {
        problem = error.what();
    }
    std::fprintf(stderr, "wiper: %s\n", stream.summary().c_str());
    if (!stream.last_error().empty()) std::fprintf(stderr, "wiper: last error: %s\n", stream.last_error().c_str());
    if (problem.empty() && got != 0)
        problem = "the input ended inside frame " + std::to_string(stream.frames() + 1) + ", " + std::to_string(got) +
                  " of " + std::to_string(frame.size()) + " bytes: are its size and rgb24 right?";
    if (!problem.empty()) std::fprintf(stderr, "wiper: %s\n", problem.c_str());
    // A network that hangs holds its thread, and nothing it uses may be taken away: leave without tidying up.
    if (!stream.close(std::chrono::seconds(5))) std::_Exit(1);
    if (!problem.empty()) std::exit(1);
}

}  // namespace

int main(int count, char** words) {
    std::signal(SIGPIPE, SIG_IGN);  // a reader that leaves is an error like others
#if defined(__GLIBC__)
    // What the package allocates and frees for each frame stays with the process, in place of being fetched anew.
    mallopt(M_MMAP_MAX, 0);
    mallopt(M_TRIM_THRESHOLD, -1);
    mallopt(M_ARENA_MAX, 1);
#endif
    try {
        const Options options = parse(count, words);
        Network network(options.package, options.threads);
        if (options.in.empty())
            derain_frames(network, options);
        else
            derain_picture(network, options);
    } catch (const std::exception& error) {
        std::fprintf(stderr, "wiper: %s\n", error.what());
        return 1;
    }
    return 0;
}

// Two threads in the kernels and in libunrain at the same time, each with buffers of its own: what Engines in several
// threads do, and several streams.
// Built for the thread sanitizer, and without OpenMP, whose own barriers it does not know.
#include <cstdio>
#include <thread>
#include <vector>

#include "check.h"

void check_ops();
void check_conv();
void check_conv_endings();
void check_library();

int main() {
    std::vector<std::thread> threads;
    for (int number = 0; number < 2; ++number) {
        threads.emplace_back([] {
            check_ops();
            check_conv();
            check_conv_endings();
            check_library();
        });
    }
    for (std::thread& each : threads) each.join();
    std::printf(failures() == 0 ? "all passed\n" : "%d checks failed\n", failures().load());
    return failures() == 0 ? 0 : 1;
}

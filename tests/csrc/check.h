// A test framework of one macro, for any number of threads: a failed check prints itself and the program ends with 1.
#pragma once

#include <atomic>
#include <cstdio>

inline std::atomic<int>& failures() {
    static std::atomic<int> count{0};
    return count;
}

#define CHECK(condition, ...)                                                  \
    do {                                                                       \
        if (!(condition)) {                                                    \
            ++failures();                                                      \
            std::printf("%s:%d: %s failed: ", __FILE__, __LINE__, #condition); \
            std::printf(__VA_ARGS__);                                          \
            std::printf("\n");                                                 \
        }                                                                      \
    } while (false)

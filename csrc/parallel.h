// One loop over tasks on at most `threads` threads, denormals flushed while it runs and the caller's mode restored.
// Tasks are cut by size alone, never by thread count, and each owns its outputs: the bits cannot depend on threads.
#pragma once

#include <cstddef>

#if defined(_OPENMP)
#include <omp.h>
#endif
#if defined(__x86_64__) || defined(_M_X64)
#include <xmmintrin.h>
#endif

namespace unrain::UNRAIN_TIER {

class FlushDenormals {
public:
#if defined(__x86_64__) || defined(_M_X64)
    FlushDenormals() : saved_(_mm_getcsr()) { _mm_setcsr(saved_ | 0x8040U); }  // FTZ, DAZ
    ~FlushDenormals() { _mm_setcsr(saved_); }

private:
    unsigned saved_;
#elif defined(__aarch64__) && defined(__GNUC__)
    FlushDenormals() {
        __asm__ volatile("mrs %0, fpcr" : "=r"(saved_));
        __asm__ volatile("msr fpcr, %0" ::"r"(saved_ | (1ULL << 24)));
    }
    ~FlushDenormals() { __asm__ volatile("msr fpcr, %0" ::"r"(saved_)); }

private:
    unsigned long long saved_;
#else
    FlushDenormals() {}
#endif
public:
    FlushDenormals(const FlushDenormals&) = delete;
    FlushDenormals& operator=(const FlushDenormals&) = delete;
};

// Below this many touched bytes the fork and join of a thread team (10 to 50 us) costs more than it saves.
constexpr std::size_t kSerialBytes = 256 * 1024;

// body(task, slot) for every task in [0, tasks); slot < threads is the running thread's own number, for scratch memory.
// `bytes` is what the whole loop reads and writes, or its like in work.
template <class Body>
void for_each_task(std::ptrdiff_t tasks, std::size_t bytes, int threads, const Body& body) {
#if defined(_OPENMP)
    if (threads > 1 && tasks > 1 && bytes >= kSerialBytes) {
        // Also where there are fewer tasks: for a team of another size, OpenMP allocates, and ends or starts threads.
#pragma omp parallel num_threads(threads)
        {
            const FlushDenormals flush;
#pragma omp for schedule(static)
            for (std::ptrdiff_t task = 0; task < tasks; ++task) body(task, omp_get_thread_num());
        }
        return;
    }
#else
    (void)bytes;
    (void)threads;
#endif
    const FlushDenormals flush;
    for (std::ptrdiff_t task = 0; task < tasks; ++task) body(task, 0);
}

}  // namespace unrain::UNRAIN_TIER

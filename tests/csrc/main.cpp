// All C++ tests of one build, or the parts that are named; prints what fails and ends with 1 then.
#include <cstring>

#include "../../csrc/ops.h"
#include "check.h"

namespace unrain {
namespace generic {
void check_vectors();
}
#if defined(__x86_64__)
namespace avx2 {
void check_vectors();
}
namespace avx512 {
void check_vectors();
}
#elif defined(__aarch64__)
namespace neon {
void check_vectors();
}
#endif
}  // namespace unrain

void check_ops();
void check_conv();
void check_conv_endings();
void check_gpu_bodies();
void check_program(double seconds);
void check_library();

namespace {

void check_vectors() {
    using namespace unrain;
    for (const Tier* const* tier = runnable_tiers(); *tier != nullptr; ++tier) {
        const char* name = (*tier)->name;
        if (std::strcmp(name, "generic") == 0) generic::check_vectors();
#if defined(__x86_64__)
        if (std::strcmp(name, "avx2") == 0) avx2::check_vectors();
        if (std::strcmp(name, "avx512") == 0) avx512::check_vectors();
#elif defined(__aarch64__)
        if (std::strcmp(name, "neon") == 0) neon::check_vectors();
#endif
        std::printf("checked %s\n", name);
    }
}

}  // namespace

int main(int count, char** words) {
    const struct {
        const char* name;
        void (*check)();
    } parts[] = {{"vectors", check_vectors},
                 {"ops", check_ops},
                 {"conv", check_conv},
                 {"conv_endings", check_conv_endings},
                 {"gpu_bodies", check_gpu_bodies},
                 {"library", check_library},
                 {"program", [] { check_program(15); }}};
    int known = 0, checked = 0;
    for (const auto& part : parts) {
        ++known;
        bool asked = count == 1;
        for (int k = 1; k < count; ++k) asked = asked || std::strcmp(words[k], part.name) == 0;
        if (asked) part.check(), ++checked;
    }
    CHECK(checked == (count == 1 ? known : count - 1), "a part is not known");
    std::printf(failures() == 0 ? "all passed\n" : "%d checks failed\n", failures().load());
    return failures() == 0 ? 0 : 1;
}

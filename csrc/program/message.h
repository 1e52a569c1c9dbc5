// One line that says what is wrong, in memory of its own.
#pragma once

#include <cstdarg>
#include <cstdio>

namespace unrain::program {

struct Message {
    char text[256] = "";

    // Returns false, so that a check may say `return message.say(...)`. Only the first of several is kept.
#if defined(__GNUC__)
    __attribute__((format(printf, 2, 3)))
#endif
    bool say(const char* format, ...) {
        if (text[0] != '\0') return false;
        std::va_list arguments;
        va_start(arguments, format);
        std::vsnprintf(text, sizeof(text), format, arguments);
        va_end(arguments);
        return false;
    }
};

}  // namespace unrain::program

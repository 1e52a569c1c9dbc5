// What the compiled library shows to Python's ctypes (kernels/compiled.py): plain C functions, and what the structs
// they take look like. It knows no Python, so that one build serves every version.
#pragma once

#include <cstddef>
#include <type_traits>

#if defined(_WIN32)
#define UNRAIN_SHOWN extern "C" __declspec(dllexport)
#else
#define UNRAIN_SHOWN extern "C" __attribute__((visibility("default")))
#endif

namespace unrain {

struct Field {
    const char* name;
    std::size_t offset, count;
    int otherwise;  // its value where none is given
    char kind;      // as Python's module `struct` writes it
};

// A function of one struct. It answers with nullptr, or with what is wrong.
struct Function {
    const char* name;
    const Field* fields;  // ended by one without a name
    std::size_t bytes;    // of the struct
    const char* (*call)(const void* arguments, int backward, const char* tier, std::ptrdiff_t* size);
};

template <class T>
constexpr char kind_of() {
    if constexpr (std::is_pointer_v<T>) {
        return 'P';
    } else if constexpr (std::is_same_v<T, bool>) {
        return '?';
    } else if constexpr (std::is_same_v<T, float>) {
        return 'f';
    } else if constexpr (std::is_same_v<T, std::ptrdiff_t>) {
        return 'n';
    } else {
        static_assert(sizeof(T) == sizeof(int) && (std::is_enum_v<T> || std::is_same_v<T, int>));
        return 'i';
    }
}

template <class T>
constexpr Field field_of(const char* name, std::size_t offset, int otherwise = 0) {
    using Item = std::remove_all_extents_t<T>;
    return {name, offset, sizeof(T) / sizeof(Item), otherwise, kind_of<Item>()};
}

}  // namespace unrain

// Structs out of keyword arguments.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <string>
#include <type_traits>

namespace unrain {

namespace py = pybind11;

// Takes fields out of the keyword arguments; a field that is not there keeps its zero.
class Fields {
public:
    explicit Fields(const py::kwargs& given) : given_(given) {}

    template <class T>
    void operator()(const char* name, T& field) {
        if (!given_.contains(name)) return;
        ++taken_;
        set(given_[name], field);
    }

    template <class T, std::size_t kMost>
    void operator()(const char* name, T (&field)[kMost]) {
        if (!given_.contains(name)) return;
        ++taken_;
        const auto values = given_[name].template cast<py::sequence>();
        if (values.size() > kMost) throw py::value_error(std::string(name) + ": at most " + std::to_string(kMost));
        for (std::size_t k = 0; k < values.size(); ++k) set(values[k], field[k]);
    }

    bool all_taken() const { return taken_ == given_.size(); }

private:
    template <class T>
    static void set(const py::object& value, T& field) {
        if constexpr (std::is_pointer_v<T>) {
            field = value.is_none() ? nullptr : reinterpret_cast<T>(value.cast<std::uintptr_t>());
        } else if constexpr (std::is_enum_v<T>) {
            field = static_cast<T>(value.cast<int>());
        } else {
            field = value.cast<T>();
        }
    }

    const py::kwargs& given_;
    std::size_t taken_ = 0;
};

}  // namespace unrain

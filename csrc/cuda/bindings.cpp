// unrain._native_cuda: the compiled CUDA kernels for Python (kernels/cuda.py), which plans the launches.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <stdexcept>
#include <string>
#include <vector>

#include "launch.h"

namespace py = pybind11;

namespace {

void launch(const std::string& name, const std::array<unsigned, 3>& grid, const std::array<unsigned, 3>& block,
            int device, std::uintptr_t stream, const std::vector<py::bytes>& arguments) {
    std::vector<std::string> copies(arguments.begin(), arguments.end());
    std::vector<void*> addresses;
    std::vector<std::size_t> sizes;
    for (std::string& copy : copies) {
        addresses.push_back(copy.data());
        sizes.push_back(copy.size());
    }
    const unrain::Launch what{name.c_str(),
                              {grid[0], grid[1], grid[2]},
                              {block[0], block[1], block[2]},
                              device,
                              reinterpret_cast<void*>(stream),
                              addresses.data(),
                              sizes.data(),
                              sizes.size()};
    if (const char* wrong = unrain::launch(what)) throw std::runtime_error(name + ": " + wrong);
}

}  // namespace

PYBIND11_MODULE(_native_cuda, m) {
    m.doc() = "CUDA kernels of unrain (see csrc/cuda/kernels.cuh).";
    m.def("launch", &launch, py::arg("name"), py::arg("grid"), py::arg("block"), py::arg("device"), py::arg("stream"),
          py::arg("arguments"), "Queues one kernel on a stream; every argument comes as the bytes of its value.");
    m.def(
        "kernels",
        [] {
            std::vector<std::string> names;
            for (const char* const* name = unrain::kernel_names(); *name != nullptr; ++name) names.emplace_back(*name);
            return names;
        },
        "The names `launch` knows.");
}

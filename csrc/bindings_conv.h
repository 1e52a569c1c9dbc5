// The convolution functions of unrain._native.
#pragma once

#include <pybind11/pybind11.h>

void bind_conv(pybind11::module_& module);

// The classes Program, Prepared and Context of unrain._native.
#pragma once

#include <pybind11/pybind11.h>

void bind_program(pybind11::module_& module);

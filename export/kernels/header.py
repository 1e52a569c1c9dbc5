"""The C header that launches the cubins: one table per architecture, one launch function per kernel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...engine.errors import UnrainError

C_TYPES = {"i32": "int32_t", "i64": "int64_t", "fp32": "float"}

TOP = """\
/* unrain's Triton kernels, compiled ahead of time: how to load and launch the cubins beside this file. C99 or C++,
 * needs the CUDA driver API alone. Made by `unrain export --to kernels`; manifest.json says the same for programs.
 *
 *     const unrain_kernel *k = unrain_find(unrain_sm_87, "lstm_gates_forward_fp16_nhwc");
 *     unrain_load(k, bytes_of_the_file_k->file, &module, &function);
 *     unrain_launch_lstm_gates_forward_fp16_nhwc(k, function, grid, stream, pre, c, ..., 0);
 *
 * A launch gives CUDA_ERROR_INVALID_VALUE, and starts nothing, when an argument is no multiple of what the kernel was
 * compiled for (16 mostly: pointers from cuMemAlloc, and strides of whole 16 elements, are). `grid` is the number of
 * programs; the comment of a launch function says how many, where "/" rounds up and upper-case names are the constants
 * in manifest.json. `scratch` is k->scratch_bytes bytes per program of device memory, or 0 where that is 0.
 * conv_lstm takes its weights packed: by unrain_pack_conv_lstm below, or beforehand in Python, where
 * unrain.kernels.prepare_conv_lstm(weight, bias).packed is w_ptr, w_io_ptr and w_g_ptr one after the other. */
#ifndef UNRAIN_KERNELS_H
#define UNRAIN_KERNELS_H

#include <cuda.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef struct {
    const char *name;
    const char *file;   /* relative to this header */
    const char *sha256; /* of the file */
    const char *entry;  /* the kernel's name inside the cubin */
    size_t bytes;       /* of the file */
    unsigned threads;   /* per program */
    unsigned shared_bytes;
    unsigned scratch_bytes; /* per program */
} unrain_kernel;
"""

LOADING = """\
/* The kernel of that name in the table of one architecture, or NULL. */
static inline const unrain_kernel *unrain_find(const unrain_kernel *table, const char *name) {
    for (; table->name != NULL; ++table)
        if (strcmp(table->name, name) == 0) return table;
    return NULL;
}

/* `cubin` is what the file k->file holds. Once per kernel, in a current context; cuModuleUnload(*module) undoes it. */
static inline CUresult unrain_load(const unrain_kernel *k, const void *cubin, CUmodule *module, CUfunction *function) {
    CUresult result = cuModuleLoadData(module, cubin);
    if (result != CUDA_SUCCESS) return result;
    result = cuModuleGetFunction(function, *module, k->entry);
    if (result == CUDA_SUCCESS && k->shared_bytes > 48 * 1024)
        result = cuFuncSetAttribute(*function, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, (int)k->shared_bytes);
    if (result != CUDA_SUCCESS) cuModuleUnload(*module);
    return result;
}

static inline CUresult unrain_start(const unrain_kernel *k, CUfunction function, unsigned grid, CUstream stream,
                                    void **arguments) {
    return cuLaunchKernel(function, grid, 1, 1, k->threads, 1, 1, k->shared_bytes, stream, arguments, NULL);
}
"""

# kernels/conv_lstm/packing.py in C.
PACKING = """\
/* Packs a weight [4 channels, inputs, 3, 3] of numbers of `size` bytes each, its rows the gates i, f, g, o and its
 * inputs the channels of x, then those of h; channels is a multiple of 16. All of it in host memory:
 *     step [9 inputs, 4 channels]                       w_ptr of conv_lstm_step
 *     first_io [9 (inputs - channels), 2 channels]      w_io_ptr of conv_lstm_first
 *     first_g [9 (inputs - channels), channels]         w_g_ptr of conv_lstm_first */
static inline void unrain_pack_conv_lstm(const void *weight, size_t size, size_t channels, size_t inputs, void *step,
                                         void *first_io, void *first_g) {
    const size_t of_x = inputs - channels;
    for (size_t gate = 0; gate < 4; ++gate)
        for (size_t channel = 0; channel < channels; ++channel)
            for (size_t input = 0; input < inputs; ++input)
                for (size_t tap = 0; tap < 9; ++tap) {
                    const char *from =
                        (const char *)weight + size * (((gate * channels + channel) * inputs + input) * 9 + tap);
                    const size_t column = channel / 16 * 64 + gate % 2 * 32 + channel % 16 * 2 + gate / 2;
                    memcpy((char *)step + size * ((tap * inputs + input) * 4 * channels + column), from, size);
                    if (input >= of_x) continue;
                    if (gate == 2)
                        memcpy((char *)first_g + size * ((tap * of_x + input) * channels + channel), from, size);
                    else if (gate != 1)
                        memcpy((char *)first_io + size * ((tap * of_x + input) * 2 * channels + 2 * channel + gate / 3),
                               from, size);
                }
}
"""


def header(entries: Sequence[dict[str, Any]]) -> str:
    """The header for these entries of a manifest."""
    by_arch: dict[str, list[dict[str, Any]]] = {}
    by_name: dict[str, dict[str, Any]] = {}
    for entry in entries:
        by_arch.setdefault(entry["arch"], []).append(entry)
        first = by_name.setdefault(entry["name"], entry)
        if first["parameters"] != entry["parameters"]:
            raise UnrainError(f"{entry['name']} takes other arguments on {entry['arch']} than on {first['arch']}")
    tables = [_table(arch, members) for arch, members in by_arch.items()]
    functions = [_function(entry) for entry in by_name.values()]
    return "\n".join([TOP, *tables, LOADING, PACKING, *functions, "#endif\n"])


def _table(arch: str, entries: Sequence[dict[str, Any]]) -> str:
    rows = [
        f'    {{"{e["name"]}", "{e["file"]}",\n     "{e["sha256"]}", "{e["entry"]}",\n'
        f"     {e['bytes']}, {e['threads']}, {e['shared']}, {e['scratch']}}},\n"
        for e in entries
    ]
    return f"static const unrain_kernel unrain_{arch}[] = {{\n{''.join(rows)}    {{0}}}};\n"


def _function(entry: dict[str, Any]) -> str:
    parameters = entry["parameters"]
    declared = [f"{_c_type(each['type'])} {each['name']}" for each in parameters]
    checks = [f"(uint64_t){each['name']} % {each['multiple_of']}" for each in parameters if each["multiple_of"] > 1] + [
        "(k->scratch_bytes && !scratch)"
    ]
    names = ", ".join(f"&{each['name']}" for each in parameters)
    indent = " " * 4
    return "\n".join(
        [
            f"/* {entry['op']}; grid: {entry['grid']}",
            *(f" * {each['name']}: {each['type']}" for each in parameters if each["type"][0] == "*"),
            " */",
            f"static inline CUresult unrain_launch_{entry['name']}(",
            f"{indent}const unrain_kernel *k, CUfunction function, unsigned grid, CUstream stream,",
            f"{indent}{', '.join(declared)}, CUdeviceptr scratch) {{",
            f"{indent}CUdeviceptr profile = 0;",
            f"{indent}void *arguments[] = {{{names}, &scratch, &profile}};",
            f"{indent}if ({' || '.join(checks)}) return CUDA_ERROR_INVALID_VALUE;",
            f"{indent}return unrain_start(k, function, grid, stream, arguments);",
            "}\n",
        ]
    )


def _c_type(kind: str) -> str:
    return "CUdeviceptr" if kind[0] == "*" else C_TYPES[kind]

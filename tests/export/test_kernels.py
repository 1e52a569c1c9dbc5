"""Cubins for GPUs that are not here: what the manifest says about them, and a header that compiles and launches."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from unrain import kernels
from unrain.engine.errors import UnrainError
from unrain.export.kernels.cubins import architectures, export_kernels, to_kernels
from unrain.export.kernels.header import header
from unrain.export.targets import Options
from unrain.kernels.triton_aot import OPS, Grid

pytest.importorskip("triton")

SOME = ("charbonnier", "memory_read")
SETS = [pytest.param(SOME, id="some"), pytest.param(OPS, id="all", marks=pytest.mark.slow)]


def exported(folder, archs, ops):
    """In a process of its own: the interpreter of other tests would leave nothing to compile."""
    program = (
        f"from unrain.export.kernels.cubins import *; export_kernels(Path({str(folder)!r}), {archs}, 'fp16', {ops})"
    )
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment)
    return json.loads((folder / "manifest.json").read_text())


@pytest.fixture(scope="module", params=SETS)
def made(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("kernels")
    return folder, exported(folder, [87, 90], request.param), request.param


def test_the_manifest_says_what_every_cubin_is(made):
    folder, manifest, ops = made
    entries = manifest["kernels"]
    assert {entry["arch"] for entry in entries} == {"sm_87", "sm_90"} and {entry["op"] for entry in entries} == set(ops)
    names = [(entry["arch"], entry["name"]) for entry in entries]
    assert len(set(names)) == len(names)
    for entry in entries:
        cubin = (folder / entry["file"]).read_bytes()
        assert cubin[:4] == b"\x7fELF" and len(cubin) == entry["bytes"]
        assert hashlib.sha256(cubin).hexdigest() == entry["sha256"]
        assert entry["entry"].encode() + b"\0" in cubin
        assert entry["threads"] in (32, 64, 128, 256) and 0 <= entry["shared"] <= 227 * 1024
        assert 0 < entry["registers"] <= 255 and entry["scratch"] == 0
        assert all(each["type"] in ("*fp16", "*fp32", "*i64", "i32", "fp32") for each in entry["parameters"])
        unknown = set(re.findall(r"\b[A-Z][A-Z_]*\b", entry["grid"])) - set(entry["constants"])
        assert not unknown, (entry["name"], unknown)
    header = (folder / "unrain_kernels.h").read_bytes()
    assert hashlib.sha256(header).hexdigest() == manifest["header"]["sha256"]
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert files == {"manifest.json", "unrain_kernels.h", *(entry["file"] for entry in entries)}


def test_the_parameters_are_those_of_the_machine_code(made):
    """cuobjdump reads from the cubin itself how many bytes of parameters the kernel takes."""
    import triton

    folder, manifest, _ = made
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    for entry in manifest["kernels"]:
        text = subprocess.run([tool, "-elf", folder / entry["file"]], capture_output=True, text=True, check=True).stdout
        found = re.search(r"EIATTR_PARAM_CBANK\s+Format:\s+EIFMT_SVAL\s+Value:\s+0x\w+\s+0x(\w+)", text)
        offset = 0
        for kind in [*(each["type"] for each in entry["parameters"]), "*scratch", "*profile"]:
            size = 8 if kind[0] == "*" or kind == "i64" else 4
            offset = -(-offset // size) * size + size
        assert found and int(found[1], 16) >> 16 == offset, entry["name"]


# The driver's functions the header calls, in place of the library: they keep what they are given.
DRIVER = """\
#include <stdio.h>
#include "unrain_kernels.h"
CUresult cuModuleLoadData(CUmodule *module, const void *image) { *module = (CUmodule)image; return CUDA_SUCCESS; }
CUresult cuModuleUnload(CUmodule module) { (void)module; return CUDA_SUCCESS; }
CUresult cuModuleGetFunction(CUfunction *f, CUmodule m, const char *name) {
    (void)m; printf("entry %s\\n", name); *f = (CUfunction)1; return CUDA_SUCCESS; }
CUresult cuFuncSetAttribute(CUfunction f, CUfunction_attribute a, int value) {
    (void)f; (void)a; printf("shared %d\\n", value); return CUDA_SUCCESS; }
CUresult cuLaunchKernel(CUfunction f, unsigned x, unsigned y, unsigned z, unsigned bx, unsigned by, unsigned bz,
                        unsigned shared, CUstream stream, void **arguments, void **extra) {
    (void)f; (void)stream; (void)extra;
    printf("launch %u %u %u %u %u %u %u\\n", x, y, z, bx, by, bz, shared);
    printf("first %llx count %d eps %g\\n", *(CUdeviceptr *)arguments[0], *(int *)arguments[3], *(float *)arguments[4]);
    printf("scratch %llx %llx\\n", *(CUdeviceptr *)arguments[5], *(CUdeviceptr *)arguments[6]);
    return CUDA_SUCCESS;
}
int main(void) {
    const unrain_kernel *k = unrain_find(unrain_sm_87, "charbonnier_forward_sum_fp16");
    CUmodule module; CUfunction function;
    if (!k || unrain_find(unrain_sm_87, "nothing")) return 1;
    if (unrain_load(k, "cubin", &module, &function)) return 2;
    if (unrain_launch_charbonnier_forward_sum_fp16(k, function, 3, 0, 0x100, 0x200, 0x300, 77, 0.5f, 0)) return 3;
    return unrain_launch_charbonnier_forward_sum_fp16(k, function, 3, 0, 0x108, 0x200, 0x300, 77, 0.5f, 0)
           != CUDA_ERROR_INVALID_VALUE;
}
"""


@pytest.mark.parametrize(("compiler", "standard"), [("gcc", "c99"), ("g++", "c++11")])
def test_the_header_compiles_and_launches(made, tmp_path, compiler, standard):
    include = Path("/usr/local/cuda/include")
    if shutil.which(compiler) is None or not (include / "cuda.h").is_file():
        pytest.skip(f"needs {compiler} and the CUDA toolkit's cuda.h")
    folder, manifest, _ = made
    source = tmp_path / ("driver.c" if compiler == "gcc" else "driver.cc")
    source.write_text(DRIVER)
    flags = [f"-std={standard}", "-Wall", "-Wextra", "-Werror", "-Wno-unused-function"]
    flags += ["-Wno-missing-field-initializers", f"-I{folder}", "-isystem", str(include)]
    subprocess.run([compiler, *flags, str(source), "-o", str(tmp_path / "driver")], check=True)
    ran = subprocess.run([str(tmp_path / "driver")], capture_output=True, text=True)
    assert ran.returncode == 0, ran
    entry = next(each for each in manifest["kernels"] if each["name"] == "charbonnier_forward_sum_fp16")
    assert ran.stdout.splitlines() == [
        "entry charbonnier_forward",
        f"launch 3 1 1 {entry['threads']} 1 1 {entry['shared']}",
        "first 100 count 77 eps 0.5",
        "scratch 0 0",
    ]


PACKER = """\
#include <stdio.h>
#include <stdlib.h>
#include "unrain_kernels.h"
int main(void) {
    enum { C = 32, K = 48, X = K - C };
    static float weight[4 * C * K * 9], step[9 * K * 4 * C], io[9 * X * 2 * C], g[9 * X * C];
    if (fread(weight, sizeof weight, 1, stdin) != 1) return 1;
    unrain_pack_conv_lstm(weight, sizeof(float), C, K, step, io, g);
    fwrite(step, sizeof step, 1, stdout);
    fwrite(io, sizeof io, 1, stdout);
    return fwrite(g, sizeof g, 1, stdout) != 1;
}
"""
# What the driver's cuda.h would declare, for a header without kernels.
CUDA_H = """\
typedef int CUresult;
typedef int CUfunction_attribute;
typedef unsigned long long CUdeviceptr;
typedef struct module *CUmodule;
typedef struct function *CUfunction;
typedef struct stream *CUstream;
enum { CUDA_SUCCESS, CUDA_ERROR_INVALID_VALUE, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES };
CUresult cuModuleLoadData(CUmodule *, const void *);
CUresult cuModuleUnload(CUmodule);
CUresult cuModuleGetFunction(CUfunction *, CUmodule, const char *);
CUresult cuFuncSetAttribute(CUfunction, CUfunction_attribute, int);
CUresult cuLaunchKernel(CUfunction, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, CUstream,
                        void **, void **);
"""


@pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")
def test_a_c_program_packs_the_weights_as_the_conv_lstm_kernels_read_them(tmp_path):
    """test_triton_ops.py runs the kernels on what `prepare_conv_lstm` packed."""
    (tmp_path / "unrain_kernels.h").write_text(header([]))
    (tmp_path / "cuda.h").write_text(CUDA_H)
    (tmp_path / "packer.c").write_text(PACKER)
    # Optimised, so that what is not called need not be there.
    flags = [
        "-std=c99",
        "-O1",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-Wno-unused-function",
        "-Wno-missing-field-initializers",
    ]
    words = ["gcc", *flags, f"-I{tmp_path}", "packer.c", "-o", "packer"]
    subprocess.run(words, check=True, cwd=tmp_path)
    weight = torch.randn(4 * 32, 48, 3, 3)
    packed = subprocess.run([tmp_path / "packer"], input=weight.numpy().tobytes(), capture_output=True, check=True)
    assert packed.stdout == kernels.prepare_conv_lstm(weight).packed.numpy().tobytes()


def test_every_kernel_that_is_launched_is_exported_and_of_one_precision():
    program = (
        "from unrain.kernels.triton_aot import kernels; from unrain.export.kernels.cubins import PRECISIONS\n"
        "for spec in kernels(87): print(spec.fn.__name__, len(set(PRECISIONS) & set(spec.name.split('_'))))"
    )
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    text = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment)
    sources = "\n".join(path.read_text() for path in Path(kernels.__file__).parent.glob("**/triton*.py"))
    launched = re.findall(r"^\s+(\w+)\[(?:grid\]|\w*GRID\()", sources, re.MULTILINE)
    assert set(text.stdout.splitlines()) == {f"{name} 1" for name in launched}


def test_a_grid_is_computed_from_what_it_says():
    grid = Grid("images * rows_up * (C / BLOCK_C) * (width / USED)", rows_up="height / TILE_H", USED=54)
    assert grid.text == "images * rows_up * (C / BLOCK_C) * (width / USED), rows_up = height / TILE_H"
    assert grid.constants == {"USED": 54}
    assert grid(images=3, height=17, TILE_H=8, C=32, BLOCK_C=16, width=55) == (3 * 3 * 2 * 2,)
    assert Grid("count / BLOCK")(count=0, BLOCK=2048, NHWC=True) == (0,)


def test_architectures_are_read_or_refused_in_one_line(tmp_path):
    assert architectures(("sm_87", "SM90", "110", "sm_87")) == [87, 90, 110]
    for wrong in ((), ("orin",), ("sm_87", "")):
        with pytest.raises(UnrainError, match="name the GPUs to compile for"):
            architectures(wrong)
    with pytest.raises(UnrainError, match="kernels come in fp16, bf16, fp32, not in int8"):
        to_kernels(None, tmp_path / "k", Options("int8", arch=("sm_87",)))
    if os.environ.get("TRITON_INTERPRET") != "1":
        for arch, words in ((60, "older than what Triton"), (199, "no ptxas here knows sm_199")):
            with pytest.raises(UnrainError, match=words):
                export_kernels(tmp_path / "k", [arch], "fp16", SOME)
    assert not (tmp_path / "k").exists()

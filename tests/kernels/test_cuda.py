"""The launches of the CUDA kernels as far as a machine without a GPU can check them.

What they compute is tested on the host in tests/csrc/gpu_bodies.cpp, and on a GPU by test_ops.
"""

import ctypes

import pytest
import torch
from op_db import OPS

from unrain import kernels
from unrain.kernels import cuda, native
from unrain.kernels.frame_to_tensor import cuda as frame_to_tensor
from unrain.kernels.gaussian_pyramid import cuda as gaussian_pyramid
from unrain.kernels.tensor_to_frame import cuda as tensor_to_frame

FLOATS = (torch.float32, torch.float16, torch.bfloat16)
GPU = torch.device("cuda", 0)


@pytest.fixture
def launches(monkeypatch):
    """Every launch is written down and not made: (kernel, grid, block, sizes of the arguments)."""
    seen = []

    def write_down(kernel, grid, block, device, *arguments):
        seen.append((kernel, tuple(grid), tuple(block), [bytes(each) for each in arguments]))

    monkeypatch.setattr(cuda, "launch", write_down)
    return seen


def all_launches(launches):
    frames = torch.zeros(2, 18, 33, 3, dtype=torch.uint8)
    for dtype in FLOATS:
        image = torch.zeros(2, 3, 24, 40, dtype=dtype)
        frame_to_tensor.forward((image,), frames, "bgr", 8, dtype, False)
        frame_to_tensor.forward((image,), torch.zeros(2, 36, 40, dtype=torch.uint8), "nv12-bt709", 8, dtype, False)
        tensor_to_frame.forward((frames,), image, image, 18, 33, "nearest", True)
    for dtype in (*FLOATS, torch.uint8):
        x = torch.zeros(2, 3, 37, 70, dtype=dtype)
        for factors, kernel in (([2, 4], "box"), ([2, 4, 8, 16], "binomial")):
            levels = [torch.zeros(2, 3, -(-37 // k), -(-70 // k), dtype=dtype) for k in factors]
            gaussian_pyramid.forward(tuple(levels), x, factors, kernel)
            if dtype != torch.uint8:
                gaussian_pyramid.backward((torch.zeros_like(x),), levels, 37, 70, factors, kernel)
    return launches


def test_a_launch_covers_every_output(launches):
    for kernel, grid, block, arguments in all_launches(launches):
        threads = [a * b for a, b in zip((*grid, 1, 1), (*block, 1, 1), strict=False)]
        if kernel.startswith("frame_to_tensor"):
            assert threads[0] >= 40 and threads[1] >= 2 * 24
        elif kernel.startswith("tensor_to_frame"):
            assert threads[0] >= 33 and threads[1] >= 2 * 18
        elif kernel.startswith("binomial_kernel"):
            group = cuda.LevelGroup.from_buffer_copy(arguments[1])
            height, width = (side // 2**group.count for side in (group.height - 1, group.width - 1))
            assert grid[0] * 16 > width and grid[1] * 16 > height and grid[2] == 6
        else:
            assert threads[0] >= int.from_bytes(arguments[-1], "little") > 0
        assert block[0] * (block[1] if len(block) > 1 else 1) == cuda.THREADS


def test_the_compiled_kernels_take_what_is_launched(launches):
    """Names, numbers and sizes of arguments: a struct that differs between Python and C++ shows here."""
    module = native.load_cuda()
    if isinstance(module, str):
        pytest.skip(module)
    assert {kernel for kernel, *_ in all_launches(launches)} == set(module.kernels())
    if torch.cuda.is_available():
        return  # there is a device to run them on, and these addresses are not on it
    for kernel, grid, block, arguments in launches:
        with pytest.raises(RuntimeError) as refused:
            module.launch(kernel, (*grid, 1, 1)[:3], (*block, 1, 1)[:3], 0, 0, arguments)
        assert "argument" not in str(refused.value) and "name" not in str(refused.value)


def test_a_kernel_that_is_not_there_or_gets_too_little_is_refused():
    module = native.load_cuda()
    if isinstance(module, str):
        pytest.skip(module)
    one = ((1, 1, 1), (1, 1, 1), 0, 0)
    with pytest.raises(RuntimeError, match="no kernel of that name"):
        module.launch("tent_kernel<float>", *one, [])
    with pytest.raises(RuntimeError, match="another number of arguments"):
        module.launch("box_kernel<float>", *one, [])
    with pytest.raises(RuntimeError, match="another size"):
        module.launch("box_kernel<float>", *one, [b"12", b"12345678"])


def test_names_in_cpp():
    assert cuda.qualified("box_kernel<std::uint8_t>") == "unrain::device::box_kernel<std::uint8_t>"
    assert cuda.qualified("binomial_gradient_kernel<bf16, float>") == (
        "unrain::device::binomial_gradient_kernel<unrain::bf16, float>"
    )


def test_fields_arrive_in_the_struct():
    x = torch.zeros(2, 3, 5, 7)
    fields = {"x": x, "levels": [1, 2], "factors": [2, 4], "dtype": torch.bfloat16, "pictures": 6}
    struct = cuda.fill(cuda.GaussianPyramid, fields)
    assert struct.x == x.data_ptr() and struct.pictures == 6 and struct.dtype == native.DTYPES[torch.bfloat16]
    assert list(struct.levels)[:3] == [1, 2, None] and list(struct.factors)[:3] == [2, 4, 0]
    with pytest.raises(IndexError):
        cuda.fill(cuda.GaussianPyramid, {"factors": [2] * 17})


def test_the_sources_for_cupy_travel_with_the_package():
    from importlib import resources

    folder = resources.files(f"{cuda.PACKAGE}.csrc")
    for name in ("cuda/kernels.cuh", "pixel/frames.h", "pixel/pyramid_blocks.h", "simd/scalar.h", "ops.h", "storage.h"):
        assert folder.joinpath(name).is_file()


def test_without_a_gpu_the_reason_says_so(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "no CUDA GPU" in cuda.available()


def test_without_either_way_the_reasons_name_both(monkeypatch):
    monkeypatch.setattr(native, "load_cuda", lambda: "nvcc was not found")
    monkeypatch.setitem(__import__("sys").modules, "cupy", None)
    cuda._way.cache_clear()
    try:
        reason = cuda._way()
        assert "nvcc was not found" in reason and "CuPy" in reason
    finally:
        cuda._way.cache_clear()


@pytest.mark.gpu
def test_cupy_launches_the_same_kernels():
    pytest.importorskip("cupy")
    op, x = OPS["gaussian_pyramid"], torch.rand(2, 3, 65, 130, device=GPU)
    with kernels.use("cuda"):
        compiled = op.function(x, kernel="binomial", levels=3)
        cuda._way.cache_clear()
        original, native.load_cuda = native.load_cuda, lambda: "not this time"
        try:
            by_cupy = op.function(x, kernel="binomial", levels=3)
        finally:
            native.load_cuda = original
            cuda._way.cache_clear()
    assert all(torch.equal(a, b) for a, b in zip(compiled, by_cupy, strict=True))


@pytest.mark.gpu
def test_a_cuda_graph_holds_the_launches():
    x = torch.rand(1, 3, 64, 96, device=GPU)
    with kernels.use("cuda"):
        kernels.gaussian_pyramid(x)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            levels = kernels.gaussian_pyramid(x)
        x.copy_(torch.rand_like(x))
        graph.replay()
    with kernels.use("reference"):
        want = kernels.gaussian_pyramid(x)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(levels, want, strict=True))
    assert ctypes.sizeof(cuda.LevelGroup) == 32

"""What the kernel benchmarks run: per case our op and the strongest free ways to do the same, on the same inputs.

A contender is a function without arguments that returns tensors (or numpy images); the case's first contender is ours,
and its plain PyTorch rivals are written as their users write them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from case import OURS, Case, Contender, Tensor
from rivals import (
    compiled,
    kornia_pyramid,
    packaged_ssim,
    plain_charbonnier,
    plain_gates,
    plain_gru,
    plain_gru_step,
    plain_pyramid,
    plain_read,
    plain_ssim,
    plain_step,
    plain_update,
    window,
)

from unrain import kernels


class Listed(NamedTuple):
    """A case that can be named without building it: its inputs come to hundreds of megabytes."""

    build: Callable[[str, str], Case]  # of its name and the device
    contenders: tuple[str, ...]
    devices: tuple[str, ...]


CASES: dict[str, Listed] = {}


def listed(name: str, *contenders: str, devices: tuple[str, ...] = ("cpu", "cuda")) -> Callable[..., Any]:
    def keep(build: Callable[[str, str], Case]) -> Callable[[str, str], Case]:
        CASES[name] = Listed(build, contenders, devices)
        return build

    return keep


def built(name: str, device: str = "cpu") -> Case:
    torch.manual_seed(0)
    case = CASES[name].build(name, device)
    if tuple(case.contenders) != CASES[name].contenders:
        raise ValueError(f"{name} is listed with {CASES[name].contenders}, and built with {tuple(case.contenders)}")
    return case


def pairs(device: str) -> list[tuple[str, str]]:
    """(case, contender) of all that runs on such a device."""
    return [(name, each) for name, case in CASES.items() if device in case.devices for each in case.contenders]


def bytes_of(*tensors: Tensor) -> int:
    return sum(each.numel() * each.element_size() for each in tensors)


def with_gradients(function: Callable[..., Any], *inputs: Tensor) -> Contender:
    """Forward and backward: the results, then the gradient of each input that requires one."""
    wanted = [each for each in inputs if each.requires_grad]
    with torch.no_grad():
        probe = function(*inputs)
    sizes = [each.shape for each in (probe if isinstance(probe, tuple) else (probe,))]
    torch.manual_seed(1)
    weights = [torch.ones(()) if not size else torch.randn(size) for size in sizes]
    weights = [each.to(wanted[0].device, wanted[0].dtype) for each in weights]

    def step() -> tuple[Tensor, ...]:
        value = function(*inputs)
        values = value if isinstance(value, tuple) else (value,)
        return (*(each.detach() for each in values), *torch.autograd.grad(values, wanted, weights))

    return step


def doubled(*inputs: Tensor) -> tuple[Tensor, ...]:
    return tuple(each.detach().double().requires_grad_(each.requires_grad) for each in inputs)


@listed(
    "lstm_gates [1,128,256,256] forward",
    OURS,
    "unrain channels-last",
    "eager",
    "eager channels-last",
    "torch.compile",
    "torch.compile channels-last",
)
def _gates(name: str, device: str) -> Case:
    pre, c = torch.randn(1, 128, 256, 256, device=device), torch.randn(1, 32, 256, 256, device=device)
    last = [each.contiguous(memory_format=torch.channels_last) for each in (pre, c)]
    fused = compiled(plain_gates)
    return Case(
        name,
        {
            OURS: lambda: kernels.lstm_gates(pre, c),
            "unrain channels-last": lambda: kernels.lstm_gates(*last),
            "eager": lambda: plain_gates(pre, c),
            "eager channels-last": lambda: plain_gates(*last),
            "torch.compile": lambda: fused(pre, c),
            "torch.compile channels-last": lambda: fused(*last),
        },
        lambda: plain_gates(*doubled(pre, c)),
        bytes_of(pre, c, c, c),
        operations=13 * c.numel(),
        goals={"eager": 2.5, "torch.compile": 1.0},
    )


@listed("lstm_gates [1,128,256,256] forward+backward", OURS, "eager", "torch.compile")
def _gates_backward(name: str, device: str) -> Case:
    pre = torch.randn(1, 128, 256, 256, device=device).requires_grad_()
    c = torch.randn(1, 32, 256, 256, device=device).requires_grad_()
    return Case(
        name,
        {
            OURS: with_gradients(kernels.lstm_gates, pre, c),
            "eager": with_gradients(plain_gates, pre, c),
            "torch.compile": with_gradients(compiled(plain_gates), pre, c),
        },
        lambda: with_gradients(plain_gates, *doubled(pre, c))(),
        bytes_of(pre, c, c, c) + bytes_of(pre, c, pre, c, c, c),
        operations=(13 + 30) * c.numel(),
        goals={"torch.compile": 1.0},
    )


def _gru(pre: Tensor, candidate: Tensor, hidden: Tensor, h: Tensor) -> Tensor:
    z, r = pre.chunk(2, 1)
    return kernels.gru_gates(z, candidate, h, r, hidden)


def _gru_inputs(device: str) -> list[Tensor]:
    return [torch.randn(1, channels, 256, 256, device=device) for channels in (64, 32, 32, 32)]


@listed("gru_gates C=32 256x256, reset after, forward", OURS, "eager", "torch.compile")
def _gru_gates(name: str, device: str) -> Case:
    inputs = _gru_inputs(device)
    fused = compiled(plain_gru)
    return Case(
        name,
        {OURS: lambda: _gru(*inputs), "eager": lambda: plain_gru(*inputs), "torch.compile": lambda: fused(*inputs)},
        lambda: plain_gru(*doubled(*inputs)),
        bytes_of(*inputs, inputs[-1]),
        operations=11 * inputs[-1].numel(),
        goals={"eager": 2.5, "torch.compile": 1.0},
    )


@listed("gru_gates C=32 256x256, reset after, forward+backward", OURS, "eager", "torch.compile")
def _gru_gates_backward(name: str, device: str) -> Case:
    inputs = [each.requires_grad_() for each in _gru_inputs(device)]
    return Case(
        name,
        {
            OURS: with_gradients(_gru, *inputs),
            "eager": with_gradients(plain_gru, *inputs),
            "torch.compile": with_gradients(compiled(plain_gru), *inputs),
        },
        lambda: with_gradients(plain_gru, *doubled(*inputs))(),
        bytes_of(*inputs, inputs[-1]) + 2 * bytes_of(*inputs) + bytes_of(inputs[-1]),
        operations=(11 + 24) * inputs[-1].numel(),
        goals={"torch.compile": 1.0},
    )


@listed("conv_gru C=32 128x128 forward+backward", OURS, "eager", "torch.compile")
def _conv_gru(name: str, device: str) -> Case:
    x, h = (torch.randn(1, 32, 128, 128, device=device).requires_grad_() for _ in range(2))
    gates, candidate = ((torch.randn(rows, 64, 3, 3, device=device) / 24).requires_grad_() for rows in (64, 32))
    inputs = (x, h, gates, candidate)

    def ours(x: Tensor, h: Tensor, gates: Tensor, candidate: Tensor) -> Tensor:
        return kernels.conv_gru(x, h, gates, None, candidate, None)

    return Case(
        name,
        {
            OURS: with_gradients(ours, *inputs),
            "eager": with_gradients(plain_gru_step, *inputs),
            "torch.compile": with_gradients(compiled(plain_gru_step), *inputs),
        },
        lambda: with_gradients(plain_gru_step, *doubled(*inputs))(),
        3 * bytes_of(*inputs),
        operations=3 * 2 * 9 * 64 * 96 * 128 * 128,
    )


@listed("charbonnier [8,3,512,512] forward+backward", OURS, "eager", "torch.compile")
def _charbonnier(name: str, device: str) -> Case:
    pred = torch.rand(8, 3, 512, 512, device=device).requires_grad_()
    target = torch.rand(8, 3, 512, 512, device=device)
    return Case(
        name,
        {
            OURS: with_gradients(kernels.charbonnier, pred, target),
            "eager": with_gradients(plain_charbonnier, pred, target),
            "torch.compile": with_gradients(compiled(plain_charbonnier), pred, target),
        },
        lambda: with_gradients(plain_charbonnier, *doubled(pred, target))(),
        bytes_of(pred, target) * 2 + bytes_of(pred),
        operations=11 * pred.numel(),
        goals={"eager": 4.0, "torch.compile": 1.0},
    )


@listed("ssim [4,3,256,256] forward+backward", OURS, "eager", "our reference", "torch.compile", "pytorch-msssim")
def _ssim(name: str, device: str) -> Case:
    x = torch.rand(4, 3, 256, 256, device=device).requires_grad_()
    y = torch.rand(4, 3, 256, 256, device=device)
    taps = window(torch.float32, device)
    return Case(
        name,
        {
            OURS: with_gradients(kernels.ssim, x, y),
            "eager": with_gradients(lambda x, y: plain_ssim(x, y, taps), x, y),
            "our reference": _with_backend("reference", with_gradients(kernels.ssim, x, y)),
            "torch.compile": with_gradients(compiled(lambda x, y: plain_ssim(x, y, taps)), x, y),
            "pytorch-msssim": packaged_ssim(x, y),
        },
        lambda: with_gradients(lambda x, y: plain_ssim(x, y, window(torch.float64, device)), *doubled(x, y))(),
        bytes_of(x, y) * 2 + bytes_of(x),
        operations=2 * 2 * 11 * (5 + 3) * x.numel(),  # five blurs forward, three backward
        goals={"eager": 4.0, "torch.compile": 1.0},
    )


def _with_backend(name: str, contender: Contender) -> Contender:
    def run() -> Any:
        with kernels.use(name):
            return contender()

    return run


@listed("memory_read 16384x64, 20 items, forward", OURS, "eager", "torch.compile")
def _memory_read(name: str, device: str) -> Case:
    query, items = torch.randn(16384, 64, device=device), torch.randn(20, 64, device=device)
    fused = compiled(plain_read)
    return Case(
        name,
        {
            OURS: lambda: kernels.memory_read(query, items),
            "eager": lambda: plain_read(query, items),
            "torch.compile": lambda: fused(query, items),
        },
        lambda: plain_read(*doubled(query, items)),
        bytes_of(query, query, items),
        operations=2 * 2 * query.numel() * len(items),
        goals={"eager": 2.0, "torch.compile": 1.0},
    )


@listed("memory_read 16384x64, 20 items, forward+backward", OURS, "eager", "torch.compile")
def _memory_read_backward(name: str, device: str) -> Case:
    query = torch.randn(16384, 64, device=device).requires_grad_()
    items = torch.randn(20, 64, device=device).requires_grad_()
    return Case(
        name,
        {
            OURS: with_gradients(kernels.memory_read, query, items),
            "eager": with_gradients(plain_read, query, items),
            "torch.compile": with_gradients(compiled(plain_read), query, items),
        },
        lambda: with_gradients(plain_read, *doubled(query, items))(),
        bytes_of(query) * 5,
        operations=3 * 2 * 2 * query.numel() * len(items),
        goals={"eager": 2.0, "torch.compile": 1.0},
    )


@listed("memory_update 16384x64, 20 items", OURS, "eager", "torch.compile")
def _memory_update(name: str, device: str) -> Case:
    query, items = torch.randn(16384, 64, device=device), torch.randn(20, 64, device=device)
    fused = compiled(plain_update)
    return Case(
        name,
        {
            OURS: lambda: kernels.memory_update(query, items),
            "eager": lambda: plain_update(query, items),
            "torch.compile": lambda: fused(query, items),
        },
        lambda: plain_update(*doubled(query, items)),
        bytes_of(query, items, items),
        operations=2 * 2 * query.numel() * len(items),
        goals={"eager": 2.0, "torch.compile": 1.0},
    )


@listed(
    "gaussian_pyramid 1080p float, binomial, 3 levels",
    OURS,
    "eager depth-wise",
    "torch.compile",
    "kornia filter2d_separable",
)
def _pyramid(name: str, device: str) -> Case:
    x = torch.rand(1, 3, 1080, 1920, device=device)
    fused = compiled(plain_pyramid)
    contenders: dict[str, Contender] = {
        OURS: lambda: tuple(kernels.gaussian_pyramid(x, levels=3, kernel="binomial")),
        "eager depth-wise": lambda: plain_pyramid(x),
        "torch.compile": lambda: fused(x),
        "kornia filter2d_separable": lambda: kornia_pyramid(x),
    }
    return Case(
        name,
        contenders,
        lambda: plain_pyramid(x.double()),
        int(bytes_of(x) * (1 + 1 / 4 + 1 / 16 + 1 / 64)),
        operations=int(2 * 10 * x.numel() * (1 / 4 + 1 / 16 + 1 / 64)),
        goals={"eager depth-wise": 5.0, "torch.compile": 1.0},
    )


@listed("gaussian_pyramid 1080p uint8, binomial, 3 levels", OURS, "OpenCV pyrDown", devices=("cpu",))
def _pyramid_bytes(name: str, device: str) -> Case:
    frame = np.random.default_rng(0).integers(0, 256, (1080, 1920, 3), dtype=np.uint8)

    def opencv() -> tuple[np.ndarray, ...]:
        import cv2

        cv2.setNumThreads(torch.get_num_threads())
        levels, level = [], frame
        for _ in range(3):
            level = cv2.pyrDown(level)
            levels.append(level)
        return tuple(levels)

    def ours() -> tuple[np.ndarray, ...]:
        return tuple(kernels.gaussian_pyramid(frame, levels=3, kernel="binomial"))

    return Case(
        name,
        {OURS: ours, "OpenCV pyrDown": opencv},
        _with_backend("reference", ours),
        int(frame.nbytes * (1 + 1 / 4 + 1 / 16 + 1 / 64)),
        goals={"OpenCV pyrDown": 1 / 1.3},
    )


@listed(
    "conv_lstm C=32 256x256 forward",
    OURS,
    "unrain channels-last",
    "eager",
    "eager channels-last",
    "torch.compile channels-last",
)
def _conv_lstm(name: str, device: str) -> Case:
    x, h, c = (torch.randn(1, 32, 256, 256, device=device) for _ in range(3))
    weight, bias = torch.randn(128, 64, 3, 3, device=device) / 24, torch.randn(128, device=device)
    last = [each.contiguous(memory_format=torch.channels_last) for each in (x, h, c, weight)]
    fused = compiled(plain_step)
    return Case(
        name,
        {
            OURS: lambda: kernels.conv_lstm(x, h, c, weight, bias),
            "unrain channels-last": lambda: kernels.conv_lstm(*last, bias),
            "eager": lambda: plain_step(x, h, c, weight, bias),
            "eager channels-last": lambda: plain_step(*last, bias),
            "torch.compile channels-last": lambda: fused(*last, bias),
        },
        lambda: plain_step(*doubled(x, h, c, weight, bias)),
        bytes_of(x, h, c, c, c, weight),
        operations=2 * 9 * 64 * 128 * 256 * 256 + 13 * c.numel(),
        # Ours convolves channels-last, where PyTorch sums in another order and errs about twice as much as in NCHW.
        plain=lambda: plain_step(*last, bias),
    )


@listed(
    "frame_to_tensor 1080p to float32, padded to 16", OURS, "from_numpy, permute, float, divide, pad", devices=("cpu",)
)
def _frame_to_tensor(name: str, device: str) -> Case:
    frame = np.random.default_rng(0).integers(0, 256, (1080, 1920, 3), dtype=np.uint8)

    def usual(dtype: torch.dtype = torch.float32) -> Tensor:
        x = torch.from_numpy(frame).permute(2, 0, 1)[None].to(dtype) / 255
        return F.pad(x, (0, 0, 0, 8), mode="reflect")  # 1080 -> 1088, a multiple of 16

    return Case(
        name,
        {OURS: lambda: kernels.frame_to_tensor(frame, multiple=16), "from_numpy, permute, float, divide, pad": usual},
        lambda: usual(torch.float64),
        frame.nbytes + 3 * 1088 * 1920 * 4,
        goals={"from_numpy, permute, float, divide, pad": 3.0},
    )


@listed("tensor_to_frame 1080p", OURS, "clamp, scale, round, permute", devices=("cpu",))
def _tensor_to_frame(name: str, device: str) -> Case:
    x = torch.rand(1, 3, 1080, 1920) * 1.2 - 0.1

    def usual() -> Tensor:
        return (x[0].clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous()

    return Case(
        name,
        {OURS: lambda: kernels.tensor_to_frame(x), "clamp, scale, round, permute": usual},
        usual,
        bytes_of(x) + 3 * 1080 * 1920,
    )

"""What the kernel benchmarks run: per case our op and the strongest free ways to do the same, on the same inputs.

A contender is a function without arguments that returns tensors (or numpy images); the case's first contender is ours,
and its plain PyTorch rivals are written as their users write them.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from case import OURS, Case, Contender, Tensor

from unrain import accelerate, kernels


def cases(device: str = "cpu") -> list[Case]:
    torch.manual_seed(0)
    return [
        _gates(device, backward=False),
        _gates(device, backward=True),
        _charbonnier(device),
        _ssim(device),
        _memory_read(device, backward=False),
        _memory_read(device, backward=True),
        _memory_update(device),
        _pyramid(device),
        _conv_lstm(device),
        *([_public_layouts(), _pyramid_bytes(), _frame_to_tensor(), _tensor_to_frame()] if device == "cpu" else []),
    ]


def names_on_gpu() -> list[tuple[str, str]]:
    """(case, contender) of all that a GPU runs, known without one."""
    if torch.cuda.is_available():
        return [(case.name, contender) for case in cases("cuda") for contender in case.contenders]
    return [("a GPU", "unrain")]


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    return torch.compile(function, fullgraph=True, dynamic=False)


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


def plain_gates(pre: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    i, f, g, o = pre.chunk(4, 1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


def _gates(device: str, backward: bool) -> Case:
    pre = torch.randn(1, 128, 256, 256, device=device)
    c = torch.randn(1, 32, 256, 256, device=device)
    last = [each.contiguous(memory_format=torch.channels_last) for each in (pre, c)]
    if not backward:
        fused = compiled(plain_gates)
        return Case(
            "lstm_gates [1,128,256,256] forward",
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

    inputs = pre.requires_grad_(), c.requires_grad_()
    return Case(
        "lstm_gates [1,128,256,256] forward+backward",
        {
            OURS: with_gradients(kernels.lstm_gates, *inputs),
            "eager": with_gradients(plain_gates, *inputs),
            "torch.compile": with_gradients(compiled(plain_gates), *inputs),
        },
        with_gradients(plain_gates, *doubled(*inputs)),
        bytes_of(pre, c, c, c) + bytes_of(pre, c, pre, c, c, c),
        operations=(13 + 30) * c.numel(),
        goals={"torch.compile": 1.0},
    )


def plain_charbonnier(pred: Tensor, target: Tensor) -> Tensor:
    return torch.sqrt((pred - target) ** 2 + 1e-3**2).mean()


def _charbonnier(device: str) -> Case:
    pred = torch.rand(8, 3, 512, 512, device=device).requires_grad_()
    target = torch.rand(8, 3, 512, 512, device=device)
    return Case(
        "charbonnier [8,3,512,512] forward+backward",
        {
            OURS: with_gradients(kernels.charbonnier, pred, target),
            "eager": with_gradients(plain_charbonnier, pred, target),
            "torch.compile": with_gradients(compiled(plain_charbonnier), pred, target),
        },
        with_gradients(plain_charbonnier, *doubled(pred, target)),
        bytes_of(pred, target) * 2 + bytes_of(pred),
        operations=11 * pred.numel(),
        goals={"eager": 4.0, "torch.compile": 1.0},
    )


def window(dtype: torch.dtype, device: str) -> Tensor:
    places = torch.arange(-5, 6, dtype=torch.float64)
    taps = torch.exp(-(places**2) / (2 * 1.5**2))
    return (taps / taps.sum()).to(dtype).to(device)


def plain_ssim(x: Tensor, y: Tensor, window: Tensor) -> Tensor:
    """As the usual packages have it: five separable depth-wise convolutions."""
    channels = x.shape[1]
    down, across = (window.view(1, 1, *shape).repeat(channels, 1, 1, 1) for shape in ((-1, 1), (1, -1)))

    def blur(z: Tensor) -> Tensor:
        return F.conv2d(F.conv2d(z, down, padding=(5, 0), groups=channels), across, padding=(0, 5), groups=channels)

    mx, my = blur(x), blur(y)
    xx, yy, xy = blur(x * x) - mx * mx, blur(y * y) - my * my, blur(x * y) - mx * my
    c1, c2 = 0.01**2, 0.03**2
    return ((2 * mx * my + c1) * (2 * xy + c2) / ((mx * mx + my * my + c1) * (xx + yy + c2))).mean()


def _ssim(device: str) -> Case:
    x = torch.rand(4, 3, 256, 256, device=device).requires_grad_()
    y = torch.rand(4, 3, 256, 256, device=device)
    taps = window(torch.float32, device)
    wide = doubled(x, y)
    return Case(
        "ssim [4,3,256,256] forward+backward",
        {
            OURS: with_gradients(kernels.ssim, x, y),
            "eager": with_gradients(lambda x, y: plain_ssim(x, y, taps), x, y),
            "our reference": _with_backend("reference", with_gradients(kernels.ssim, x, y)),
            "torch.compile": with_gradients(compiled(lambda x, y: plain_ssim(x, y, taps)), x, y),
            "pytorch-msssim": packaged_ssim(x, y),
        },
        with_gradients(lambda x, y: plain_ssim(x, y, window(torch.float64, device)), *wide),
        bytes_of(x, y) * 2 + bytes_of(x),
        operations=2 * 2 * 11 * (5 + 3) * x.numel(),  # five blurs forward, three backward
        goals={"eager": 4.0, "torch.compile": 1.0},
    )


def packaged_ssim(x: Tensor, y: Tensor) -> Contender:
    """pytorch-msssim, which does not pad: on pictures that were padded for it, outside of the time."""
    wide = F.pad(x.detach(), (5, 5, 5, 5)).requires_grad_()
    other = F.pad(y, (5, 5, 5, 5))

    def step() -> tuple[Tensor, ...]:
        from pytorch_msssim import ssim

        value = ssim(wide, other, data_range=1.0)
        return value.detach(), torch.autograd.grad(value, wide)[0][..., 5:-5, 5:-5]

    return step


def _with_backend(name: str, contender: Contender) -> Contender:
    def run() -> Any:
        with kernels.use(name):
            return contender()

    return run


def plain_read(query: Tensor, items: Tensor) -> Tensor:
    scores = F.normalize(query, dim=1) @ F.normalize(items, dim=1).T
    return torch.softmax(scores, 1) @ items


def _memory_read(device: str, backward: bool) -> Case:
    query, items = torch.randn(16384, 64, device=device), torch.randn(20, 64, device=device)
    if not backward:
        fused = compiled(plain_read)
        return Case(
            "memory_read 16384x64, 20 items, forward",
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
    inputs = query.requires_grad_(), items.requires_grad_()

    return Case(
        "memory_read 16384x64, 20 items, forward+backward",
        {
            OURS: with_gradients(kernels.memory_read, *inputs),
            "eager": with_gradients(plain_read, *inputs),
            "torch.compile": with_gradients(compiled(plain_read), *inputs),
        },
        with_gradients(plain_read, *doubled(*inputs)),
        bytes_of(query) * 5,
        operations=3 * 2 * 2 * query.numel() * len(items),
        goals={"torch.compile": 1.0},
    )


def plain_update(query: Tensor, items: Tensor) -> Tensor:
    weights = torch.softmax(F.normalize(query, dim=1) @ F.normalize(items, dim=1).T, 0)
    return F.normalize(items + weights.T @ query, dim=1)


def _memory_update(device: str) -> Case:
    query, items = torch.randn(16384, 64, device=device), torch.randn(20, 64, device=device)
    fused = compiled(plain_update)
    return Case(
        "memory_update 16384x64, 20 items",
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


def plain_pyramid(x: Tensor) -> tuple[Tensor, ...]:
    """Reflected borders and one 5 x 5 depth-wise convolution of stride 2 a level."""
    taps = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0], dtype=x.dtype, device=x.device) / 16
    kernel = (taps[:, None] * taps).expand(x.shape[1], 1, 5, 5).contiguous()
    levels = []
    for _ in range(3):
        x = F.conv2d(F.pad(x, (2, 2, 2, 2), mode="reflect"), kernel, stride=2, groups=x.shape[1])
        levels.append(x)
    return tuple(levels)


def kornia_pyramid(x: Tensor) -> tuple[Tensor, ...]:
    """kornia's own `pyrdown` averages pairs after the blur and gives another pyramid: its filter gives this one."""
    from kornia.filters import filter2d_separable

    taps = torch.tensor([[1.0, 4.0, 6.0, 4.0, 1.0]], dtype=x.dtype, device=x.device) / 16
    levels = []
    for _ in range(3):
        x = filter2d_separable(x, taps, taps, border_type="reflect")[..., ::2, ::2]
        levels.append(x)
    return tuple(levels)


def _pyramid(device: str) -> Case:
    x = torch.rand(1, 3, 1080, 1920, device=device)
    fused = compiled(plain_pyramid)
    contenders: dict[str, Contender] = {
        OURS: lambda: tuple(kernels.gaussian_pyramid(x, levels=3, kernel="binomial")),
        "eager depth-wise": lambda: plain_pyramid(x),
        "torch.compile": lambda: fused(x),
        "kornia filter2d_separable": lambda: kornia_pyramid(x),
    }
    return Case(
        "gaussian_pyramid 1080p float, binomial, 3 levels",
        contenders,
        lambda: plain_pyramid(x.double()),
        int(bytes_of(x) * (1 + 1 / 4 + 1 / 16 + 1 / 64)),
        operations=int(2 * 10 * x.numel() * (1 / 4 + 1 / 16 + 1 / 64)),
        goals={"eager depth-wise": 5.0, "torch.compile": 1.0},
    )


def _pyramid_bytes() -> Case:
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
        "gaussian_pyramid 1080p uint8, binomial, 3 levels",
        {OURS: ours, "OpenCV pyrDown": opencv},
        _with_backend("reference", ours),
        int(frame.nbytes * (1 + 1 / 4 + 1 / 16 + 1 / 64)),
        goals={"OpenCV pyrDown": 1 / 1.3},
    )


def plain_step(x: Tensor, h: Tensor, c: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    return plain_gates(F.conv2d(torch.cat((x, h), 1), weight, bias, padding=1), c)


def _conv_lstm(device: str) -> Case:
    x, h, c = (torch.randn(1, 32, 256, 256, device=device) for _ in range(3))
    weight, bias = torch.randn(128, 64, 3, 3, device=device) / 24, torch.randn(128, device=device)
    last = [each.contiguous(memory_format=torch.channels_last) for each in (x, h, c, weight)]
    fused = compiled(plain_step)
    return Case(
        "conv_lstm C=32 256x256 forward",
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


class OneConvolution(torch.nn.Module):
    """The layout most used in public: one convolution over [x, h] for the gates i, f, o, g."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.hidden_dim = channels
        self.conv = torch.nn.Conv2d(2 * channels, 4 * channels, 3, padding=1)

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        h, c = state
        i, f, o, g = torch.split(self.conv(torch.cat([x, h], dim=1)), self.hidden_dim, dim=1)
        c_next = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c_next), c_next


class EightConvolutions(torch.nn.Module):
    """The other one: a convolution of x and one of h per gate, and peepholes, which start at zero."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        for gate in "ifco":
            setattr(self, f"Wx{gate}", torch.nn.Conv2d(channels, channels, 3, padding=1, bias=True))
            setattr(self, f"Wh{gate}", torch.nn.Conv2d(channels, channels, 3, padding=1, bias=False))
        self.Wci: Any = None
        self.Wcf: Any = None
        self.Wco: Any = None

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        if self.Wci is None:
            self.Wci, self.Wcf, self.Wco = (torch.zeros(1, *c.shape[1:], dtype=c.dtype) for _ in range(3))
        ci = torch.sigmoid(self.Wxi(x) + self.Whi(h) + c * self.Wci)
        cf = torch.sigmoid(self.Wxf(x) + self.Whf(h) + c * self.Wcf)
        cc = cf * c + ci * torch.tanh(self.Wxc(x) + self.Whc(h))
        co = torch.sigmoid(self.Wxo(x) + self.Who(h) + cc * self.Wco)
        return co * torch.tanh(cc), cc


def _public_layouts() -> Case:
    """Both layouts with the same weights as they are, after `unrain.accelerate`, and compiled."""
    torch.manual_seed(2)
    channels = 32
    one, eight = OneConvolution(channels).eval(), EightConvolutions(channels).eval()
    with torch.no_grad():
        for number, gate in enumerate("ifoc"):
            rows = slice(number * channels, (number + 1) * channels)
            getattr(eight, f"Wx{gate}").weight.copy_(one.conv.weight[rows, :channels])
            getattr(eight, f"Wh{gate}").weight.copy_(one.conv.weight[rows, channels:])
            getattr(eight, f"Wx{gate}").bias.copy_(one.conv.bias[rows])
    x, h, c = (torch.randn(1, channels, 128, 128) for _ in range(3))
    fused = compiled(deepcopy(one))
    ours = accelerate(torch.nn.ModuleDict({"one": deepcopy(one), "eight": deepcopy(eight)}))

    def inferred(function: Contender) -> Contender:
        return torch.inference_mode()(function)

    return Case(
        "ConvLSTM cells in public layouts, C=32 128x128 forward",
        {
            "unrain, accelerate, one convolution": inferred(lambda: ours["one"](x, (h, c))),
            "unrain, accelerate, eight convolutions": inferred(lambda: ours["eight"](x, h, c)),
            "eager, one convolution": inferred(lambda: one(x, (h, c))),
            "eager, eight convolutions": inferred(lambda: eight(x, h, c)),
            "torch.compile, one convolution": inferred(lambda: fused(x, (h, c))),
        },
        inferred(lambda: deepcopy(one).double()(*(each.double() for each in (x,)), (h.double(), c.double()))),
        bytes_of(x, h, c, c, c, one.conv.weight),
        operations=2 * 9 * 64 * 128 * 128 * 128 + 13 * c.numel(),
    )


def _frame_to_tensor() -> Case:
    frame = np.random.default_rng(0).integers(0, 256, (1080, 1920, 3), dtype=np.uint8)

    def usual(dtype: torch.dtype = torch.float32) -> Tensor:
        x = torch.from_numpy(frame).permute(2, 0, 1)[None].to(dtype) / 255
        return F.pad(x, (0, 0, 0, 8), mode="reflect")  # 1080 -> 1088, a multiple of 16

    return Case(
        "frame_to_tensor 1080p to float32, padded to 16",
        {OURS: lambda: kernels.frame_to_tensor(frame, multiple=16), "from_numpy, permute, float, divide, pad": usual},
        lambda: usual(torch.float64),
        frame.nbytes + 3 * 1088 * 1920 * 4,
        goals={"from_numpy, permute, float, divide, pad": 3.0},
    )


def _tensor_to_frame() -> Case:
    x = torch.rand(1, 3, 1080, 1920) * 1.2 - 0.1

    def usual() -> Tensor:
        return (x[0].clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous()

    return Case(
        "tensor_to_frame 1080p",
        {OURS: lambda: kernels.tensor_to_frame(x), "clamp, scale, round, permute": usual},
        usual,
        bytes_of(x) + 3 * 1080 * 1920,
    )

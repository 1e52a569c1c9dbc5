"""The same jobs as users of PyTorch write them, without this project: what the kernels are measured against."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from case import Contender, Tensor


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    return torch.compile(function, fullgraph=True, dynamic=False)


def plain_gates(pre: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    i, f, g, o = pre.chunk(4, 1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


def plain_gru(pre: Tensor, candidate: Tensor, hidden: Tensor, h: Tensor) -> Tensor:
    """The reset after the convolution."""
    z, r = torch.sigmoid(pre).chunk(2, 1)
    return (1 - z) * h + z * torch.tanh(candidate + r * hidden)


def plain_gru_step(x: Tensor, h: Tensor, gates: Tensor, candidate: Tensor) -> Tensor:
    """The reset before it."""
    z, r = torch.sigmoid(F.conv2d(torch.cat([x, h], 1), gates, padding=1)).chunk(2, 1)
    return (1 - z) * h + z * torch.tanh(F.conv2d(torch.cat([x, r * h], 1), candidate, padding=1))


def plain_charbonnier(pred: Tensor, target: Tensor) -> Tensor:
    return torch.sqrt((pred - target) ** 2 + 1e-3**2).mean()


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


def packaged_ssim(x: Tensor, y: Tensor) -> Contender:
    """pytorch-msssim, which does not pad: on pictures that were padded for it, outside of the time."""
    wide = F.pad(x.detach(), (5, 5, 5, 5)).requires_grad_()
    other = F.pad(y, (5, 5, 5, 5))

    def step() -> tuple[Tensor, ...]:
        from pytorch_msssim import ssim

        value = ssim(wide, other, data_range=1.0)
        return value.detach(), torch.autograd.grad(value, wide)[0][..., 5:-5, 5:-5]

    return step


def plain_read(query: Tensor, items: Tensor) -> Tensor:
    scores = F.normalize(query, dim=1) @ F.normalize(items, dim=1).T
    return torch.softmax(scores, 1) @ items


def plain_update(query: Tensor, items: Tensor) -> Tensor:
    weights = torch.softmax(F.normalize(query, dim=1) @ F.normalize(items, dim=1).T, 0)
    return F.normalize(items + weights.T @ query, dim=1)


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


def plain_step(x: Tensor, h: Tensor, c: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    return plain_gates(F.conv2d(torch.cat((x, h), 1), weight, bias, padding=1), c)

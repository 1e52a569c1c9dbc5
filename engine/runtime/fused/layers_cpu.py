"""A convolution with the batch normalisation, ReLU or PReLU behind it, on channels-last maps of a CPU.

`Layer` is our own, in Winograd's form (`kernels/conv3x3.py`): a quarter of the multiplications of a direct convolution,
and what follows it in the same pass over memory. `Plain` is oneDNN's, for strided convolutions and those of a picture's
3 channels.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from ....kernels.conv3x3 import packed as conv3x3
from .cells_cpu import empty
from .convolution import Arithmetic


class Parts(NamedTuple):
    """What a sequence of modules comes to."""

    conv: nn.Conv2d | nn.ConvTranspose2d
    weight: Tensor
    bias: Tensor | None
    relu: bool
    slope: Tensor | None  # of a PReLU


def parts(modules: nn.Module | Iterable[nn.Module]) -> Parts:
    """A convolution, then perhaps a batch normalisation, which is folded into it, then perhaps a ReLU or PReLU."""
    conv, *rest = modules if isinstance(modules, Iterable) else [modules]
    assert isinstance(conv, nn.Conv2d | nn.ConvTranspose2d)
    weight, bias, relu, slope = conv.weight, conv.bias, False, None
    for each in rest:
        norm: Any = each
        if isinstance(each, nn.BatchNorm2d):
            average = (norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias)
            weight, bias = fuse_conv_bn_weights(weight, bias, *average, isinstance(conv, nn.ConvTranspose2d))
        elif isinstance(each, nn.ReLU):
            relu = True
        else:
            assert isinstance(each, nn.PReLU)
            slope = each.weight.detach()
    return Parts(conv, weight.detach(), None if bias is None else bias.detach(), relu, slope)


class Layer:
    """A 3x3 or 1x1 convolution of maps side by side, or a transposed one to twice the size, into a given map.

    Weights for a picture are filled up to 16 channels.
    """

    def __init__(self, modules: nn.Module | Iterable[nn.Module], arithmetic: Arithmetic, slope: Tensor | None = None):
        conv, weight, bias, self.relu, own_slope = parts(modules)
        slope = own_slope if slope is None else slope
        if isinstance(conv, nn.ConvTranspose2d):
            assert (conv.stride, conv.padding, conv.output_padding) == ((2, 2), (1, 1), (1, 1))
            self.packed = conv3x3.pack_transposed(weight, bias, arithmetic.products, slope)
        else:
            weight = F.pad(weight, (0, 0, 0, 0, 0, -weight.shape[1] % conv3x3.MULTIPLE))
            if conv.kernel_size == (1, 1):
                self.packed = conv3x3.pack_pointwise(weight, bias, arithmetic.products, slope)
            else:
                assert conv.stride == (1, 1) and conv.padding == conv.dilation
                self.packed = conv3x3.pack(weight, bias, arithmetic.products, slope, int(conv.dilation[0]))
        self.workspace = arithmetic.workspace

    def __call__(self, maps: Sequence[Tensor], out: Tensor, add: Tensor | None = None) -> Tensor:
        """act(conv(maps)) + add; `out` may be `add`, but none of the maps."""
        return conv3x3.convolve(maps, self.packed, out, self.workspace, self.relu, add)


class Plain:
    """Any convolution; its result is a new map."""

    def __init__(self, modules: nn.Module | Iterable[nn.Module], dtype: torch.dtype) -> None:
        conv, weight, bias, self.relu, slope = parts(modules)
        self.weight = weight.to(dtype).contiguous(memory_format=torch.channels_last)
        self.bias = None if bias is None else bias.to(dtype)
        self.slope = None if slope is None else slope.to(dtype)
        self.stride, self.padding = conv.stride, conv.padding

    def __call__(self, x: Tensor) -> Tensor:
        y = F.conv2d(x, self.weight, self.bias, self.stride, self.padding)
        if self.slope is not None:
            return F.prelu(y, self.slope)
        return y.relu_() if self.relu else y


class Maps:
    """The maps of one network for one size of picture: one for each name and shape, kept between pictures."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self._picture: torch.Size | None = None
        self._kept: dict[tuple[object, ...], Tensor] = {}

    def begin(self, picture: Tensor) -> None:
        if picture.shape != self._picture:
            self._kept.clear()
            self._picture = picture.shape

    def __call__(
        self, name: str, like: Tensor, channels: int, dtype: torch.dtype | None = None, scale: int = 1
    ) -> Tensor:
        """`scale` times as high and wide as `like`, channels-last; what was in it last time, or anything."""
        shape = (like.shape[0], channels, *(scale * side for side in like.shape[2:]))
        key = (name, shape, dtype)
        if key not in self._kept:
            self._kept[key] = empty(*shape, dtype or self.dtype)
        return self._kept[key]

    def taken(self, picture: Tensor) -> Tensor:
        """A picture or map as this network's layers read it."""
        return picture.to(self.dtype).contiguous(memory_format=torch.channels_last)

"""3x3 convolutions with packed weights on channels-last maps, with what follows them done before they are stored.

`Winograd` is our own (`kernels/conv3x3.py`); `Direct` is oneDNN's, for the layers that ours does not take (maps of 3
channels) and for installs without the compiled part.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ....kernels.conv3x3 import packed as conv3x3

_ONE = [1, 1]


def available() -> str | None:
    """Why PyTorch's oneDNN operations cannot be used here, or None."""
    if not torch.backends.mkldnn.is_available():
        return "this PyTorch is built without oneDNN"
    if not hasattr(torch.ops.mkldnn, "_convolution_pointwise"):
        return "this PyTorch has no fused oneDNN convolutions"
    return None


class Arithmetic:
    """What the convolutions of one network share: the dtypes of their maps and products, and memory to work in."""

    def __init__(self, dtype: torch.dtype, products: torch.dtype) -> None:
        self.dtype, self.products, self.workspace = dtype, products, conv3x3.Workspace()

    def packed(self, weight: Tensor, bias: Tensor | None) -> conv3x3.Packed:
        return conv3x3.pack(weight, bias, self.products)

    def convolution(self, weight: Tensor, bias: Tensor | None) -> Winograd | Direct:
        """The fastest there is for these weights [O,I,3,3]."""
        if conv3x3.can_run([weight.shape[1]]) is None:
            return Winograd(self.packed(weight, bias), self.workspace)
        return Direct(weight, bias, self.dtype)


class Winograd:
    """A quarter of the multiplications."""

    def __init__(self, packed: conv3x3.Packed, workspace: conv3x3.Workspace) -> None:
        self.packed, self.workspace = packed, workspace

    def __call__(
        self, x: Tensor, out: Tensor, relu: bool = False, add: Tensor | None = None, relu_sum: bool = False
    ) -> Tensor:
        """relu_sum(relu(conv(x)) + add) in `out`, which may be float32 beside bfloat16 maps; `add` is of its dtype."""
        return conv3x3.convolve([x], self.packed, out, self.workspace, relu, add, relu_sum)


class Direct:
    """oneDNN's, its weights packed once per picture size."""

    def __init__(self, weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> None:
        self.weight = weight.detach().to(dtype).contiguous(memory_format=torch.channels_last)
        self.bias = None if bias is None else bias.detach().to(dtype)
        self._packed: dict[tuple[int, ...], Tensor] = {}

    def __call__(
        self,
        x: Tensor,
        out: Tensor | None = None,
        relu: bool = False,
        add: Tensor | None = None,
        relu_sum: bool = False,
    ) -> Tensor:
        """As `Winograd`; its results are new tensors unless `out` is of another dtype."""
        y = self._convolved(x, relu)
        if add is not None:
            y = y.add_(add) if y.dtype == add.dtype else add + y
        if relu_sum:
            y.relu_()
        return y if out is None or out.dtype == y.dtype else out.copy_(y)

    def plus(self, x: Tensor, other: Tensor) -> Tensor:
        """relu(conv(x) + other)."""
        y = torch.ops.mkldnn._convolution_pointwise.binary(
            x, other, self._weights(x, _ONE), self.bias, _ONE, _ONE, _ONE, 1, "add", 1.0, None, [], None
        )
        return y.relu_()  # oneDNN's own makes zeros of NaN

    def band(self, x: Tensor) -> Tensor:
        """conv(x) for an x that brings its own row above and row below."""
        return self._convolved(x, False, [0, 1])

    def _convolved(self, x: Tensor, relu: bool, padding: Sequence[int] = _ONE) -> Tensor:
        y = torch.ops.mkldnn._convolution_pointwise.default(
            x, self._weights(x, padding), self.bias, padding, _ONE, _ONE, 1, "none", [], ""
        )
        return y.relu_() if relu else y

    def _weights(self, x: Tensor, padding: Sequence[int]) -> Tensor:
        key = tuple(x.shape)
        packed = self._packed.get(key)
        if packed is None:
            if len(self._packed) > 7:  # a band's size and its last band's; a few picture sizes
                self._packed.clear()
            packed = torch.ops.mkldnn._reorder_convolution_weight(self.weight, padding, _ONE, _ONE, 1, list(x.shape))
            self._packed[key] = packed
        return packed

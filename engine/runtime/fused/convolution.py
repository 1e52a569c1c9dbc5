"""A 3x3 convolution with weights packed for oneDNN, channels-last, its ReLU or sum done before it is stored."""

from __future__ import annotations

import torch
from torch import Tensor

_ONE = [1, 1]


def available() -> str | None:
    """Why PyTorch's oneDNN operations cannot be used here, or None."""
    if not torch.backends.mkldnn.is_available():
        return "this PyTorch is built without oneDNN"
    if not hasattr(torch.ops.mkldnn, "_convolution_pointwise"):
        return "this PyTorch has no fused oneDNN convolutions"
    return None


class Convolution:
    """Weights [O,I,3,3] packed once per picture size; the input is channels-last, the output too."""

    def __init__(self, weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> None:
        self.weight = weight.detach().to(dtype).contiguous(memory_format=torch.channels_last)
        self.bias = None if bias is None else bias.detach().to(dtype)
        self._packed: dict[tuple[int, ...], Tensor] = {}

    def _weights(self, x: Tensor, padding: list[int]) -> Tensor:
        key = tuple(x.shape)
        packed = self._packed.get(key)
        if packed is None:
            if len(self._packed) > 7:  # a band's size and its last band's; a few picture sizes
                self._packed.clear()
            packed = torch.ops.mkldnn._reorder_convolution_weight(self.weight, padding, _ONE, _ONE, 1, list(x.shape))
            self._packed[key] = packed
        return packed

    def __call__(self, x: Tensor, relu: bool = False, rows_padded: bool = False) -> Tensor:
        """conv(x), or relu(conv(x)). With `rows_padded`, x brings its own row above and row below."""
        padding = [0, 1] if rows_padded else _ONE
        return torch.ops.mkldnn._convolution_pointwise.default(
            x, self._weights(x, padding), self.bias, padding, _ONE, _ONE, 1, "relu" if relu else "none", [], ""
        )

    def plus(self, x: Tensor, other: Tensor, relu: bool = False) -> Tensor:
        """conv(x) + other, or relu of that."""
        return torch.ops.mkldnn._convolution_pointwise.binary(
            x,
            other,
            self._weights(x, _ONE),
            self.bias,
            _ONE,
            _ONE,
            _ONE,
            1,
            "add",
            1.0,
            "relu" if relu else None,
            [],
            "",
        )

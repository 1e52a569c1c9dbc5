"""Recurrent cells over pictures. The state is explicit: `(out, state) = cell(x, state)`, and None starts from zero."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...kernels import conv_gru, conv_lstm, lstm_gates


class ConvLSTMState(NamedTuple):
    """What a ConvLSTM carries: its output h and its cell c, [B,C,H,W] each."""

    h: Tensor
    c: Tensor

    def detach(self) -> ConvLSTMState:
        """The same numbers cut off from their history, for truncated backpropagation and for video."""
        return ConvLSTMState(self.h.detach(), self.c.detach())


class ConvLSTMCell(nn.Module):
    """A ConvLSTM step over `kernels.conv_lstm`: `(h, state) = cell(x, state)`.

    State dict: `weight` [4C,Cin+C,k,k] over the channels [x, h] and `bias` [4C], gates in the order i, f, g, o (bring
    others there with `unrain.kernels.gate_permutation`); with `peephole`, also `peephole` [3,C,1,1] for i, f, o.
    The padding keeps the size of the picture. Kernel sizes other than 3, and peepholes, fuse the gates only.
    """

    def __init__(
        self, in_channels: int, hidden_channels: int, kernel_size: int = 3, bias: bool = True, peephole: bool = False
    ):
        super().__init__()
        _check(in_channels, hidden_channels, kernel_size)
        self.in_channels, self.hidden_channels, self.kernel_size = in_channels, hidden_channels, kernel_size
        shape = (4 * hidden_channels, in_channels + hidden_channels, kernel_size, kernel_size)
        self.weight = nn.Parameter(torch.empty(shape))
        self.register_parameter("bias", nn.Parameter(torch.empty(4 * hidden_channels)) if bias else None)
        self.register_parameter("peephole", nn.Parameter(torch.empty(3, hidden_channels, 1, 1)) if peephole else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """As nn.Conv2d; peepholes start at zero."""
        _reset(self.weight, self.bias)
        if self.peephole is not None:
            nn.init.zeros_(self.peephole)

    def forward(self, x: Tensor, state: ConvLSTMState | tuple[Tensor, Tensor] | None = None):
        h, c = (None, None) if state is None else state
        if self.kernel_size == 3 and self.peephole is None:
            state = ConvLSTMState(*conv_lstm(x, h, c, self.weight, self.bias))
        else:
            state = ConvLSTMState(*lstm_gates(self._pre_activations(x, h), c, self.peephole))
        return state.h, state

    def _pre_activations(self, x: Tensor, h: Tensor | None) -> Tensor:
        padding = self.kernel_size // 2
        if h is not None:
            return F.conv2d(torch.cat([x, h], 1), self.weight, self.bias, padding=padding)
        # From zero there is nothing to forget and no h: i, g and o over x alone.
        rows = [torch.cat([each[: self.hidden_channels], each[2 * self.hidden_channels :]]) for each in self._terms()]
        return F.conv2d(x, rows[0][:, : self.in_channels], *rows[1:], padding=padding)

    def _terms(self) -> list[Tensor]:
        return [self.weight] if self.bias is None else [self.weight, self.bias]

    def extra_repr(self) -> str:
        text = f"{self.in_channels}, {self.hidden_channels}, kernel_size={self.kernel_size}"
        return (
            text
            + (", bias=False" if self.bias is None else "")
            + (", peephole=True" if self.peephole is not None else "")
        )


class ConvGRUState(NamedTuple):
    """What a ConvGRU carries: its output h, [B,C,H,W]."""

    h: Tensor

    def detach(self) -> ConvGRUState:
        return ConvGRUState(self.h.detach())


class ConvGRUCell(nn.Module):
    """A ConvGRU step over `kernels.conv_gru`, as SRN-GRU has it: `(h, state) = cell(x, state)`.

        z, r = sigmoid of a convolution over [x, h];  g = tanh of one over [x, r * h];  h' = (1 - z) * h + z * g

    State dict: `gates.weight` [2C,Cin+C,kh,kw] (z, r) with `gates.bias`, `candidate.weight` [C,Cin+C,kh,kw] with its
    bias. A kernel size may be (kh, kw): RAFT's separable GRU is a cell of (1, 5) and one of (5, 1) after it.
    """

    def __init__(
        self, in_channels: int, hidden_channels: int, kernel_size: int | tuple[int, int] = 3, bias: bool = True
    ):
        super().__init__()
        sides = (kernel_size, kernel_size) if isinstance(kernel_size, int) else kernel_size
        _check(in_channels, hidden_channels, *sides)
        self.in_channels, self.hidden_channels = in_channels, hidden_channels
        both, padding = in_channels + hidden_channels, (sides[0] // 2, sides[1] // 2)
        self.gates = nn.Conv2d(both, 2 * hidden_channels, sides, padding=padding, bias=bias)
        self.candidate = nn.Conv2d(both, hidden_channels, sides, padding=padding, bias=bias)

    def forward(self, x: Tensor, state: ConvGRUState | tuple[Tensor] | None = None):
        h = None if state is None else state[0]
        h = conv_gru(x, h, self.gates.weight, self.gates.bias, self.candidate.weight, self.candidate.bias)
        return h, ConvGRUState(h)

    def extra_repr(self) -> str:
        return f"{self.in_channels}, {self.hidden_channels}"


def _check(in_channels: int, hidden_channels: int, *kernel_size: int) -> None:
    if in_channels < 1 or hidden_channels < 1:
        raise ValueError(f"in_channels and hidden_channels must be positive, got {in_channels} and {hidden_channels}")
    if any(side < 1 or side % 2 == 0 for side in kernel_size):
        raise ValueError(
            f"kernel_size must be odd, to keep the size of the picture; got {' x '.join(map(str, kernel_size))}"
        )


def _reset(weight: Tensor, bias: Tensor | None) -> None:
    nn.init.kaiming_uniform_(weight, a=math.sqrt(5))
    if bias is not None:
        bound = 1 / math.sqrt(weight[0].numel())
        nn.init.uniform_(bias, -bound, bound)

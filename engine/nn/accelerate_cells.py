"""ConvLSTM cells of the common public layouts, and their fused forms.

One convolution: a single `nn.Conv2d` over [x, h] (or [h, x]) for all four gates in any order, with or without a
constant forget bias; called `cell(x, (h, c))` or `cell(x, h, c)`, returning h and c. Eight convolutions: `Wxi, Whi,
Wxf, Whf, Wxc, Whc, Wxo, Who` with peepholes `Wci, Wcf, Wco` that exist from the first use on; called `cell(x, h, c)`,
returning h and c.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...kernels import conv_lstm, lstm_gates
from ...kernels.library import wants_grad
from ...kernels.lstm_gates import reference as gates
from .accelerate_probe import SAME_FORMULA, Unproven, at, call_original, keeps_to_itself, prove, random_copy
from .accelerate_swap import Recipe, plain_settings, required_arguments

EIGHT = tuple(f"W{source}{gate}" for gate in "ifco" for source in "xh")
PEEPHOLES = ("Wci", "Wcf", "Wco")
SIZES = ((2, 6, 5), (1, 9, 8))  # batch, height, width of the probes


def recognise(module: nn.Module) -> Recipe | None:
    """The proven fused form of a ConvLSTM cell; None where it is no such cell; Unproven where it is only like one."""
    children = dict(module.named_children())
    if set(EIGHT) <= set(children):
        return _eight(module, children)
    convolutions = [name for name, child in children.items() if isinstance(child, nn.Conv2d)]
    names = required_arguments(type(module).forward)
    if len(convolutions) != 1 or names is None or len(names) not in (3, 4):  # self and two or three more
        return None
    convolution = children[convolutions[0]]
    if convolution.out_channels % 4 or convolution.in_channels <= convolution.out_channels // 4:
        return None
    others = [f"{name} ({type(child).__name__})" for name, child in children.items() if name != convolutions[0]]
    if others:
        raise Unproven(f"like a ConvLSTM cell, but with more inside: {', '.join(others)}")
    _check_convolutions(module, [convolution])
    return _one(module, convolutions[0], names[1:])


@dataclass(frozen=True)
class OneConvolution(Recipe):
    name: str
    order: str
    hidden_first: bool
    forget_bias: float
    kind: type

    def describe(self) -> str:
        return f"ConvLSTM cell, gates {', '.join(self.order)} in one convolution"

    def arguments(self, module: nn.Module, x: Any, *state: Any) -> tuple[Any, ...] | None:
        if len(state) == 1:
            state = state[0]
        convolution = getattr(module, self.name)
        if not isinstance(state, tuple | list) or len(state) != 2 or not _runs_plainly(convolution):
            return None
        return (x, *state) if all(isinstance(t, Tensor) and t.dim() == 4 for t in (x, *state)) else None

    def run(self, module: nn.Module, x: Tensor, h: Tensor, c: Tensor) -> Any:
        convolution = getattr(module, self.name)
        weight, bias = self._in_our_order(convolution)
        if _is_three_by_three(convolution) and not _trains_on_cpu(x, h, c, weight, bias):
            return self.kind(conv_lstm(x, h, c, weight, bias))
        return self.kind(lstm_gates(convolution._conv_forward(torch.cat([x, h], 1), weight, bias), c))

    def _in_our_order(self, convolution: nn.Conv2d) -> tuple[Tensor, Tensor | None]:
        weight, bias = self._rows(convolution.weight), convolution.bias
        if self.hidden_first:
            channels = convolution.out_channels // 4
            weight = torch.cat([weight[:, channels:], weight[:, :channels]], 1)
        bias = None if bias is None else self._rows(bias)
        if self.forget_bias:
            zero = weight.new_zeros(convolution.out_channels) if bias is None else bias
            i, f, g, o = zero.chunk(4)
            bias = torch.cat([i, f + self.forget_bias, g, o])
        return weight, bias

    def _rows(self, rows: Tensor) -> Tensor:
        if self.order == "ifgo":
            return rows
        parts = rows.chunk(4)
        return torch.cat([parts[self.order.index(gate)] for gate in "ifgo"])


@dataclass(frozen=True)
class EightConvolutions(Recipe):
    kind: type

    def describe(self) -> str:
        return "ConvLSTM cell with peepholes, its eight convolutions as one"

    def arguments(self, module: nn.Module, x: Any, h: Any, c: Any) -> tuple[Any, ...] | None:
        if not all(isinstance(t, Tensor) and t.dim() == 4 for t in (x, h, c)):
            return None
        peepholes = [getattr(module, name) for name in PEEPHOLES]
        shapes = ((1, *c.shape[1:]), (1, c.shape[1], 1, 1))
        if any(not isinstance(each, Tensor) or each.shape not in shapes for each in peepholes):
            return None  # before the first use, or a broadcast of its own
        if len({each.shape for each in peepholes}) > 1:
            return None
        return (x, h, c, *peepholes) if all(_runs_plainly(getattr(module, name)) for name in EIGHT) else None

    def run(self, module: nn.Module, x: Tensor, h: Tensor, c: Tensor, *peepholes: Tensor) -> Any:
        def part(gate: str, source: str) -> nn.Conv2d:
            return getattr(module, f"W{source}{gate}")

        weight = torch.cat([torch.cat([part(gate, "x").weight, part(gate, "h").weight], 1) for gate in "ifco"])
        biases = [[b for b in (part(gate, "x").bias, part(gate, "h").bias) if b is not None] for gate in "ifco"]
        bias = torch.cat([sum(each[1:], start=each[0]) for each in biases]) if all(biases) else None
        pre = F.conv2d(torch.cat([x, h], 1), weight, bias, padding=part("i", "x").padding)
        return self.kind(lstm_gates(pre, c, torch.cat(peepholes).to(pre.dtype)))


def _one(module: nn.Module, name: str, names: tuple[str, ...]) -> Recipe:
    convolution = getattr(module, name)
    channels = convolution.out_channels // 4
    inputs = convolution.in_channels - channels
    trials = [_trial(size, inputs, channels, packed=len(names) == 2) for size in SIZES]
    twin = at(random_copy(module), "cpu", torch.float64).eval()
    keeps_to_itself(twin, trials[0])
    found = call_original(twin, trials[0])
    if type(found) not in (tuple, list) or len(found) != 2 or not all(isinstance(t, Tensor) for t in found):
        raise Unproven("like a ConvLSTM cell, but it does not return h and c")
    form = _find_form(getattr(twin, name), trials[0], found)
    recipe = OneConvolution(names, plain_settings(module, twin), name, *form, type(found))
    prove(module, recipe, trials)
    return recipe


def _find_form(convolution: nn.Conv2d, trial: Sequence[Any], found: Sequence[Tensor]) -> tuple[str, bool, float]:
    """Which order of gates, order of inputs and forget bias gives what the cell gave."""
    x, h, c = (trial[0], *trial[1]) if len(trial) == 2 else trial
    for hidden_first in (False, True):
        parts = convolution(torch.cat([h, x] if hidden_first else [x, h], 1)).chunk(4, 1)
        for order in map("".join, permutations("ifgo")):
            for forget_bias in (0.0, 1.0):
                i, f, g, o = (parts[order.index(gate)] for gate in "ifgo")
                step = gates.forward(torch.cat([i, f + forget_bias, g, o], 1), c)
                if all(
                    a.shape == b.shape and bool((a - b).abs().max() <= SAME_FORMULA * b.abs().max())
                    for a, b in zip(step, found, strict=True)
                ):
                    return order, hidden_first, forget_bias
    raise Unproven("like a ConvLSTM cell, but its results differ from a plain LSTM step in every order of the gates")


def _eight(module: nn.Module, children: dict[str, nn.Module]) -> Recipe:
    others = sorted(set(children) - set(EIGHT))
    if others:
        raise Unproven(f"like a ConvLSTM cell, but with more inside: {', '.join(others)}")
    names = required_arguments(type(module).forward)
    if names is None or len(names) != 4:
        raise Unproven("like a ConvLSTM cell, but it is not called with x, h and c")
    if not all(hasattr(module, name) for name in PEEPHOLES):
        raise Unproven(f"like a ConvLSTM cell, but without the peepholes {', '.join(PEEPHOLES)}")
    convolutions = [children[name] for name in EIGHT]
    _check_convolutions(module, convolutions)
    kinds = {(c.kernel_size, c.padding, c.stride, c.dilation, c.groups, c.padding_mode) for c in convolutions}
    if len(kinds) > 1 or next(iter(kinds))[2:] != ((1, 1), (1, 1), 1, "zeros"):
        raise Unproven("like a ConvLSTM cell, but its convolutions are not all alike")
    if len({children[f"Wx{gate}"].bias is None and children[f"Wh{gate}"].bias is None for gate in "ifco"}) > 1:
        raise Unproven("like a ConvLSTM cell, but only some of its gates have a bias")
    channels, inputs = convolutions[1].in_channels, convolutions[0].in_channels

    twin = random_copy(module)
    fixed = next((p.shape[2:] for p in (getattr(module, name) for name in PEEPHOLES) if isinstance(p, Tensor)), None)
    size = (2, *(fixed if fixed is not None and fixed != (1, 1) else SIZES[0][1:]))
    for name in PEEPHOLES:  # as they are after the first use, but not zero
        if isinstance(getattr(twin, name), nn.Parameter):
            continue
        value = torch.randn(1, channels, *(fixed or size[1:]), generator=torch.Generator().manual_seed(len(name)))
        setattr(twin, name, value.to(convolutions[0].weight))
    trial = _trial(size, inputs, channels, packed=False)
    wide = at(copy.deepcopy(twin), "cpu", torch.float64)
    keeps_to_itself(wide, trial)
    recipe = EightConvolutions(names[1:], plain_settings(module, wide), type(call_original(wide, trial)))
    prove(twin, recipe, [trial])
    return recipe


def _trial(size: Sequence[int], inputs: int, channels: int, packed: bool) -> tuple[Any, ...]:
    generator = torch.Generator().manual_seed(0)
    batch, height, width = size
    x, h, c = (
        torch.randn(batch, n, height, width, dtype=torch.float64, generator=generator)
        for n in (inputs, channels, channels)
    )
    return (x, (h, c)) if packed else (x, h, c)


def _check_convolutions(module: nn.Module, convolutions: Sequence[nn.Module]) -> None:
    for convolution in convolutions:
        if type(convolution) is not nn.Conv2d:
            raise Unproven(f"like a ConvLSTM cell, but its convolution is a {type(convolution).__name__}")
        if not _runs_plainly(convolution):
            raise Unproven("like a ConvLSTM cell, but its convolution has hooks, which a fused form would not call")
    if any(True for _ in module.parameters(recurse=False)) and not hasattr(module, PEEPHOLES[0]):
        raise Unproven("like a ConvLSTM cell, but with parameters beside its convolution")


def _runs_plainly(convolution: nn.Module) -> bool:
    """Whether a convolution is nothing but its weights: no hooks, not replaced since."""
    hooks = (convolution._forward_hooks, convolution._forward_pre_hooks, convolution._backward_hooks)
    return type(convolution) is nn.Conv2d and not any(hooks) and "forward" not in convolution.__dict__


def _trains_on_cpu(x: Tensor, *others: Tensor | None) -> bool:
    """There conv_lstm saves memory, by convolving once more on the way back; keeping the pre-activations is quicker."""
    return x.device.type == "cpu" and wants_grad(x, *others)


def _is_three_by_three(convolution: nn.Conv2d) -> bool:
    return (
        convolution.kernel_size == (3, 3)
        and convolution.padding == (1, 1)
        and convolution.stride == convolution.dilation == (1, 1)
        and convolution.groups == 1
        and convolution.padding_mode == "zeros"
    )

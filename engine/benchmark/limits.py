"""What the machine can do at most, measured, and what a network or an op asks of it, counted from its shapes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from copy import deepcopy
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .timing import milliseconds

_COPIED = 128 << 20  # bytes: well past every cache
_SIDE = {"cpu": 1024, "cuda": 8192}  # of the matrices whose product gives the matrix rate
_MAP = 64  # pixels a side of the map of _SIDE / 2 channels that a 1x1 convolution, a product too, is run on
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_TRIES = 12


class Limits(NamedTuple):
    """Bytes a second that a copy moves, read and written both counted; operations a second of a product of matrices."""

    copy: float
    matrix: dict[str, float]

    def milliseconds(self, operations: float, traffic: float, precision: str = "fp32") -> float:
        """The least time for that much work: it is bound by arithmetic or by memory, whichever takes longer."""
        rate = self.matrix.get(precision) or self.matrix["fp32"]
        return max(operations / rate, traffic / self.copy) * 1e3

    def bound(self, operations: float, traffic: float, precision: str = "fp32") -> str:
        rate = self.matrix.get(precision) or self.matrix["fp32"]
        return "arithmetic" if operations / rate > traffic / self.copy else "memory"

    def or_better(self, other: Limits) -> Limits:
        """The best of both measurements."""
        return Limits(
            max(self.copy, other.copy),
            {name: max(rate, other.matrix.get(name, rate)) for name, rate in {**other.matrix, **self.matrix}.items()},
        )


def measured(
    device: torch.device | str = "cpu", tries: int = _TRIES, precisions: Iterable[str] | None = None
) -> Limits:
    """The best of several tries each: a limit is what the machine can do, not what it does on average.

    A machine that is busy for a second shows less than it can do, so a run measures again every now and then, and keeps
    the best: `or_better`.
    """
    device = torch.device(device)
    rates = {name: _matrix_rate(device, name, tries) for name in precisions or _precisions(device)}
    # Where a processor has no such instructions torch still multiplies, slowly: that says nothing about the machine.
    rates = {name: rate for name, rate in rates.items() if rate >= rates["fp32"]}
    return Limits(_copy_rate(device, tries), rates)


def glimpse(device: torch.device | str, known: Limits) -> Limits:
    """`measured` with the few tries that fit between two rounds, for what is known to have a rate of its own."""
    return measured(device, tries=2, precisions=known.matrix)


def _precisions(device: torch.device) -> list[str]:
    if device.type == "cuda":
        return ["fp32", "bf16", "fp16"]
    found = ["fp32"]
    if torch.ops.mkldnn._is_mkldnn_bf16_supported():
        found.append("bf16")
    return [*found, *(["int8"] if _int8_product(torch.ones(32, 32, dtype=torch.int8)) else [])]


def _copy_rate(device: torch.device, tries: int) -> float:
    source = torch.ones(_COPIED, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    target.copy_(source)
    best = min(milliseconds(lambda: target.copy_(source)) for _ in range(tries))
    return 2 * _COPIED / best * 1e3


def _matrix_rate(device: torch.device, precision: str, tries: int) -> float:
    side = _SIDE[device.type]
    if precision == "int8":
        matrix = torch.ones(side, side, dtype=torch.int8, device=device)
        return 2 * side**3 / _best(lambda: torch._int_mm(matrix, matrix), tries)
    matrix = torch.randn(side, side, device=device).to(_DTYPES[precision])
    product = torch.empty_like(matrix)
    rate = 2 * side**3 / _best(lambda: torch.mm(matrix, matrix, out=product), tries)
    if device.type == "cuda":
        return rate
    # The libraries differ: on some processors the convolutions are twice as fast as the matrix products.
    channels = side // 2
    maps = torch.randn(1, channels, _MAP, _MAP).to(_DTYPES[precision]).contiguous(memory_format=torch.channels_last)
    weight = matrix[:channels, :channels, None, None].contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        return max(rate, 2 * channels**2 * _MAP**2 / _best(lambda: torch.conv2d(maps, weight), tries))


def _best(run: Callable[[], Any], tries: int) -> float:
    """Seconds."""
    for _ in range(3):
        run()
    return min(milliseconds(run) for _ in range(tries)) / 1e3


def _int8_product(matrix: Tensor) -> bool:
    try:
        return torch._int_mm(matrix, matrix).dtype is torch.int32
    except (RuntimeError, NotImplementedError):
        return False


def operations(model: nn.Module, height: int, width: int) -> int:
    """Multiplications and additions of the plain network's convolutions and products on one picture of that size.

    What a faster way leaves out (a first stage that starts from nothing) is counted all the same.
    """
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        _walk(model, height, width)
    return counter.get_total_flops()


@torch.no_grad()
def _walk(model: nn.Module, height: int, width: int) -> None:
    """A call of the network on one picture that computes nothing, nor do tensors that it makes on the spot."""
    plain: Any = deepcopy(model).to("meta")
    with torch.device("meta"):
        plain(torch.empty(1, 3, height, width))


def winograd_saves(model: nn.Module, height: int, width: int) -> int:
    """How many of these operations are left out where every 3x3 convolution that can be takes the form F(4x4, 3x3): of
    144 products 36 stay. A row of our own convolutions is counted so."""
    from torch.utils._python_dispatch import TorchDispatchMode

    saved = 0

    class Count(TorchDispatchMode):
        def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            nonlocal saved
            result = op(*args, **(kwargs or {}))
            if op.overloadpacket.__name__ == "convolution":
                weight, stride, transposed = args[1], args[3], args[6]
                if tuple(weight.shape[2:]) == (3, 3) and tuple(stride) == (1, 1) and not transposed:
                    saved += 2 * result.numel() * weight[0].numel() * 3 // 4
            return result

    with Count():
        _walk(model, height, width)
    return saved


def layer_traffic(model: nn.Module, height: int, width: int, precision: str = "fp32") -> int:
    """The bytes that the network's convolutions and products read and write, each of them on its own from memory."""
    from torch.utils._python_dispatch import TorchDispatchMode

    heavy = {"convolution", "mm", "bmm", "addmm", "baddbmm"}
    each = {"fp32": 4, "int8": 1}.get(precision, 2)
    total = 0

    class Count(TorchDispatchMode):
        def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            nonlocal total
            result = op(*args, **(kwargs or {}))
            if op.overloadpacket.__name__ in heavy:
                total += each * sum(part.numel() for part in (*args, result) if isinstance(part, Tensor))
            return result

    with Count():
        _walk(model, height, width)
    return total


def traffic(model: nn.Module, height: int, width: int, precision: str = "fp32") -> int:
    """The bytes that must move at the very least: the picture in and out in float32, and each weight once."""
    each = {"fp32": 4, "int8": 1}.get(precision, 2)
    return 2 * 3 * height * width * 4 + sum(weight.numel() * each for weight in model.state_dict().values())

"""Convolutions of the hand-written networks: weights packed once, maps channels-last, results in given buffers.

All of it is `csrc/conv.h`; the functions here have no derivative and are no `torch.library` ops.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from .. import native
from ..compiled import Function, aligned
from ..native import available
from ..registry import thread_count

MULTIPLE = 16  # of the channels of every map, and of the outputs of a cell
MOST_MAPS = 16
NONE, RELU, SLOPE = 0, 1, 3  # enum Act in csrc/conv.h

__all__ = [
    "MULTIPLE",
    "Packed",
    "Workspace",
    "available",
    "can_run",
    "cell",
    "convolve",
    "multiplies_bf16",
    "pack",
    "pack_pointwise",
    "pack_transposed",
]


def can_run(inputs: Sequence[int]) -> str | None:
    """Why maps of these channels cannot be its input, or None."""
    if available() is not None:
        return available()
    if len(inputs) > MOST_MAPS or any(channels % MULTIPLE for channels in inputs):
        return f"it takes at most {MOST_MAPS} maps of a multiple of {MULTIPLE} channels"
    return None


def multiplies_bf16() -> bool:
    """Whether it has products of bfloat16 here, for maps in bfloat16; they are multiplied in float32 anywhere."""
    found = native.load()
    return not isinstance(found, str) and found.multiplies_bf16()


@dataclass(frozen=True)
class Packed:
    """The weights of a convolution; ordered as the kernel reads them when it is first run."""

    weight: Tensor  # [O,I,k,k], of a transposed one [I,O,3,3]; float32
    bias: Tensor | None
    slope: Tensor | None  # of a PReLU after the bias, one for each output
    products: torch.dtype
    transposed: bool = False
    dilation: int = 1
    memory: Callable[[int], Tensor] = aligned  # where they are put in order
    _orders: dict[int, Tensor] = field(default_factory=dict, repr=False)  # by the number of gates

    @property
    def inputs(self) -> int:
        return self.weight.shape[0 if self.transposed else 1]

    @property
    def kept(self) -> int:
        return self.weight.shape[1 if self.transposed else 0]

    def layer(self, gates: int = 0) -> dict[str, Any]:
        """What the order of the weights depends on."""
        return dict(
            source_channels=[self.inputs],
            outputs=self.kept,
            kernel=self.weight.shape[2],
            dilation=self.dilation,
            form=int(self.transposed),
            gates=gates,
            products=native.DTYPES[self.products],
            y_thin=gates == 0 and self.kept <= 4,
        )

    def ordered(self, gates: int) -> Tensor:
        if gates not in self._orders:
            functions, layer = _functions(), self.layer(gates)
            into = self.memory(functions["conv_packed_bytes"](**layer))
            given = dict(weight=self.weight, bias=self.bias, slope1=self.slope)
            addresses = {name: _address(each) for name, each in given.items()}
            functions["conv_pack"](packed=into.data_ptr(), **layer, **addresses)
            self._orders[gates] = into
        return self._orders[gates]


def pack(
    weight: Tensor,
    bias: Tensor | None,
    products: torch.dtype = torch.float32,
    slope: Tensor | None = None,
    dilation: int = 1,
) -> Packed:
    """Weights [O,I,3,3], to be multiplied in float32, or in bfloat16 where `multiplies_bf16()`; `slope` [O] or [1]."""
    return _pack(weight, bias, products, slope, dilation=dilation)


def pack_pointwise(
    weight: Tensor, bias: Tensor | None, products: torch.dtype = torch.float32, slope: Tensor | None = None
) -> Packed:
    """Weights [O,I,1,1]."""
    return _pack(weight, bias, products, slope)


def pack_transposed(
    weight: Tensor, bias: Tensor | None, products: torch.dtype = torch.float32, slope: Tensor | None = None
) -> Packed:
    """Weights [I,O,3,3] of a transposed convolution to twice the size (stride 2, padding 1, output_padding 1)."""
    return _pack(weight, bias, products, slope, transposed=True)


def _pack(weight: Tensor, bias: Tensor | None, products: torch.dtype, slope: Tensor | None, **form: Any) -> Packed:
    def plain(each: Tensor) -> Tensor:
        return each.detach().cpu().float().contiguous().clone()

    kept = weight.shape[1 if form.get("transposed") else 0]
    slopes = None if slope is None else plain(slope.expand(kept))
    return Packed(plain(weight), None if bias is None else plain(bias), slopes, products, **form)


class Workspace:
    """The kernel's working memory, shared by all convolutions of a network; grows to what the largest needs."""

    def __init__(self) -> None:
        self._memory = torch.empty(0, dtype=torch.uint8)

    def at_least(self, size: int) -> Tensor:
        if self._memory.numel() < size:
            self._memory = aligned(size)
        return self._memory


def convolve(
    maps: Sequence[Tensor],
    packed: Packed,
    out: Tensor,
    workspace: Workspace,
    relu: bool = False,
    add: Tensor | None = None,
    relu_sum: bool = False,
) -> Tensor:
    """out = relu_sum(relu(conv(maps side by side)) + add), each where it is asked for; a PReLU is in the weights.

    maps      [B,C,H,W] channels-last of one dtype, float32 or bfloat16
    out, add  [B,kept,H,W] channels-last, of the maps' dtype or float32; they may be one tensor, but no map. Twice as
              high and wide where the convolution is a transposed one
    """
    thin = packed.kept <= 4
    stored = 4 if thin else -(-packed.kept // MULTIPLE) * MULTIPLE
    y, added = out, add
    if stored != packed.kept or (thin and out.dtype != torch.float32):
        y = _stored(out, stored, thin)
        added = None if add is None else _stored(add, stored, thin).copy_(_filled(add, stored))
    act = SLOPE if packed.slope is not None else RELU if relu else NONE
    _run(maps, packed, y, workspace, 0, act1=act, act2=RELU if relu_sum else NONE, add=added)
    return out if y is out else out.copy_(y[:, : packed.kept])


def _stored(like: Tensor, channels: int, thin: bool) -> Tensor:
    shape = (like.shape[0], channels, *like.shape[2:])
    dtype = torch.float32 if thin else like.dtype
    return torch.empty(shape, dtype=dtype, memory_format=torch.channels_last)


def _filled(add: Tensor, channels: int) -> Tensor:
    return torch.nn.functional.pad(add, (0, 0, 0, 0, 0, channels - add.shape[1]))


def cell(
    maps: Sequence[Tensor], packed: Packed, c: Tensor | None, h_out: Tensor, c_out: Tensor, workspace: Workspace
) -> None:
    """A ConvLSTM step whose gates, i, f, g, o, are that convolution; without c, a first step with the gates i, g, o.

    c, c_out  float32; they may be one tensor
    h_out     of the maps' dtype, and none of them
    """
    _run(maps, packed, h_out, workspace, 3 if c is None else 4, c=c, c_next=c_out)


def _functions() -> dict[str, Function]:
    loaded = native.load()
    assert not isinstance(loaded, str)
    return loaded.functions


def _address(each: Tensor | None) -> int | None:
    return None if each is None else each.data_ptr()


def _run(
    maps: Sequence[Tensor],
    packed: Packed,
    y: Tensor,
    workspace: Workspace,
    gates: int,
    act1: int = NONE,
    act2: int = NONE,
    **memory: Tensor | None,
) -> None:
    batch, _, height, width = maps[0].shape
    channels = [each.shape[1] for each in maps]
    if any(each % MULTIPLE for each in channels):
        raise ValueError(f"the channels of every map must be a multiple of {MULTIPLE}, got {channels}")
    if sum(channels) != packed.inputs:
        raise ValueError(f"the maps have {sum(channels)} channels where the weights take {packed.inputs}")
    functions = _functions()
    add = memory.get("add")
    layer = packed.layer(gates) | dict(
        source_channels=channels,
        source_dtype=[native.DTYPES[each.dtype] for each in maps],
        act1=act1,
        act2=act2,
        maps=native.DTYPES[maps[0].dtype],
        y_dtype=native.DTYPES[y.dtype],
        adds=add is not None,
        add_dtype=native.DTYPES[y.dtype if add is None else add.dtype],
    )
    call = dict(batch=batch, height=height, width=width, threads=thread_count())
    size = functions["conv_workspace_bytes"](**layer, **call)
    functions["conv"](
        **layer,
        **call,
        x=[each.data_ptr() for each in maps],
        packed=packed.ordered(gates).data_ptr(),
        y=y.data_ptr(),
        workspace=workspace.at_least(size).data_ptr(),
        tier=native.tier,
        **{name: _address(each) for name, each in memory.items()},
    )

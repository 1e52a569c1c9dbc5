"""A 3x3 convolution for inference in C++ (csrc/kernels/conv3x3.h), with what follows it done before it is stored.

It is no `torch.library` op: it has no derivative, works on weights packed beforehand, writes into given buffers, and
its float32 error is several times that of a direct convolution. The engine uses it, and checks the network's result.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from . import native
from .registry import thread_count

MULTIPLE = 16  # of the channels of every map, and of the outputs of a cell
MOST_MAPS = 5
WHOLE, POINTWISE, TRANSPOSED = range(3)  # enum Conv3x3Form in csrc/ops.h

# Winograd's F(4x4, 3x3) at the points 0, +-sqrt(1/2), +-sqrt(2), infinity: what the taps are multiplied by.
_TAPS = torch.tensor(
    [
        [1, 0, 0],
        [-2 / 3, -(2**0.5) / 3, -1 / 3],
        [-2 / 3, 2**0.5 / 3, -1 / 3],
        [1 / 6, 2**0.5 / 6, 1 / 3],
        [1 / 6, -(2**0.5) / 6, 1 / 3],
        [0, 0, 1],
    ],
    dtype=torch.float64,
)

# Of a row or column of a transposed convolution: which tap k of it is at place a of the convolution for pixel 0, and 1.
_PHASES = torch.tensor([[[0, 0, 0], [0, 1, 0], [0, 0, 0]], [[0, 0, 0], [0, 0, 1], [1, 0, 0]]], dtype=torch.float64)


class Packed(NamedTuple):
    """Weights as the kernel reads them."""

    weight: Tensor
    bias: Tensor | None
    slope: Tensor | None  # of a PReLU after the bias
    inputs: int
    outputs: int  # a multiple of 16: rows of zeros behind the real ones
    kept: int  # channels of the result
    form: int = WHOLE
    dilation: int = 1


def available() -> str | None:
    return native.available()


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
    return not isinstance(found, str) and bool(found.multiplies_bf16())


def pack(
    weight: Tensor,
    bias: Tensor | None,
    products: torch.dtype = torch.float32,
    slope: Tensor | None = None,
    dilation: int = 1,
) -> Packed:
    """Weights [O,I,3,3], to be multiplied in float32, or in bfloat16 where `multiplies_bf16()`; `slope` [O] or [1]."""
    transformed = torch.einsum("ik,ockl,jl->ijco", _TAPS, weight.detach().cpu().double(), _TAPS)
    return _pack(transformed.flatten(0, 1), bias, products, slope)._replace(dilation=dilation)


def pack_pointwise(
    weight: Tensor, bias: Tensor | None, products: torch.dtype = torch.float32, slope: Tensor | None = None
) -> Packed:
    """Weights [O,I,1,1]."""
    return _pack(weight.detach().cpu().flatten(1).T[None], bias, products, slope)._replace(form=POINTWISE)


def pack_transposed(
    weight: Tensor, bias: Tensor | None, products: torch.dtype = torch.float32, slope: Tensor | None = None
) -> Packed:
    """Weights [I,O,3,3] of a transposed convolution to twice the size (stride 2, padding 1, output_padding 1); O is a
    multiple of 16."""
    kept = weight.shape[1]
    phases = torch.einsum("dak,ebl,iokl->deoiab", _PHASES, _PHASES, weight.detach().cpu().double())
    bias, slope = (None if each is None else each.detach().expand(kept).repeat(4) for each in (bias, slope))
    return pack(phases.flatten(0, 2), bias, products, slope)._replace(kept=kept, form=TRANSPOSED)


def _pack(matrices: Tensor, bias: Tensor | None, products: torch.dtype, slope: Tensor | None) -> Packed:
    """[matrices, I, O], filled up to a multiple of 16 outputs."""
    inputs, kept = matrices.shape[1:]
    outputs = -(-kept // MULTIPLE) * MULTIPLE
    fill = (0, outputs - kept)
    matrices = torch.nn.functional.pad(matrices, fill)
    if bias is not None:
        bias = torch.nn.functional.pad(bias.detach().cpu().float(), fill)
    if slope is not None:
        slope = torch.nn.functional.pad(slope.detach().cpu().float().expand(kept), fill)
    if products == torch.bfloat16:
        matrices = matrices.unflatten(1, (inputs // 2, 2)).transpose(2, 3)  # [matrices, I / 2, O, 2]
    return Packed(matrices.to(products).contiguous(), bias, slope, inputs, outputs, kept)


class Workspace:
    """The kernel's working memory, shared by all convolutions of a network; grows to what the largest needs."""

    def __init__(self) -> None:
        self._memory = torch.empty(0, dtype=torch.uint8)

    def at_least(self, size: int) -> Tensor:
        if self._memory.numel() < size:
            self._memory = torch.empty(size, dtype=torch.uint8)
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
    _run(maps, packed, out, workspace, add=add, relu=int(relu), relu_sum=int(relu_sum))
    return out


def cell(
    maps: Sequence[Tensor], packed: Packed, c: Tensor | None, h_out: Tensor, c_out: Tensor, workspace: Workspace
) -> None:
    """A ConvLSTM step whose gates, i, f, g, o, are that convolution; without c, a first step with the gates i, g, o.

    c, c_out  float32; they may be one tensor
    h_out     of the maps' dtype, and none of them
    """
    _run(maps, packed, h_out, workspace, c=c, c_next=c_out, gates=3 if c is None else 4)


def _run(maps: Sequence[Tensor], packed: Packed, out: Tensor, workspace: Workspace, **fields: object) -> None:
    batch, _, height, width = maps[0].shape
    module = native.load()
    assert not isinstance(module, str)
    size = module.conv3x3_workspace(packed.inputs, packed.outputs, thread_count())
    native.run(
        "conv3x3",
        x=[each.data_ptr() for each in maps],
        x_channels=[each.shape[1] for each in maps],
        weight=packed.weight,
        weight_dtype=packed.weight.dtype,
        bias=packed.bias,
        slope=packed.slope,
        batch=batch,
        height=height,
        width=width,
        inputs=packed.inputs,
        outputs=packed.outputs,
        dtype=maps[0].dtype,
        y=out,
        y_dtype=out.dtype,
        y_channels=out.shape[1],
        form=packed.form,
        dilation=packed.dilation,
        workspace=workspace.at_least(size),
        workspace_bytes=size,
        **fields,
    )

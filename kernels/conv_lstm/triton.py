"""`conv_lstm` in Triton: when it runs, its weights packed, and the launches of `triton_kernels.py`."""

from __future__ import annotations

import weakref

import torch
import triton

from ..registry import Call, is_nhwc
from ..triton_aot import Grid, KernelSpec
from ..triton_common import NAMES, available, on_its_device, refuse
from .packing import GROUP, Packed, pack, parts
from .reference import first_step
from .tiling import Tiling, default_tiling, tiling, verdict
from .triton_kernels import conv_lstm_first, conv_lstm_first_backward, conv_lstm_step, conv_lstm_step_backward

__all__ = ["available", "backward", "can_run", "forward", "launch_forward", "packed", "slower", "specs"]

GRID = Grid("images * tiles_y * tiles_x * (C / BLOCK_C)", tiles_y="height / TILE_H", tiles_x="width / TILE_W")


def can_run(call: Call) -> str | None:
    channels = call.detail[1]
    if channels % GROUP:
        return f"{channels} channels are not a multiple of {GROUP}"
    return refuse(call)


def slower(call: Call) -> str | None:
    """The convolution competes with cuDNN: only a measurement on this very GPU makes it the default (see tune.py)."""
    return None if call.device.type != "cuda" else verdict(call)


_packed: dict[int, tuple[weakref.ref, int, Packed]] = {}


def packed(weight: torch.Tensor) -> Packed:
    """A weight that nobody prepared, packed; done again only when the tensor is another one or was written to."""
    if weight.is_inference():  # keeps no version to tell whether it was written to
        return parts(pack(weight), weight)
    key = id(weight)
    known = _packed.get(key)
    if known is not None and known[0]() is weight and known[1] == weight._version:
        return known[2]
    made = parts(pack(weight), weight)
    _packed[key] = (weakref.ref(weight, lambda _: _packed.pop(key, None)), weight._version, made)
    return made


@on_its_device
def forward(out, x, h, c, weight, bias, prepared) -> None:
    if x.numel():
        ready = packed(weight) if prepared is None else parts(prepared, weight)
        launch_forward(out, x, h, c, ready, bias, tiling(x, weight.shape[0] // 4, first=h is None))


def launch_forward(out, x, h, c, ready: Packed, bias, tiles: Tiling) -> None:
    h_out, c_out = out
    grid, sizes, constants = _launch(x, ready, tiles)
    if h is None:
        conv_lstm_first[grid](
            x, ready.first_io, ready.first_g, bias, h_out, c_out, *sizes, **constants,
            num_warps=tiles.warps, num_stages=tiles.stages,
        )  # fmt: skip
    else:
        conv_lstm_step[grid](
            x, h, c, ready.step, bias, h_out, c_out, *sizes, **constants, GROUP=GROUP,
            num_warps=tiles.warps, num_stages=tiles.stages,
        )  # fmt: skip


@on_its_device
def backward(out, grad_h, grad_c, x, h, c, weight, bias) -> None:
    if x.numel() == 0:
        for each in out:
            if each is not None:
                each.zero_()
        return
    d_x, d_h, d_c, d_weight, d_bias = out
    channels, inputs = weight.shape[0] // 4, x.shape[1]
    ready = packed(weight)
    tiles = tiling(x, channels, first=h is None, backward=True)
    grid, sizes, constants = _launch(x, ready, tiles)
    d_pre = _like(x, channels * (3 if h is None else 4))
    if h is None:
        conv_lstm_first_backward[grid](
            x, ready.first_io, ready.first_g, bias, grad_h, grad_c, d_pre, *sizes, **constants,
            num_warps=tiles.warps, num_stages=tiles.stages,
        )  # fmt: skip
        found = _convolution_backward(d_pre, x, first_step(weight)[:, :inputs])
        d_x.copy_(found[0])
        d_weight.zero_()
        if d_bias is not None:
            d_bias.zero_()
        for rows, used in (slice(channels), slice(channels)), (slice(2 * channels, None), slice(channels, None)):
            d_weight[rows, :inputs] = found[1][used]
            if d_bias is not None:
                d_bias[rows] = found[2][used]
        return
    conv_lstm_step_backward[grid](
        x, h, c, ready.step, bias, grad_h, grad_c, d_pre, d_c, *sizes, **constants, GROUP=GROUP,
        num_warps=tiles.warps, num_stages=tiles.stages,
    )  # fmt: skip
    of_x = _convolution_backward(d_pre, x, weight[:, :inputs])
    of_h = _convolution_backward(d_pre, h, weight[:, inputs:])
    d_x.copy_(of_x[0])
    d_h.copy_(of_h[0])
    d_weight[:, :inputs] = of_x[1]
    d_weight[:, inputs:] = of_h[1]
    if d_bias is not None:
        d_bias.copy_(of_x[2])


def _convolution_backward(d_pre, source, weight):
    return torch.ops.aten.convolution_backward(
        d_pre, source, weight, [weight.shape[0]], [1, 1], [1, 1], [1, 1], False, [0, 0], 1, [True, True, True]
    )


def _like(x: torch.Tensor, channels: int) -> torch.Tensor:
    form = torch.channels_last if is_nhwc(x) else torch.contiguous_format
    shape = (x.shape[0], channels, *x.shape[2:])
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=form)


def _launch(x: torch.Tensor, ready: Packed, tiles: Tiling):
    """Grid, size arguments and constants of a launch."""
    images, inputs, height, width = x.shape
    channels = ready.first_g.shape[1]
    constants = {"CIN": inputs, "C": channels, "NHWC": is_nhwc(x), **tiles.constants()}
    grid = GRID(images=images, height=height, width=width, **constants)
    across = triton.cdiv(height, tiles.tile_h), triton.cdiv(width, tiles.tile_w)
    return grid, (height, width, *across), constants


# (Cin, C, NHWC) of the table: the widths of SRN, MSPFN and the stage-wise net, BRN's wider input, and planes for SRN.
SHAPES = (*((each, each, True) for each in (16, 32, 64, 128)), (64, 32, True), (32, 32, False))


def specs(arch: int) -> list[KernelSpec]:
    found = []
    for fn in (conv_lstm_step, conv_lstm_first, conv_lstm_step_backward, conv_lstm_first_backward):
        first, backward = fn in (conv_lstm_first, conv_lstm_first_backward), fn.__name__.endswith("backward")
        for dtype, name in NAMES.items():
            for inputs, channels, nhwc in SHAPES:
                tiles = default_tiling(inputs, channels, dtype, nhwc, arch, first, backward)
                title = f"{fn.__name__}_{inputs}to{channels}_{name}_{'nhwc' if nhwc else 'nchw'}"
                types = dict.fromkeys(fn.arg_names, f"*{name}:16") | dict.fromkeys(("height", "width"), "i32:16")
                types |= dict.fromkeys(("tiles_y", "tiles_x"), "i32")
                types |= dict.fromkeys(("c_ptr", "c_out_ptr", "grad_c_ptr", "d_c_ptr"), "*fp32:16")
                constants = {"CIN": inputs, "C": channels, "NHWC": nhwc, "GROUP": GROUP, **tiles.constants()}
                found.append(KernelSpec.of(title, "conv_lstm", fn, GRID, types, constants, tiles.warps, tiles.stages))
    return found

"""`lstm_gates` in Triton: one read of pre and c, one write of h and c'; the backward pass reads only inputs.

Layout    NHWC or NCHW as it comes, by strides over (image, channel, pixel); H and W are one axis as tensors are dense.
Tiling    one program per [pixels, channels] tile of one image, the contiguous axis long: NHWC takes all of a pixel's
          channels up to 64 and as many pixels as fill 1024 elements, NCHW 1024 pixels of one channel (512 with a
          peephole or backward).
Bytes     forward, per channel of a pixel: 4s + e read, s + e written (s bytes of storage, e of the cell; half: 18);
          backward: 5s + 2e read, 4s + e written. Peephole gradients are a third kernel that reads pre and c again and
          sums over the batch in order, because a sum across programs would need atomics.
Bound     memory: about 60 flops for 18 bytes. The goal is 85% of the measured copy bandwidth.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from ..registry import Call, is_nhwc
from ..triton_aot import Grid, KernelSpec
from ..triton_common import (
    IMAGES_GRID,
    NAMES,
    available,
    on_its_device,
    refuse,
    sigmoid,
    sum_rows,
    sum_rows_specs,
    tanh,
    tile_of_image,
)

__all__ = ["available", "backward", "can_run", "forward", "specs"]

TILE = 1024  # elements of a tile
WIDEST = 64  # channels of a tile in NHWC
WARPS = 4
PEEPHOLE_GRID = Grid("(pixels / PIXELS) * (channels / CHANNELS)")


def can_run(call: Call) -> str | None:
    return refuse(call)


@triton.jit
def _gate(pre_ptr, at, index: tl.constexpr, channels, channel_stride, inside):
    stride = channels * tl.cast(channel_stride, tl.int64)
    return tl.load(pre_ptr + at + index * stride, mask=inside, other=0.0).to(tl.float32)


@triton.jit
def _weight(peep_ptr, index: tl.constexpr, channel, pixel, peep_c, peep_p, peep_g, inside):
    at = index * tl.cast(peep_g, tl.int64) + channel * peep_c + pixel * peep_p
    return tl.load(peep_ptr + at, mask=inside, other=0.0).to(tl.float32)


@triton.jit
def _activations(
    pre_ptr, at, channels, pre_c, state, peep_ptr, channel, pixel, peep_g, peep_c, peep_p, inside,
    HAS_C: tl.constexpr, PEEPHOLE: tl.constexpr,
):  # fmt: skip
    """(value, slope) of i, f, g and o, and c'. Without a state f is 0: there is nothing to forget."""
    i = _gate(pre_ptr, at, 0, channels, pre_c, inside)
    if HAS_C:
        f = _gate(pre_ptr, at, 1, channels, pre_c, inside)
        g = _gate(pre_ptr, at, 2, channels, pre_c, inside)
        o = _gate(pre_ptr, at, 3, channels, pre_c, inside)
        if PEEPHOLE:
            i += state * _weight(peep_ptr, 0, channel, pixel, peep_c, peep_p, peep_g, inside)
            f += state * _weight(peep_ptr, 1, channel, pixel, peep_c, peep_p, peep_g, inside)
        i, i_slope = sigmoid(i, True)
        f, f_slope = sigmoid(f, True)
        g, g_slope = tanh(g, True)
        cell = f * state + i * g
    else:
        g, g_slope = tanh(_gate(pre_ptr, at, 1, channels, pre_c, inside), True)
        o = _gate(pre_ptr, at, 2, channels, pre_c, inside)
        i, i_slope = sigmoid(i, True)
        f = tl.zeros_like(i)
        f_slope = f
        cell = i * g
    if PEEPHOLE:
        o += cell * _weight(peep_ptr, 2, channel, pixel, peep_c, peep_p, peep_g, inside)
    o, o_slope = sigmoid(o, True)
    return (i, i_slope), (f, f_slope), (g, g_slope), (o, o_slope), cell


@triton.jit
def lstm_gates_forward(
    pre_ptr, c_ptr, peep_ptr, h_out_ptr, c_out_ptr, channels, pixels,
    pre_b, pre_c, pre_p, c_b, c_c, c_p, peep_g, peep_c, peep_p,
    HAS_C: tl.constexpr, PEEPHOLE: tl.constexpr, CHANNELS: tl.constexpr, PIXELS: tl.constexpr,
):  # fmt: skip
    image, channel, pixel, inside = tile_of_image(channels, pixels, CHANNELS, PIXELS)
    at = image * pre_b + channel * pre_c + pixel * pre_p
    at_c = image * c_b + channel * c_c + pixel * c_p
    state = 0.0
    if HAS_C:
        state = tl.load(c_ptr + at_c, mask=inside, other=0.0).to(tl.float32)
    _i, _f, _g, o, cell = _activations(
        pre_ptr, at, channels, pre_c, state, peep_ptr, channel, pixel, peep_g, peep_c, peep_p, inside, HAS_C, PEEPHOLE
    )
    tl.store(c_out_ptr + at_c, cell.to(c_out_ptr.dtype.element_ty), mask=inside)
    tl.store(h_out_ptr + at_c, (o[0] * tanh(cell, True)[0]).to(h_out_ptr.dtype.element_ty), mask=inside)


@triton.jit
def _gate_gradients(grad_h, grad_c, i, f, g, o, cell, state, out_weight):
    """Gradients to the pre-activations of i, f, g, o, and to c' ."""
    t, t_slope = tanh(cell, True)
    d_o = grad_h * t * o[1]
    d_cell = grad_c + grad_h * o[0] * t_slope + d_o * out_weight
    d_i = d_cell * g[0] * i[1]
    d_f = d_cell * state * f[1]
    d_g = d_cell * i[0] * g[1]
    return d_i, d_f, d_g, d_o, d_cell


@triton.jit
def lstm_gates_backward(
    grad_h_ptr, grad_c_ptr, pre_ptr, c_ptr, peep_ptr, d_pre_ptr, d_c_ptr, channels, pixels,
    pre_b, pre_c, pre_p, c_b, c_c, c_p, peep_g, peep_c, peep_p,
    HAS_C: tl.constexpr, PEEPHOLE: tl.constexpr, CHANNELS: tl.constexpr, PIXELS: tl.constexpr,
):  # fmt: skip
    image, channel, pixel, inside = tile_of_image(channels, pixels, CHANNELS, PIXELS)
    at = image * pre_b + channel * pre_c + pixel * pre_p
    at_c = image * c_b + channel * c_c + pixel * c_p
    state = 0.0
    if HAS_C:
        state = tl.load(c_ptr + at_c, mask=inside, other=0.0).to(tl.float32)
    i, f, g, o, cell = _activations(
        pre_ptr, at, channels, pre_c, state, peep_ptr, channel, pixel, peep_g, peep_c, peep_p, inside, HAS_C, PEEPHOLE
    )
    out_weight = 0.0
    if PEEPHOLE:
        out_weight = _weight(peep_ptr, 2, channel, pixel, peep_c, peep_p, peep_g, inside)
    grad_h = tl.load(grad_h_ptr + at_c, mask=inside, other=0.0).to(tl.float32)
    grad_c = tl.load(grad_c_ptr + at_c, mask=inside, other=0.0).to(tl.float32)
    d_i, d_f, d_g, d_o, d_cell = _gate_gradients(grad_h, grad_c, i, f, g, o, cell, state, out_weight)

    gate = channels * tl.cast(pre_c, tl.int64)
    storage = d_pre_ptr.dtype.element_ty
    tl.store(d_pre_ptr + at, d_i.to(storage), mask=inside)
    if HAS_C:
        tl.store(d_pre_ptr + at + gate, d_f.to(storage), mask=inside)
        tl.store(d_pre_ptr + at + 2 * gate, d_g.to(storage), mask=inside)
        tl.store(d_pre_ptr + at + 3 * gate, d_o.to(storage), mask=inside)
        d_state = d_cell * f[0]
        if PEEPHOLE:
            d_state += d_i * _weight(peep_ptr, 0, channel, pixel, peep_c, peep_p, peep_g, inside)
            d_state += d_f * _weight(peep_ptr, 1, channel, pixel, peep_c, peep_p, peep_g, inside)
        tl.store(d_c_ptr + at_c, d_state.to(d_c_ptr.dtype.element_ty), mask=inside)
    else:
        tl.store(d_pre_ptr + at + gate, d_g.to(storage), mask=inside)
        tl.store(d_pre_ptr + at + 2 * gate, d_o.to(storage), mask=inside)


@triton.jit
def _over_pixels(values):
    """[pixels, channels] -> [channels]; in two steps, as a sum of 1024 in sequence (the interpreter's) is worse."""
    steps: tl.constexpr = 16
    return tl.sum(tl.sum(values.reshape(steps, values.shape[0] // steps, values.shape[1]), 0), 0)


@triton.jit
def lstm_gates_peephole_backward(
    grad_h_ptr, grad_c_ptr, pre_ptr, c_ptr, peep_ptr, d_peep_ptr, images, channels, pixels,
    pre_b, pre_c, pre_p, c_b, c_c, c_p, peep_g, peep_c, peep_p,
    HAS_C: tl.constexpr, PER_PIXEL: tl.constexpr, CHANNELS: tl.constexpr, PIXELS: tl.constexpr,
):  # fmt: skip
    """Sums over the images in order. Per-pixel weights get their gradient at once; weights shared by all pixels get
    one float32 row [3, channels] per tile of pixels, for `sum_rows` to add up."""
    _first, channel, pixel, inside = tile_of_image(channels, pixels, CHANNELS, PIXELS)
    out_weight = _weight(peep_ptr, 2, channel, pixel, peep_c, peep_p, peep_g, inside)
    sum_i = tl.zeros((PIXELS, CHANNELS), tl.float32)
    sum_f = tl.zeros((PIXELS, CHANNELS), tl.float32)
    sum_o = tl.zeros((PIXELS, CHANNELS), tl.float32)
    image = tl.cast(0, tl.int64)
    while image < images:
        at = image * pre_b + channel * pre_c + pixel * pre_p
        at_c = image * c_b + channel * c_c + pixel * c_p
        state = 0.0
        if HAS_C:
            state = tl.load(c_ptr + at_c, mask=inside, other=0.0).to(tl.float32)
        i, f, g, o, cell = _activations(
            pre_ptr, at, channels, pre_c, state, peep_ptr, channel, pixel, peep_g, peep_c, peep_p, inside, HAS_C, True
        )
        grad_h = tl.load(grad_h_ptr + at_c, mask=inside, other=0.0).to(tl.float32)
        grad_c = tl.load(grad_c_ptr + at_c, mask=inside, other=0.0).to(tl.float32)
        d_i, d_f, _d_g, d_o, _d_cell = _gate_gradients(grad_h, grad_c, i, f, g, o, cell, state, out_weight)
        sum_i += d_i * state
        sum_f += d_f * state
        sum_o += d_o * cell
        image += 1
    if PER_PIXEL:
        storage = d_peep_ptr.dtype.element_ty
        out = d_peep_ptr + channel * peep_c + pixel * peep_p
        tl.store(out, sum_i.to(storage), mask=inside)
        tl.store(out + peep_g, sum_f.to(storage), mask=inside)
        tl.store(out + 2 * tl.cast(peep_g, tl.int64), sum_o.to(storage), mask=inside)
    else:
        block = (tl.program_id(0) // tl.cdiv(channels, CHANNELS)).to(tl.int64)
        column = tl.program_id(0) % tl.cdiv(channels, CHANNELS) * CHANNELS + tl.arange(0, CHANNELS)
        out = d_peep_ptr + block * 3 * channels + column
        exists = column < channels
        tl.store(out, _over_pixels(tl.where(inside, sum_i, 0.0)), mask=exists)
        tl.store(out + channels, _over_pixels(tl.where(inside, sum_f, 0.0)), mask=exists)
        tl.store(out + 2 * channels, _over_pixels(tl.where(inside, sum_o, 0.0)), mask=exists)


@on_its_device
def forward(out, pre, c, peephole) -> None:
    h_out, c_out = out
    if h_out.numel():
        grid, arguments, blocks = _launch(pre, c, peephole, c_out, crowded=peephole is not None)
        lstm_gates_forward[grid](pre, c, peephole, h_out, c_out, *arguments, **blocks, num_warps=WARPS)


@on_its_device
def backward(out, grad_h, grad_c, pre, c, peephole) -> None:
    d_pre, d_c, d_peephole = out
    if grad_h.numel() == 0:
        if d_peephole is not None:
            d_peephole.zero_()
        return
    grid, arguments, blocks = _launch(pre, c, peephole, grad_h, crowded=True)
    lstm_gates_backward[grid](
        grad_h, grad_c, pre, c, peephole, d_pre, d_c, *arguments, **blocks, num_warps=WARPS
    )  # fmt: skip
    if d_peephole is not None:
        _peephole_gradient(d_peephole, grad_h, grad_c, pre, c, peephole, arguments, blocks)


def _peephole_gradient(d_peephole, grad_h, grad_c, pre, c, peephole, arguments, blocks) -> None:
    images, channels, height, width = grad_h.shape
    tiles = triton.cdiv(height * width, blocks["PIXELS"])
    shared = peephole.shape[2:] != (height, width)
    target = torch.empty(tiles, 3 * channels, dtype=torch.float32, device=pre.device) if shared else d_peephole
    blocks = {name: value for name, value in blocks.items() if name != "PEEPHOLE"}
    grid = PEEPHOLE_GRID(pixels=height * width, channels=channels, **blocks)
    lstm_gates_peephole_backward[grid](
        grad_h, grad_c, pre, c, peephole, target, images, *arguments, PER_PIXEL=not shared, **blocks, num_warps=WARPS
    )  # fmt: skip
    if shared:
        sum_rows(target, d_peephole)


def _launch(pre, c, peephole, cell, crowded: bool):
    """Grid, the shape and stride arguments, and the tile; `cell` is any tensor shaped and laid out as the state."""
    images, channels, height, width = cell.shape
    nhwc = is_nhwc(pre)
    strides = [*_strides(pre, nhwc), *_strides(cell, nhwc)]
    if peephole is None:
        strides += [0, 0, 0]
    else:
        per_pixel = peephole.shape[2:] == (height, width)
        pixel = (channels if nhwc else 1) if per_pixel else 0
        strides += [peephole.stride(0), 1 if nhwc or not per_pixel else height * width, pixel]
    blocks = tile(nhwc, channels, crowded) | {"HAS_C": c is not None, "PEEPHOLE": peephole is not None}
    pixels = height * width
    grid = IMAGES_GRID(images=images, pixels=pixels, channels=channels, **blocks)
    return grid, (channels, pixels, *strides), blocks


def _strides(image: torch.Tensor, nhwc: bool) -> tuple[int, int, int]:
    """(image, channel, pixel) strides of a dense tensor; sizes of 1 may carry any stride, so they are not read."""
    _, channels, height, width = image.shape
    pixels = height * width
    return (channels * pixels, 1, channels) if nhwc else (channels * pixels, pixels, 1)


def tile(nhwc: bool, channels: int, crowded: bool) -> dict[str, int]:
    """`crowded`: with a peephole or backward, which take a few registers more than there are for a whole tile."""
    if not nhwc:
        return {"CHANNELS": 1, "PIXELS": TILE // 2 if crowded else TILE}
    wide = min(triton.next_power_of_2(channels), WIDEST)
    return {"CHANNELS": wide, "PIXELS": TILE // wide}


def specs(arch: int) -> list[KernelSpec]:
    """Every kernel at C = 32 in both layouts; the same on every architecture."""
    found = []
    for name in NAMES.values():
        pointers = {"peep_ptr": f"*{name}:16", "c_ptr": "*fp32:16", "c_out_ptr": "*fp32:16", "d_c_ptr": "*fp32:16"}
        pointers |= {"grad_c_ptr": "*fp32:16"}
        for layout in ("nhwc", "nchw"):
            unit = {"pre_c": 1, "c_c": 1} if layout == "nhwc" else {"pre_p": 1, "c_p": 1}
            for fn, cases in _CASES.items():
                for case, constants in cases.items():
                    crowded = fn is not lstm_gates_forward or constants["PEEPHOLE"]
                    constants = unit | tile(layout == "nhwc", 32, crowded) | constants
                    sizes = {"channels": "i32:16", "pixels": "i32:16", "images": "i32"}
                    arguments = dict.fromkeys(fn.arg_names, "i32:16") | sizes
                    arguments |= {each: f"*{name}:16" for each in fn.arg_names if each.endswith("_ptr")} | pointers
                    if case == "shared":
                        arguments["d_peep_ptr"] = "*fp32:16"
                    title = "_".join(filter(None, (fn.__name__, case, name, layout)))
                    grid = PEEPHOLE_GRID if fn is lstm_gates_peephole_backward else IMAGES_GRID
                    found.append(KernelSpec.of(title, "lstm_gates", fn, grid, arguments, constants, WARPS))
    return found + sum_rows_specs("lstm_gates", columns=3 * 32)


_GATES = {
    "": {"HAS_C": True, "PEEPHOLE": False, "peep_ptr": None, "peep_g": 0, "peep_c": 0, "peep_p": 0},
    "peephole": {"HAS_C": True, "PEEPHOLE": True},
    "first": {"HAS_C": False, "PEEPHOLE": False, "peep_ptr": None, "c_ptr": None, "d_c_ptr": None}
    | {"peep_g": 0, "peep_c": 0, "peep_p": 0},
}
_CASES = {
    lstm_gates_forward: _GATES,
    lstm_gates_backward: _GATES,
    lstm_gates_peephole_backward: {
        "": {"HAS_C": True, "PER_PIXEL": True},
        "shared": {"HAS_C": True, "PER_PIXEL": False, "peep_p": 0},
    },
}

"""`gru_gates` in Triton: one read of everything, one write of h'; the backward pass reads only inputs.

Layout    NHWC or NCHW as it comes; H and W are one axis. Each input has its own pitch, the distance between its rows
          (an image's C H W numbers in NCHW, a pixel's C in NHWC), as z and r may be halves of one tensor.
Tiling    one program per [pixels, channels] tile of one image, the contiguous axis long: NHWC takes all of a pixel's
          channels up to 64 and as many pixels as fill 1024 elements, NCHW 1024 pixels of one channel.
Bytes     forward, per channel of a pixel: 2s + e read, e written (s bytes of storage, e of the state); backward 2s + 2e
          read, 2s + e written; a reset after the convolution adds 2s read, and 2s written backward.
Bound     memory: about 40 flops for 16 bytes.
"""

from __future__ import annotations

import triton
import triton.language as tl

from ..registry import Call
from ..triton_aot import KernelSpec
from ..triton_common import IMAGES_GRID, NAMES, available, on_its_device, refuse, sigmoid, tanh, tile_of_image
from . import layout_of, pitch

__all__ = ["available", "backward", "can_run", "forward", "specs"]

TILE = 1024  # elements of a tile
WIDEST = 64  # channels of a tile in NHWC
WARPS = 4


def can_run(call: Call) -> str | None:
    return refuse(call)


@triton.jit
def _at(image, channel, pixel, pixels, pitch, NHWC: tl.constexpr):
    if NHWC:
        return (image * pixels + pixel) * pitch + channel
    else:
        return image * pitch + channel * pixels + pixel


@triton.jit
def _step(
    z_ptr, q_ptr, h_ptr, r_ptr, hidden_ptr, image, channel, pixel, pixels, inside,
    z_pitch, q_pitch, h_pitch, r_pitch, hidden_pitch,
    HAS_H: tl.constexpr, RESET: tl.constexpr, KEEPS: tl.constexpr, ACTIVATION: tl.constexpr, NHWC: tl.constexpr,
):  # fmt: skip
    """(value, slope) of u, q and r, then what r multiplies, and the old state."""
    z = tl.load(z_ptr + _at(image, channel, pixel, pixels, z_pitch, NHWC), mask=inside, other=0.0).to(tl.float32)
    q = tl.load(q_ptr + _at(image, channel, pixel, pixels, q_pitch, NHWC), mask=inside, other=0.0).to(tl.float32)
    u = sigmoid(-z if KEEPS else z, True)
    state = tl.zeros_like(z)
    if HAS_H:
        at = _at(image, channel, pixel, pixels, h_pitch, NHWC)
        state = tl.load(h_ptr + at, mask=inside, other=0.0).to(tl.float32)
    hidden = tl.zeros_like(z)
    r = hidden, hidden
    if RESET:
        at = _at(image, channel, pixel, pixels, r_pitch, NHWC)
        r = sigmoid(tl.load(r_ptr + at, mask=inside, other=0.0).to(tl.float32), True)
        at = _at(image, channel, pixel, pixels, hidden_pitch, NHWC)
        hidden = tl.load(hidden_ptr + at, mask=inside, other=0.0).to(tl.float32)
        q += r[0] * hidden
    if ACTIVATION == "tanh":
        taken = tanh(q, True)
    elif ACTIVATION == "relu":
        taken = tl.where(q <= 0, 0.0, q), tl.where(q <= 0, 0.0, 1.0)
    else:
        taken = q, tl.full(q.shape, 1.0, tl.float32)
    return u, taken, r, hidden, state


@triton.jit
def gru_gates_forward(
    z_ptr, q_ptr, h_ptr, r_ptr, hidden_ptr, out_ptr, channels, pixels,
    z_pitch, q_pitch, h_pitch, r_pitch, hidden_pitch, out_pitch,
    HAS_H: tl.constexpr, RESET: tl.constexpr, KEEPS: tl.constexpr, ACTIVATION: tl.constexpr, NHWC: tl.constexpr,
    CHANNELS: tl.constexpr, PIXELS: tl.constexpr,
):  # fmt: skip
    image, channel, pixel, inside = tile_of_image(channels, pixels, CHANNELS, PIXELS)
    u, q, _r, _hidden, state = _step(
        z_ptr, q_ptr, h_ptr, r_ptr, hidden_ptr, image, channel, pixel, pixels, inside,
        z_pitch, q_pitch, h_pitch, r_pitch, hidden_pitch, HAS_H, RESET, KEEPS, ACTIVATION, NHWC,
    )  # fmt: skip
    new = u[0] * q[0]
    if HAS_H:
        new += (1.0 - u[0]) * state
    at = _at(image, channel, pixel, pixels, out_pitch, NHWC)
    tl.store(out_ptr + at, new.to(out_ptr.dtype.element_ty), mask=inside)


@triton.jit
def gru_gates_backward(
    grad_ptr, z_ptr, q_ptr, h_ptr, r_ptr, hidden_ptr, d_z_ptr, d_q_ptr, d_h_ptr, d_r_ptr, d_hidden_ptr,
    channels, pixels, z_pitch, q_pitch, h_pitch, r_pitch, hidden_pitch, out_pitch,
    HAS_H: tl.constexpr, RESET: tl.constexpr, KEEPS: tl.constexpr, ACTIVATION: tl.constexpr, NHWC: tl.constexpr,
    CHANNELS: tl.constexpr, PIXELS: tl.constexpr,
):  # fmt: skip
    image, channel, pixel, inside = tile_of_image(channels, pixels, CHANNELS, PIXELS)
    u, q, r, hidden, state = _step(
        z_ptr, q_ptr, h_ptr, r_ptr, hidden_ptr, image, channel, pixel, pixels, inside,
        z_pitch, q_pitch, h_pitch, r_pitch, hidden_pitch, HAS_H, RESET, KEEPS, ACTIVATION, NHWC,
    )  # fmt: skip
    at = _at(image, channel, pixel, pixels, out_pitch, NHWC)
    grad = tl.load(grad_ptr + at, mask=inside, other=0.0).to(tl.float32)
    storage = d_z_ptr.dtype.element_ty
    d_z = grad * (q[0] - state) * u[1]
    tl.store(d_z_ptr + at, (-d_z if KEEPS else d_z).to(storage), mask=inside)
    d_q = grad * u[0] * q[1]
    tl.store(d_q_ptr + at, d_q.to(storage), mask=inside)
    if HAS_H:
        tl.store(d_h_ptr + at, (grad * (1.0 - u[0])).to(d_h_ptr.dtype.element_ty), mask=inside)
    if RESET:
        tl.store(d_r_ptr + at, (d_q * hidden * r[1]).to(storage), mask=inside)
        tl.store(d_hidden_ptr + at, (d_q * r[0]).to(storage), mask=inside)


@on_its_device
def forward(out, *inputs) -> None:
    if out[0].numel():
        grid, arguments, blocks = _launch(*inputs)
        gru_gates_forward[grid](*inputs[:5], *out, *arguments, **blocks, num_warps=WARPS)


@on_its_device
def backward(out, grad, *inputs) -> None:
    if grad.numel():
        grid, arguments, blocks = _launch(*inputs)
        gru_gates_backward[grid](grad, *inputs[:5], *out, *arguments, **blocks, num_warps=WARPS)


def _launch(z, candidate, h, r, hidden, z_keeps, activation):
    """Grid, the shape and pitch arguments, and what is compiled in."""
    images, channels, height, width = z.shape
    layout, pixels = layout_of(z), height * width
    pitches = [0 if each is None else pitch(each, layout) for each in (z, candidate, h, r, hidden)]
    pitches.append(channels if layout == "nhwc" else channels * pixels)
    blocks = tile(layout, channels) | constants(h is not None, r is not None, z_keeps, activation)
    grid = IMAGES_GRID(images=images, pixels=pixels, channels=channels, **blocks)
    return grid, (channels, pixels, *pitches), blocks


def tile(layout: str, channels: int) -> dict[str, object]:
    if layout == "nchw":
        return {"CHANNELS": 1, "PIXELS": TILE, "NHWC": False}
    wide = min(triton.next_power_of_2(channels), WIDEST)
    return {"CHANNELS": wide, "PIXELS": TILE // wide, "NHWC": True}


def constants(has_h: bool, reset: bool, z_keeps: bool = False, activation: str = "tanh") -> dict[str, object]:
    return {"HAS_H": has_h, "RESET": reset, "KEEPS": z_keeps, "ACTIVATION": activation}


def specs(arch: int) -> list[KernelSpec]:
    """Every kernel at C = 32 in both layouts; the same on every architecture."""
    no_reset = dict.fromkeys(("r_ptr", "hidden_ptr", "d_r_ptr", "d_hidden_ptr")) | {"r_pitch": 0, "hidden_pitch": 0}
    no_state = dict.fromkeys(("h_ptr", "d_h_ptr")) | {"h_pitch": 0}
    cases = {
        "": constants(True, False) | no_reset,
        "reset": constants(False, False, activation="none") | no_reset | no_state,
        "first": constants(False, False) | no_reset | no_state,
        "after": constants(True, True, z_keeps=True),
    }
    found = []
    for name in NAMES.values():
        for layout in ("nhwc", "nchw"):
            for fn in (gru_gates_forward, gru_gates_backward):
                for case, fixed in cases.items():
                    types = dict.fromkeys(fn.arg_names, "i32:16")
                    types |= {each: f"*{name}:16" for each in fn.arg_names if each.endswith("_ptr")}
                    title = "_".join(filter(None, (fn.__name__, case, name, layout)))
                    built = fixed | tile(layout, 32)
                    found.append(KernelSpec.of(title, "gru_gates", fn, IMAGES_GRID, types, built, WARPS))
    return found

"""`tensor_to_frame`: a network's output to an 8-bit frame, in one pass.

Call.detail is (dtype of x, has residual, rounding, bgr); Call.layout is that of x. Not differentiable.
"""

from __future__ import annotations

import torch

from .. import library
from ..registry import Call, resolve
from . import reference

Tensor = torch.Tensor


def tensor_to_frame(
    x: Tensor,
    residual: Tensor | None = None,
    size: tuple[int, int] | None = None,
    rounding: str = "nearest",
    format: str = "rgb",
    out: Tensor | None = None,
) -> Tensor:
    """uint8 frames [B,H,W,3] from RGB in [0, 1]; one picture, [3,H,W] or [1,3,H,W], gives one frame [H,W,3].

    x         [B,3,H,W] floating
    residual  the same shape, added before anything else: the rainy input of a network that predicts rain
    size      (height, width) to keep, from the top left: what `frame_to_tensor` padded is cut off
    rounding  "nearest" (halves to even) or "truncate" (what the published code of SRN and MSPFN does)
    format    "rgb" or "bgr"
    out       writes there instead of into a new tensor

    The sum and the scaling by 255 are in float32. Values are clamped to 0..255; NaN, which no byte holds, becomes 0.
    `.numpy()` on the result shares its memory.
    """
    if format not in ("rgb", "bgr"):
        raise ValueError(f"format must be rgb or bgr, got {format!r}")
    if isinstance(x, torch.Tensor) and x.dim() == 3:
        x, residual = x[None], residual[None] if residual is not None and residual.dim() == 3 else residual
    library.check_tensor("x", x, 4)
    height, width = x.shape[2:] if size is None else size
    args = (x, residual, height, width, rounding, format == "bgr")
    if out is not None:
        _into(out[None] if out.dim() == 3 else out, *args)
        return out
    check(*args)
    frames = reference.forward(*args) if library.takes_plain_path(describe(*args)) else _op(*args)
    return frames[0] if x.shape[0] == 1 else frames


def _into(out: Tensor, *args) -> None:
    check(*args)
    x, _, height, width, *_ = args
    library.check_like("out", out, "x", x, dtype=False)
    if out.dtype != torch.uint8 or out.shape != (x.shape[0], height, width, 3) or not out.is_contiguous():
        want = (x.shape[0], height, width, 3)
        raise ValueError(f"out must be contiguous uint8 of shape {want}, got {out.dtype} of shape {tuple(out.shape)}")
    implementation = resolve(describe(*args))
    if implementation is reference:
        out.copy_(reference.forward(*args))
    else:
        implementation.forward((out,), *arrange(*args))


def check(x: Tensor, residual: Tensor | None, height: int, width: int, rounding: str, bgr: bool) -> None:
    library.check_tensor("x", x, 4)
    if x.shape[1] != 3:
        raise ValueError(f"x must have 3 channels, got shape {tuple(x.shape)}")
    if residual is not None:
        library.check_tensor("residual", residual, 4)
        if residual.shape != x.shape:
            raise ValueError(f"residual must have the shape of x, {tuple(x.shape)}, got {tuple(residual.shape)}")
        library.check_like("residual", residual, "x", x)
    if not (1 <= height <= x.shape[2] and 1 <= width <= x.shape[3]):
        raise ValueError(f"size must lie within the {x.shape[2]} x {x.shape[3]} pixels of x, got {(height, width)}")
    if rounding not in reference.ROUNDINGS:
        raise ValueError(f"rounding must be one of {', '.join(reference.ROUNDINGS)}; got {rounding!r}")


def describe(x, residual, height, width, rounding, bgr) -> Call:
    detail = (x.dtype, residual is not None, rounding, bgr)
    return Call("tensor_to_frame", x.device, x.dtype, library.layout_of(x), False, detail)


def arrange(x, residual, height, width, rounding, bgr):
    check(x, residual, height, width, rounding, bgr)
    form = library.memory_format(library.layout_of(x))
    # A negative view is dense like any other, and its sign is not in the bytes that a kernel reads.
    residual = None if residual is None else residual.resolve_neg().contiguous(memory_format=form)
    return x.resolve_neg().contiguous(memory_format=form), residual, height, width, rounding, bgr


def allocate(x, residual, height, width, rounding, bgr):
    return (torch.empty((x.shape[0], height, width, 3), dtype=torch.uint8, device=x.device),)


_op = library.define(
    "tensor_to_frame",
    "(Tensor x, Tensor? residual, SymInt height, SymInt width, str rounding, bool bgr) -> Tensor",
    arrange=arrange,
    describe=describe,
    allocate=allocate,
)

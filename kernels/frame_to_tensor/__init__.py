"""`frame_to_tensor`: an 8-bit frame to a network's input, in one pass over the bytes.

Call.detail is (format, dtype of the result, padding wanted); Call.layout is the layout of the result. Not
differentiable.
"""

from __future__ import annotations

import numpy as np
import torch

from .. import library
from ..registry import Call, resolve
from . import reference

Tensor = torch.Tensor
DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def frame_to_tensor(
    frame: np.ndarray | Tensor,
    dtype: torch.dtype = torch.float32,
    channels_last: bool = False,
    multiple: int = 1,
    format: str = "rgb",
    device: torch.device | str | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """RGB in [0, 1], [B,3,H',W'], from 8-bit frames.

    frame     uint8 numpy array or tensor: [H,W,3] or [B,H,W,3] for "rgb" and "bgr"; [H*3/2,W] or [B,H*3/2,W] for NV12
              (H and W even)
    multiple  H' and W' are the next multiples of it; the bottom and the right are padded by reflection
    format    "rgb", "bgr", or "nv12-bt601", "nv12-bt709" (video range) and "nv12-bt601-full", "nv12-bt709-full"
    device    moves the bytes there first, so that only a quarter of the data crosses
    out       writes there instead of into a new tensor; dtype and channels_last are then taken from it

    Values are v / 255, in float32 before they are rounded to `dtype`.
    """
    frame = _as_batch(frame, format)
    if device is not None:
        frame = frame.to(device, non_blocking=True)
    if out is not None:
        return _into(out, frame, format, multiple)
    args = (frame, format, multiple, dtype, channels_last)
    check(*args)
    if library.takes_plain_path(describe(*args)):
        return reference.forward(*args)
    return _op(*args)


def _as_batch(frame: np.ndarray | Tensor, format: str) -> Tensor:
    if isinstance(frame, np.ndarray):
        if frame.dtype != np.uint8:
            raise TypeError(f"frame must be uint8, got {frame.dtype}")
        if any(stride < 0 for stride in frame.strides) or not frame.flags.writeable:
            frame = frame.copy()  # what torch.from_numpy cannot look at in place
        frame = torch.from_numpy(frame)
    if not isinstance(frame, torch.Tensor):
        raise TypeError(f"frame must be a numpy array or a tensor, got {type(frame).__name__}")
    single = 2 if format.startswith("nv12") else 3
    return frame[None] if frame.dim() == single else frame


def _into(out: Tensor, frame: Tensor, format: str, multiple: int) -> Tensor:
    layout = library.layout_of(out)
    args = (frame, format, multiple, out.dtype, layout == "nhwc")
    check(*args)
    library.check_like("out", out, "frame", frame, dtype=False)
    shape = _shape(frame, format, multiple)
    if out.shape != shape or not (out.is_contiguous() or layout == "nhwc"):
        raise ValueError(
            f"out must be a dense tensor of shape {shape}, got {tuple(out.shape)} with strides {out.stride()}"
        )
    implementation = resolve(describe(*args))
    if implementation is reference:
        out.copy_(reference.forward(*args))
    else:
        implementation.forward((out,), *arrange(*args))
    return out


def check(frame: Tensor, format: str, multiple: int, dtype: torch.dtype, channels_last: bool) -> None:
    if format not in reference.FORMATS:
        raise ValueError(f"format must be one of {', '.join(reference.FORMATS)}; got {format!r}")
    if dtype not in DTYPES:
        raise TypeError(f"dtype must be float32, float16 or bfloat16, got {dtype}")
    if multiple < 1:
        raise ValueError(f"multiple must be at least 1, got {multiple}")
    nv12 = format.startswith("nv12")
    library.check_tensor("frame", frame, 3 if nv12 else 4, floating=False)
    if frame.dtype != torch.uint8:
        raise TypeError(f"frame must be uint8, got {frame.dtype}")
    if nv12 and (frame.shape[1] % 3 or frame.shape[2] % 2):
        raise ValueError(f"frame as NV12 must be [H*3/2,W] with H and W even, got {tuple(frame.shape[1:])}")
    if not nv12 and frame.shape[3] != 3:
        raise ValueError(f"frame must have 3 channels last, got shape {tuple(frame.shape)}")
    if not frame.shape[1] or not frame.shape[2]:
        raise ValueError(f"frame must have at least one pixel, got shape {tuple(frame.shape)}")


def describe(frame, format, multiple, dtype, channels_last) -> Call:
    layout = "nhwc" if channels_last else "nchw"
    return Call("frame_to_tensor", frame.device, frame.dtype, layout, False, (format, dtype, multiple > 1))


def arrange(frame, format, multiple, dtype, channels_last):
    check(frame, format, multiple, dtype, channels_last)
    return frame.contiguous(), format, multiple, dtype, channels_last


def allocate(frame, format, multiple, dtype, channels_last):
    form = library.memory_format("nhwc" if channels_last else "nchw")
    return (torch.empty(_shape(frame, format, multiple), dtype=dtype, device=frame.device, memory_format=form),)


def _shape(frame: Tensor, format: str, multiple: int) -> tuple[int, ...]:
    batch, height, width = frame.shape[:3]
    if format.startswith("nv12"):
        height = height // 3 * 2
    return (batch, 3, *(-(-side // multiple) * multiple for side in (height, width)))


_op = library.define(
    "frame_to_tensor",
    "(Tensor frame, str format, SymInt multiple, ScalarType dtype, bool channels_last) -> Tensor",
    arrange=arrange,
    describe=describe,
    allocate=allocate,
)

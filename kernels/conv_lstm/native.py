"""`conv_lstm` on the CPU: PyTorch's own convolution (oneDNN) in strips of rows, each followed by the gates in C++.

The pre-activations of a strip, some 8 MB, are still near when the gates read them, and the 4C x H x W of them exist
nowhere. Strips are channels last inside, where oneDNN is at its best; a picture in NCHW is turned strip by strip. A
convolution of our own could win nothing else: oneDNN runs at 85% of a matrix product's speed on such a core in float32
and at all of it in bfloat16. Measured on one Zen 5 core, CPU time of a step with C = 32 against the convolution of the
whole picture followed by the same gates:

    512 x 512      NCHW float32 390 -> 273 ms, bfloat16 200 -> 153 ms; channels last 281 -> 230 ms, 118 -> 120 ms
    256 x 256      NCHW float32 74 -> 53 ms, channels last 42 -> 43 ms; bfloat16 (up to 24 MB) is taken whole
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from .. import native
from ..lstm_gates import native as gates
from ..native import available
from ..registry import Call, is_nhwc
from . import reference

__all__ = ["available", "backward", "can_run", "forward"]

Tensor = torch.Tensor

WHOLE_BYTES = 24 << 20  # pre-activations up to this size are made at once
STRIP_BYTES = 8 << 20


def can_run(call: Call) -> str | None:
    return native.needs_cpu(call, torch.float32, torch.bfloat16)


def forward(
    out: tuple[Tensor, Tensor],
    x: Tensor,
    h: Tensor | None,
    c: Tensor | None,
    weight: Tensor,
    bias: Tensor | None,
    packed: Tensor | None = None,
) -> None:
    used, used_bias = weight, bias
    if h is None:
        used = reference.first_step(weight)[:, : x.shape[1]]
        used_bias = None if bias is None else reference.first_step(bias)
    row_bytes = x.shape[3] * used.shape[0] * x.element_size()
    if x.shape[0] * x.shape[2] * row_bytes <= WHOLE_BYTES:
        inputs = x if h is None else torch.cat([x, h], 1)
        return gates.forward(out, _dense(F.conv2d(inputs, used, used_bias, padding=1), x), c, None)
    rows = max(8, STRIP_BYTES // row_bytes)
    used = used.contiguous(memory_format=torch.channels_last)
    for image in range(x.shape[0]):
        states = [None if each is None else each[image : image + 1] for each in (x, h, c, *out)]
        _strips(*states, used, used_bias, rows)


def _strips(x, h, c, h_next, c_next, weight: Tensor, bias: Tensor | None, rows: int) -> None:
    """One picture [1,.,H,W]: channels last inside, whatever its layout; copies of a strip stay in cache."""
    channels, height, width = x.shape[1:]
    inputs = x.new_empty(1, height + 2, width, weight.shape[1]).permute(0, 3, 1, 2)
    inputs[:, :, :: height + 1] = 0
    inputs[:, :channels, 1:-1] = x
    if h is not None:
        inputs[:, channels:, 1:-1] = h
    for top in range(0, height, rows):
        strip = slice(top, min(top + rows, height))
        pre = F.conv2d(inputs[:, :, top : strip.stop + 2], weight, bias, padding=(0, 1))
        pre = pre.contiguous(memory_format=torch.channels_last)
        state = None if c is None else _channels_last(c[:, :, strip])
        places = [each[:, :, strip] for each in (h_next, c_next)]
        written = [_channels_last(place, copy=False) for place in places]
        gates.forward(tuple(written), pre, state, None)
        for place, result in zip(places, written, strict=True):
            if result is not place:
                place.copy_(result)


def _channels_last(strip: Tensor, copy: bool = True) -> Tensor:
    """The strip itself where it is dense in channels last; else a copy that is, or only the room for one."""
    if strip.is_contiguous(memory_format=torch.channels_last):
        return strip
    dense = torch.empty_like(strip, memory_format=torch.channels_last)
    return dense.copy_(strip) if copy else dense


def _dense(pre: Tensor, like: Tensor) -> Tensor:
    """In the layout of `like`: oneDNN may choose another."""
    nhwc = is_nhwc(like)
    return pre.contiguous(memory_format=torch.channels_last if nhwc else torch.contiguous_format)


def backward(
    out: tuple[Tensor | None, ...],
    grad_h: Tensor,
    grad_c: Tensor,
    x: Tensor,
    h: Tensor | None,
    c: Tensor | None,
    weight: Tensor,
    bias: Tensor | None,
) -> None:
    pre = _dense(reference.pre_activations(x, h, weight, bias), x)
    grad_pre = torch.empty_like(pre)
    gates.backward((grad_pre, out[2], None), grad_h, grad_c, pre, c, None)
    grad_x, grad_hidden, *rest = reference.convolution_backward(grad_pre, x, h, weight, bias)
    for to, grad in zip((out[0], out[1], *out[3:]), (grad_x, grad_hidden, *rest), strict=True):
        if to is not None:
            to.copy_(grad)

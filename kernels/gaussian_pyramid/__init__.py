"""`gaussian_pyramid`: every reduced level of an image in one launch.

Call.detail is (kernel, factors, C); dtype may be uint8. Under autocast nothing is cast: the levels keep the dtype of x.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from .. import library
from ..registry import Call
from . import reference

Tensor = torch.Tensor


def gaussian_pyramid(
    x: Tensor | np.ndarray, factors: Sequence[int] = (2, 4), kernel: str = "box", levels: int | None = None
) -> list[Tensor] | list[np.ndarray]:
    """The reduced levels of an image, from fine to coarse; the full-size image is not among them.

    x        [B,C,H,W] floating or uint8; or a uint8 numpy image, [H,W,C] or [H,W], which gives numpy images back
    kernel   "box": the K x K mean with stride K for each K of `factors`, always from the full image, as the deraining
             papers' code has it. "binomial": 1 4 6 4 1 along both axes and every second pixel, `levels` times, equal
             to OpenCV's pyrDown (reflected borders without the edge pixel)
    factors  for "box" only
    levels   for "binomial" only, 2 unless given

    A level of factor K has ceil(H/K) x ceil(W/K) pixels; windows that stick out at the right or bottom average what is
    inside. uint8 levels are rounded half up (each in turn for "binomial", as pyrDown does).
    """
    if isinstance(x, np.ndarray):
        return _of_numpy(x, factors, kernel, levels)
    factors = _factors(factors, kernel, levels)
    check(x, factors, kernel)
    if library.takes_plain_path(describe(x, factors, kernel, library.wants_grad(x))):
        return reference.forward(x, factors, kernel)
    return _op(x, factors, kernel)


def _of_numpy(image: np.ndarray, factors, kernel, levels) -> list[np.ndarray]:
    if image.dtype != np.uint8 or image.ndim not in (2, 3):
        raise TypeError(f"x as a numpy image must be uint8 [H,W,C] or [H,W], got {image.dtype} of shape {image.shape}")
    pixels = torch.from_numpy(np.ascontiguousarray(image if image.ndim == 3 else image[..., None]))
    found = gaussian_pyramid(pixels.permute(2, 0, 1)[None], factors, kernel, levels)
    images = [level[0].permute(1, 2, 0).numpy() for level in found]
    return images if image.ndim == 3 else [each[..., 0] for each in images]


def _factors(factors: Sequence[int], kernel: str, levels: int | None) -> list[int]:
    if kernel == "binomial":
        levels = 2 if levels is None else levels
        if not 1 <= levels <= 16:
            raise ValueError(f"levels must be between 1 and 16, got {levels}")
        return [2 ** (level + 1) for level in range(levels)]
    if levels is not None:
        raise ValueError('levels goes with kernel="binomial"; "box" takes factors')
    return list(factors)


def check(x: Tensor, factors: list[int], kernel: str) -> None:
    if isinstance(x, torch.Tensor) and x.dtype == torch.uint8:
        library.check_tensor("x", x, 4, floating=False)
    else:
        library.check_tensor("x", x, 4)
    if kernel not in reference.KERNELS:
        raise ValueError(f"kernel must be one of {', '.join(reference.KERNELS)}; got {kernel!r}")
    if not factors or any(factor < 2 for factor in factors):
        raise ValueError(f"factors must be whole numbers of at least 2, got {factors}")
    if kernel == "binomial" and factors != [2 ** (level + 1) for level in range(len(factors))]:
        raise ValueError(f"factors of a binomial pyramid are 2, 4, 8, ...; got {factors}")
    if not x.shape[2] or not x.shape[3]:
        raise ValueError(f"x must have at least one pixel, got shape {tuple(x.shape)}")


def describe(x: Tensor, factors: list[int], kernel: str, grad: bool = False) -> Call:
    detail = (kernel, tuple(factors), x.shape[1])
    return Call("gaussian_pyramid", x.device, x.dtype, library.layout_of(x), grad, detail)


def arrange(x: Tensor, factors: list[int], kernel: str):
    check(x, factors, kernel)
    return x.contiguous(memory_format=library.memory_format(library.layout_of(x))), list(factors), kernel


def allocate(x: Tensor, factors: list[int], kernel: str):
    batch, channels, height, width = x.shape
    form = library.memory_format(library.layout_of(x))

    def level(factor: int) -> Tensor:
        shape = (batch, channels, -(-height // factor), -(-width // factor))
        return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=form)

    return tuple(level(factor) for factor in factors)


def arrange_backward(grads: list[Tensor], height: int, width: int, factors: list[int], kernel: str):
    form = library.memory_format(library.layout_of(grads[0]))
    return [grad.contiguous(memory_format=form) for grad in grads], height, width, list(factors), kernel


def describe_backward(grads: list[Tensor], height: int, width: int, factors: list[int], kernel: str) -> Call:
    return describe(grads[0], factors, kernel, grad=True)


def allocate_backward(grads: list[Tensor], height: int, width: int, factors: list[int], kernel: str):
    first = grads[0]
    form = library.memory_format(library.layout_of(first))
    shape = (*first.shape[:2], height, width)
    return (torch.empty(shape, dtype=first.dtype, device=first.device, memory_format=form),)


def _save(ctx, inputs):
    x, ctx.factors, ctx.kernel = inputs
    ctx.size = x.shape[2:]


def _gradients(ctx, grads):
    return _backward(grads, *ctx.size, ctx.factors, ctx.kernel), None, None


_op = library.define(
    "gaussian_pyramid",
    "(Tensor x, int[] factors, str kernel) -> Tensor[]",
    arrange=arrange,
    describe=describe,
    allocate=allocate,
)
_backward = library.define(
    "gaussian_pyramid",
    "(Tensor[] grads, SymInt height, SymInt width, int[] factors, str kernel) -> Tensor",
    arrange=arrange_backward,
    describe=describe_backward,
    allocate=allocate_backward,
    backward=True,
)
library.differentiate("gaussian_pyramid", _save, _gradients)

"""What every network does about picture sizes: check them, pad to what its strides need, crop back."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import UnrainError

SMALLEST = 8


def check_images(x: Tensor) -> None:
    """Raise unless `x` is a batch of RGB pictures [B, 3, H, W] of floating-point numbers, at least 8 x 8."""
    if x.dim() != 4 or x.shape[1] != 3:
        raise UnrainError(f"expected RGB pictures of shape [B, 3, H, W], got {list(x.shape)}")
    if not x.is_floating_point():
        raise UnrainError(f"expected floating-point pictures with values in [0, 1], got {str(x.dtype)[6:]}")
    check_size(*x.shape[-2:])


def check_size(height: int, width: int) -> None:
    if min(height, width) < SMALLEST:
        raise UnrainError(f"pictures must be at least 8 x 8, got {height} x {width}")


def pad_to_multiple(x: Tensor, multiple: int) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """`x` reflected at the bottom and right until both sides are multiples, and the function that crops back.

    A side may be shorter than the padding it needs: the mirror image is then mirrored again.
    """
    height, width = x.shape[-2:]

    def crop(y: Tensor) -> Tensor:
        return y[..., :height, :width]

    below, right = -height % multiple, -width % multiple
    if isinstance(height, torch.SymInt) or isinstance(width, torch.SymInt):
        # One graph for all sizes: no choice may depend on the size, so whole multiples are gathered too.
        rows, columns = (_mirrored_twice(side, side + extra, x) for side, extra in ((height, below), (width, right)))
        return x.index_select(-2, rows).index_select(-1, columns), crop
    if below < height and right < width:
        return (F.pad(x, (0, right, 0, below), mode="reflect") if below or right else x), crop
    rows, columns = (_reflected(side, side + extra, x.device) for side, extra in ((height, below), (width, right)))
    return x.index_select(-2, rows).index_select(-1, columns), crop


def _reflected(side: int, padded: int, device: torch.device) -> Tensor:
    """Indices 0, 1, ..., side-1, side-2, ..., 1, 0, 1, ... up to `padded` of them."""
    period = max(2 * (side - 1), 1)
    ramp = torch.arange(padded, device=device) % period
    return torch.minimum(ramp, period - ramp)


def _mirrored_twice(side: int, padded: int, x: Tensor) -> Tensor:
    """`_reflected` for sides of at least 8 and multiples of up to 16, in operations every graph format has.

    OpenVINO (2026.4) takes the absolute value of a whole number for the number itself, so there is none here.
    """
    last = side - 1
    beyond = torch.arange(padded, device=x.device) - last
    index = last - torch.maximum(beyond, -beyond)
    return torch.maximum(index, -index)

"""Image pyramids in plain PyTorch.

"box": the mean over K x K, stride K, each level from the full image (the deraining papers' code). A last window that
sticks out at the right or the bottom is the mean of what lies inside. "binomial": 1 4 6 4 1 over 16 along both axes,
then every second pixel, each level from the one before, with reflected borders (dcb|abcd|cba): OpenCV's pyrDown, bit
for bit on uint8.
"""

import torch
import torch.nn.functional as F

from ..library import accumulator

Tensor = torch.Tensor
KERNELS = ("box", "binomial")
TAPS = (1.0, 4.0, 6.0, 4.0, 1.0)  # over 16


def forward(x: Tensor, factors: list[int], kernel: str) -> list[Tensor]:
    """x [B,C,H,W] floating or uint8 -> one reduced level per factor, ceil(H/K) x ceil(W/K)."""
    wide = torch.float32 if x.dtype == torch.uint8 else accumulator(x.dtype)
    levels, current = [], x.to(wide)
    for factor in factors:
        if kernel == "box":
            level = _box(current, factor)
        else:
            level = current = _halve(_halve(current, -1), -2)
        if x.dtype == torch.uint8:
            level = (level + 0.5).floor()
            current = current if kernel == "box" else level
        levels.append(level.to(x.dtype))
    return levels


def backward(grads: list[Tensor], height: int, width: int, factors: list[int], kernel: str) -> Tensor:
    dtype = grads[0].dtype
    grads = [grad.to(accumulator(dtype)) for grad in grads]
    if kernel == "box":
        parts = [_box_backward(grad, factor, height, width) for grad, factor in zip(grads, factors, strict=True)]
        return torch.stack(parts).sum(0).to(dtype)
    sizes = [(height, width), *(grad.shape[2:] for grad in grads)]
    total = torch.zeros_like(grads[-1])
    for (rows, columns), grad in zip(reversed(sizes[:-1]), reversed(grads), strict=True):
        total = _halve_backward(_halve_backward(total + grad, -2, rows), -1, columns)
    return total.to(dtype)


def _box(x: Tensor, factor: int) -> Tensor:
    if not x.shape[0]:
        return x[..., ::factor, ::factor]  # avg_pool2d refuses an empty batch; this has the right shape
    return F.avg_pool2d(x, factor, ceil_mode=True)


def _box_backward(grad: Tensor, factor: int, height: int, width: int) -> Tensor:
    sizes = [(torch.arange(n, device=grad.device) // factor) for n in (height, width)]
    shares = [torch.bincount(owner).to(grad.dtype)[owner] for owner in sizes]  # how many pixels share a window
    spread = grad.index_select(-2, sizes[0]).index_select(-1, sizes[1])
    return spread / (shares[0][:, None] * shares[1])


def _taps(length: int, axis: int, device: torch.device) -> list[Tensor]:
    """For each of the five taps, which input position every output reads."""
    period = max(2 * length - 2, 1)
    centres = torch.arange(0, length, 2, device=device)
    positions = [(centres + offset).remainder(period) for offset in range(-2, 3)]
    return [torch.minimum(each, period - each) for each in positions]


def _halve(x: Tensor, axis: int) -> Tensor:
    taps = zip(TAPS, _taps(x.shape[axis], axis, x.device), strict=True)
    return sum(tap * x.index_select(axis, position) for tap, position in taps) / 16


def _halve_backward(grad: Tensor, axis: int, length: int) -> Tensor:
    shape = list(grad.shape)
    shape[axis] = length
    result = grad.new_zeros(shape)
    for tap, position in zip(TAPS, _taps(length, axis, grad.device), strict=True):
        result.index_add_(axis, position, grad, alpha=tap / 16)
    return result

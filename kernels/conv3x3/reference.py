"""A 3x3 convolution with what follows it, in plain PyTorch."""

import torch
import torch.nn.functional as F

Tensor = torch.Tensor


def forward(
    x: Tensor, weight: Tensor, bias: Tensor | None, add: Tensor | None, dilation: int, relu: bool, relu_sum: bool
) -> Tensor:
    """relu_sum(relu(conv(x) + bias) + add), each where it is asked for."""
    y = F.conv2d(x, weight, bias, padding=dilation, dilation=dilation)
    if relu:
        y = y.relu()
    if add is not None:
        y = y + add
    return y.relu() if relu_sum else y


def backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    add: Tensor | None,
    dilation: int,
    relu: bool,
    relu_sum: bool,
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    """Gradients to x, weight, bias and add; what the ReLUs let through is computed again."""
    grad_sum = grad
    if relu or relu_sum:
        y = F.conv2d(x, weight, bias, padding=dilation, dilation=dilation)
        grad_sum, grad = through_relus(grad, y, add, relu, relu_sum)
    sides, no = [dilation, dilation], [0, 0]
    asked = [True, True, bias is not None]
    grad_x, grad_weight, grad_bias = torch.ops.aten.convolution_backward(
        grad, x, weight, [weight.shape[0]], [1, 1], sides, sides, False, no, 1, asked
    )
    return grad_x, grad_weight, grad_bias, None if add is None else grad_sum


def through_relus(grad: Tensor, y: Tensor, add: Tensor | None, relu: bool, relu_sum: bool) -> tuple[Tensor, Tensor]:
    """The gradients to the sum and to y, which is the convolution with its bias."""
    passes = y > 0
    if relu_sum:
        y = y.relu() if relu else y
        grad = torch.where((y if add is None else y + add) > 0, grad, torch.zeros_like(grad))
    return grad, torch.where(passes, grad, torch.zeros_like(grad)) if relu else grad

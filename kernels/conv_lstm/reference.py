"""A whole ConvLSTM step in plain PyTorch: one 3x3 convolution over [x, h], then the gates."""

import torch
import torch.nn.functional as F

from ..lstm_gates import reference as gates

Tensor = torch.Tensor


def forward(
    x: Tensor,
    h: Tensor | None,
    c: Tensor | None,
    weight: Tensor,
    bias: Tensor | None = None,
    packed: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """x [B,Cin,H,W], h and c [B,C,H,W] or None, weight [4C,Cin+C,3,3] in order i, f, g, o -> (h', c')."""
    return gates.forward(pre_activations(x, h, weight, bias), c)


def pre_activations(x: Tensor, h: Tensor | None, weight: Tensor, bias: Tensor | None) -> Tensor:
    """[B,4C,H,W], or [B,3C,H,W] (i, g, o) from a zero state, where h and the forget gate drop out exactly."""
    if h is not None:
        return F.conv2d(torch.cat([x, h], 1), weight, bias, padding=1)
    return F.conv2d(x, first_step(weight)[:, : x.shape[1]], None if bias is None else first_step(bias), padding=1)


def first_step(rows: Tensor) -> Tensor:
    """The rows of i, g and o."""
    channels = rows.shape[0] // 4
    return torch.cat([rows[:channels], rows[2 * channels :]])


def backward(
    grad_h: Tensor, grad_c: Tensor, x: Tensor, h: Tensor | None, c: Tensor | None, weight: Tensor, bias: Tensor | None
) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor, Tensor | None]:
    """Gradients to x, h, c, weight and bias; the pre-activations are computed again."""
    grad_pre, grad_state, _ = gates.backward(grad_h, grad_c, pre_activations(x, h, weight, bias), c, None)
    grad_x, grad_hidden, grad_weight, grad_bias = convolution_backward(grad_pre, x, h, weight, bias)
    return grad_x, grad_hidden, grad_state, grad_weight, grad_bias


def convolution_backward(
    grad_pre: Tensor, x: Tensor, h: Tensor | None, weight: Tensor, bias: Tensor | None
) -> tuple[Tensor, Tensor | None, Tensor, Tensor | None]:
    """Gradients to x, h, weight and bias from those to the pre-activations."""
    used = weight if h is not None else first_step(weight)[:, : x.shape[1]]
    inputs = x if h is None else torch.cat([x, h], 1)
    grad_inputs, grad_used, grad_bias = torch.ops.aten.convolution_backward(
        grad_pre,
        inputs,
        used,
        [used.shape[0]],
        [1, 1],
        [1, 1],
        [1, 1],
        False,
        [0, 0],
        1,
        [True, True, bias is not None],
    )
    if h is not None:
        grad_x, grad_hidden = grad_inputs.split([x.shape[1], h.shape[1]], 1)
        return grad_x, grad_hidden, grad_used, grad_bias
    grad_weight = torch.zeros_like(weight)
    channels = weight.shape[0] // 4
    grad_weight[:channels, : x.shape[1]] = grad_used[:channels]
    grad_weight[2 * channels :, : x.shape[1]] = grad_used[channels:]
    if grad_bias is not None:
        grad_bias = torch.cat([grad_bias[:channels], torch.zeros_like(grad_bias[:channels]), grad_bias[channels:]])
    return grad_inputs, None, grad_weight, grad_bias

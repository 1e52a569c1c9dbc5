"""`conv_gru`: a whole ConvGRU step, as a composition: PyTorch's convolutions, and `gru_gates` for the rest.

It is no op of its own. Nothing is saved by fusing the gates into a convolution that is followed by another one, as
convolutions of many channels are bound by arithmetic; and recorded apart, compilers see the convolutions as they are.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from . import library
from .gru_gates import gru_gates, gru_reset

Tensor = torch.Tensor


def conv_gru(
    x: Tensor,
    h: Tensor | None,
    gates_weight: Tensor,
    gates_bias: Tensor | None,
    candidate_weight: Tensor,
    candidate_bias: Tensor | None,
    hidden_bias: Tensor | None = None,
    *,
    reset: str = "before",
    z_keeps: bool = False,
    activation: str = "tanh",
) -> Tensor:
    """One ConvGRU step: h'.

    x                 [B,Cin,H,W]
    h                 [B,C,H,W]; None for the zero state, where the h half of the convolutions is skipped
    gates_weight      [2C,Cin+C,kh,kw] over the channels [x, h], its rows z, r; kh and kw odd; the size is kept
    candidate_weight  [C,Cin+C,kh,kw] over [x, sigmoid(r) h]; with reset="after" sigmoid(r) instead multiplies what the
                      convolution of h gives, with `hidden_bias` [C] where it has a bias of its own (as torch.nn.GRU)
    z_keeps           z weighs the old state instead of the candidate
    activation        of the candidate, "tanh" or "relu"

    h' has the dtype of h, or that of the convolutions where h is None.
    """
    check(x, h, gates_weight, candidate_weight, hidden_bias, reset)
    channels, inputs = candidate_weight.shape[0], x.shape[1]
    padding = [taps // 2 for taps in gates_weight.shape[2:]]
    if h is None and hidden_bias is None:
        bias = None if gates_bias is None else gates_bias[:channels]
        z = F.conv2d(x, gates_weight[:channels, :inputs], bias, padding=padding)
        candidate = F.conv2d(x, candidate_weight[:, :inputs], candidate_bias, padding=padding)
        return gru_gates(z, candidate, None, z_keeps=z_keeps, activation=activation)
    if h is None:
        h = x.new_zeros(x.shape[0], channels, *x.shape[2:])
    seen = h.to(x.dtype)
    z, r = F.conv2d(torch.cat([x, seen], 1), gates_weight, gates_bias, padding=padding).chunk(2, 1)
    if reset == "before":
        seen = gru_reset(r, seen.to(r.dtype))
        candidate = F.conv2d(torch.cat([x, seen], 1), candidate_weight, candidate_bias, padding=padding)
        return gru_gates(z, candidate, h, z_keeps=z_keeps, activation=activation)
    candidate = F.conv2d(x, candidate_weight[:, :inputs], candidate_bias, padding=padding)
    hidden = F.conv2d(seen, candidate_weight[:, inputs:], hidden_bias, padding=padding)
    return gru_gates(z, candidate, h, r, hidden, z_keeps=z_keeps, activation=activation)


def check(
    x: Tensor, h: Tensor | None, gates_weight: Tensor, candidate_weight: Tensor, hidden_bias: Tensor | None, reset: str
) -> None:
    """What the convolutions and `gru_gates` would not name."""
    for name, value in (("x", x), ("gates_weight", gates_weight), ("candidate_weight", candidate_weight)):
        library.check_tensor(name, value, 4)
    channels, both, *taps = candidate_weight.shape
    if both != x.shape[1] + channels:
        want = f"{x.shape[1]} + {channels}"
        raise ValueError(f"candidate_weight must have {want} input channels to go with x, got {both}")
    if any(each % 2 == 0 for each in taps):
        raise ValueError(f"candidate_weight must have odd sides, to keep the size of x; got {taps[0]} x {taps[1]}")
    if gates_weight.shape != (2 * channels, both, *taps):
        raise ValueError(
            f"gates_weight must have shape {(2 * channels, both, *taps)} to go with candidate_weight, "
            f"got {tuple(gates_weight.shape)}"
        )
    if h is not None:
        library.check_tensor("h", h, 4)
        want = (x.shape[0], channels, *x.shape[2:])
        if h.shape != want:
            raise ValueError(f"h must have shape {want} to go with x and the weights, got {tuple(h.shape)}")
    if reset not in ("before", "after"):
        raise ValueError(f"reset must be before or after, got {reset!r}")
    if hidden_bias is not None and reset == "before":
        raise ValueError('hidden_bias goes with reset="after"')

"""The GRU step after its convolutions, in plain PyTorch.

u  = sigmoid(z), or sigmoid(-z) where z says how much of the old state is kept
q  = activation(candidate), or activation(candidate + sigmoid(r) * hidden)
h' = (1 - u) * h + u * q, or u * q from a state of zeros
"""

import torch

from ..library import accumulator

Tensor = torch.Tensor


def forward(
    z: Tensor,
    candidate: Tensor,
    h: Tensor | None = None,
    r: Tensor | None = None,
    hidden: Tensor | None = None,
    z_keeps: bool = False,
    activation: str = "tanh",
) -> Tensor:
    u, candidate, state, reset, addend = _parts(z, candidate, h, r, hidden, z_keeps)
    q = _ACTIVATIONS[activation](candidate if reset is None else candidate + reset * addend)
    return (u * q if state is None else (1 - u) * state + u * q).to(state_dtype(z, h))


def backward(
    grad: Tensor,
    z: Tensor,
    candidate: Tensor,
    h: Tensor | None,
    r: Tensor | None,
    hidden: Tensor | None,
    z_keeps: bool,
    activation: str,
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None, Tensor | None]:
    """Gradients to the five tensors; everything is computed again, nothing but the inputs is kept."""
    u, candidate, state, reset, addend = _parts(z, candidate, h, r, hidden, z_keeps)
    if reset is not None:
        candidate = candidate + reset * addend
    q = _ACTIVATIONS[activation](candidate)
    grad = grad.to(u.dtype)
    d_z = grad * (q if state is None else q - state) * u * (1 - u)
    d_q = grad * u
    if activation == "tanh":
        d_q = d_q * (1 - q * q)
    elif activation == "relu":
        d_q = torch.where(candidate <= 0, 0.0, d_q)
    d_r = d_hidden = None
    if reset is not None:
        d_r = (d_q * addend * reset * (1 - reset)).to(z.dtype)
        d_hidden = (d_q * reset).to(z.dtype)
    d_h = None if h is None else (grad * (1 - u)).to(h.dtype)
    return (-d_z if z_keeps else d_z).to(z.dtype), d_q.to(z.dtype), d_h, d_r, d_hidden


def state_dtype(z: Tensor, h: Tensor | None) -> torch.dtype:
    """A state keeps its dtype; one that starts here has that of what the convolutions gave."""
    return z.dtype if h is None else h.dtype


_ACTIVATIONS = {"tanh": torch.tanh, "relu": torch.relu, "none": lambda x: x}


def _parts(z, candidate, h, r, hidden, z_keeps):
    wide = accumulator(z.dtype)
    candidate, h, r, hidden = (None if each is None else each.to(wide) for each in (candidate, h, r, hidden))
    z = z.to(wide)
    return (-z if z_keeps else z).sigmoid(), candidate, h, None if r is None else r.sigmoid(), hidden

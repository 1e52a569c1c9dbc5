"""The LSTM step after its convolution, in plain PyTorch.

    i, f, o = sigmoid of their pre-activations; g = tanh of its own
    c' = f * c + i * g
    h  = o * tanh(c')

With peepholes, p_i * c is added to i's pre-activation, p_f * c to f's, and p_o * c' to o's (Shi et al., 2015).
"""

import torch

from ..library import accumulator

Tensor = torch.Tensor


def forward(pre: Tensor, c: Tensor | None = None, peephole: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """pre [B,4C,H,W] in order i, f, g, o and c [B,C,H,W] -> (h, c'); without c, pre is [B,3C,H,W] in order i, g, o."""
    i, f, g, o, peep = _gates(pre, c, peephole)
    if c is None:
        c_next = i.sigmoid() * g.tanh()
    else:
        state = c.to(g.dtype)
        if peep is not None:
            i, f = i + peep[0] * state, f + peep[1] * state
        c_next = f.sigmoid() * state + i.sigmoid() * g.tanh()
    if peep is not None:
        o = o + peep[2] * c_next
    h = o.sigmoid() * c_next.tanh()
    return h.to(pre.dtype), c_next.to(cell_dtype(pre, c))


def backward(
    grad_h: Tensor, grad_c: Tensor, pre: Tensor, c: Tensor | None, peephole: Tensor | None
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Gradients to pre, c and peephole; the gates are computed again, nothing but the inputs is kept."""
    i, f, g, o, peep = _gates(pre, c, peephole)
    state = None if c is None else c.to(g.dtype)
    if state is not None and peep is not None:
        i, f = i + peep[0] * state, f + peep[1] * state
    i, g = i.sigmoid(), g.tanh()
    c_next = i * g
    if state is not None:
        f = f.sigmoid()
        c_next = c_next + f * state
    o = (o if peep is None else o + peep[2] * c_next).sigmoid()
    t = c_next.tanh()

    grad_h, grad_c = grad_h.to(g.dtype), grad_c.to(g.dtype)
    d_o = grad_h * t * o * (1 - o)
    d_cell = grad_c + grad_h * o * (1 - t * t)
    if peep is not None:
        d_cell = d_cell + d_o * peep[2]
    d_i = d_cell * g * i * (1 - i)
    d_g = d_cell * i * (1 - g * g)
    if state is None:
        d_pre, d_state = torch.cat([d_i, d_g, d_o], 1), None
    else:
        d_f = d_cell * state * f * (1 - f)
        d_pre, d_state = torch.cat([d_i, d_f, d_g, d_o], 1), d_cell * f
        if peep is not None:
            d_state = d_state + d_i * peep[0] + d_f * peep[1]
        d_state = d_state.to(c.dtype)
    d_peep = None
    if peep is not None:
        nothing = torch.zeros_like(d_o)
        at_i, at_f = (nothing, nothing) if state is None else (d_i * state, d_f * state)
        d_peep = torch.stack([each.sum(0).sum_to_size(peephole.shape[1:]) for each in (at_i, at_f, d_o * c_next)])
        d_peep = d_peep.to(peephole.dtype)
    return d_pre.to(pre.dtype), d_state, d_peep


def cell_dtype(pre: Tensor, c: Tensor | None) -> torch.dtype:
    """The cell state keeps its dtype; one that starts here is float32 or better, as recurrences need."""
    return accumulator(pre.dtype) if c is None else c.dtype


def _gates(pre: Tensor, c: Tensor | None, peephole: Tensor | None):
    pre = pre.to(accumulator(pre.dtype))
    peep = None if peephole is None else peephole.to(pre.dtype)
    if c is None:
        i, g, o = pre.chunk(3, 1)
        return i, None, g, o, peep
    return *pre.chunk(4, 1), peep

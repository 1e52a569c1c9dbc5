"""The memory of one frame as the start of the next.

Rain is another one in every frame, so pictures are not carried with it: estimates start at the new frame. Half of each
hidden state h is, and nothing of a cell state c: carried whole, a memory that was trained for one picture drifts away
within seconds. The share was found on the published SRN weights; `benchmarks/carry.py` measures what it gives.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

SHARE = 0.5  # of h
_PICTURES = ("image", "rain")


def has_memory(state: Any) -> bool:
    """Whether that is the state of a network with hidden states: SRN, BRN and what is built like them."""
    return bool(_memories(state)) and all(hasattr(state, name) for name in ("image", "_replace"))


@torch.inference_mode()
def faded(state: Any, x: Tensor) -> Any:
    """The state to start the frame x [1,3,H,W] from. The memory is faded where it lies."""
    for h, *cell in _memories(state):
        h.mul_(SHARE)
        for c in cell:
            c.zero_()
    pictures = {name: getattr(state, name, None) for name in _PICTURES}
    return state._replace(**{name: x.to(old.dtype) for name, old in pictures.items() if old is not None})


def _memories(state: Any) -> list[tuple[Tensor, ...]]:
    """(h, c) or (h,) of every branch: fields h, c or h_x, c_x, ... of a network's state, `memories` of a runner's."""
    if hasattr(state, "memories"):
        return [memory for memory in state.memories if memory is not None]
    fields = getattr(state, "_fields", ())
    cells = {name: getattr(state, "c" + name[1:], None) for name in fields if name == "h" or name.startswith("h_")}
    return [(getattr(state, name),) if cell is None else (getattr(state, name), cell) for name, cell in cells.items()]

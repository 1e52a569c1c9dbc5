"""How much of the rain is taken out: frame + strength * (derained - frame)."""

from __future__ import annotations

from numbers import Real
from typing import Any

import torch
from torch import Tensor

from ..errors import UnrainError


def checked(strength: Any) -> float:
    """More than 1 would add to a picture what the network took for rain, dark where the streaks were."""
    if not isinstance(strength, Real) or not 0 <= strength <= 1:
        raise UnrainError(f"strength must be between 0 (the frame as it is) and 1 (derained), got {strength!r}")
    return float(strength)


def blended(frame: Tensor, derained: Tensor, strength: float) -> Tensor:
    """On the device of `derained`; to the bit `frame` at 0 and `derained` at 1."""
    if strength == 1:
        return derained
    wide = torch.promote_types(frame.dtype, derained.dtype)
    return torch.lerp(frame.to(derained.device, wide), derained.to(wide).clamp(0, 1), strength)

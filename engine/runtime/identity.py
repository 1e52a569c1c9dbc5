"""What a network is, as one short string: the key of everything that is stored about it."""

from __future__ import annotations

import hashlib

import torch
from torch import nn


def model_hash(model: nn.Module) -> str:
    """Of its class, configuration, number of stages and weights."""
    what = (type(model).__name__, getattr(model, "config", None), getattr(model, "stages", None))
    digest = hashlib.sha256(repr(what).encode())
    for name, value in model.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()

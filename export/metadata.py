"""What an exported file says about itself: which network, which weights, how to feed it. JSON, torch-free to read."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..engine.errors import UnrainError

if TYPE_CHECKING:
    from torch import nn

FORMAT = 1
KEY = "unrain"


def weights_hash(model: nn.Module) -> str:
    """SHA-256 over names, shapes and float32 values of all weights and buffers, the same on every machine."""
    import torch

    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        value = value.detach().cpu()
        value = value.to(torch.float32) if value.is_floating_point() else value
        digest.update(f"{name} {list(value.shape)} {value.dtype}\n".encode())
        digest.update(value.contiguous().numpy().tobytes())
    return digest.hexdigest()


def describe(model: nn.Module, **more: Any) -> dict[str, Any]:
    """The part of the description that every target shares; `more` is the target's own."""
    from dataclasses import asdict

    from .. import __version__

    card = getattr(model, "card", {})
    return {
        "format": FORMAT,
        "unrain": __version__,
        "model": getattr(model, "name", None) or card.get("model"),
        "config": asdict(model.config),
        "weights": weights_hash(model),
        "licence": card.get("licence", "not stated"),
        "colour": "RGB",
        "smallest": 8,
        "pads_to": getattr(model, "multiple", 1),
        **more,
    }


def to_text(description: dict[str, Any]) -> str:
    return json.dumps(description, sort_keys=True, allow_nan=False)


def beside(path: Path) -> dict[str, Any]:
    """What the `.json` beside an exported file says of it."""
    described = path.with_suffix(".json")
    try:
        text = described.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        text = ""
    return from_text(text, str(described))


def from_text(text: str, source: str) -> dict[str, Any]:
    """The description in `text`, checked; `source` names the file in what may go wrong."""
    try:
        description = json.loads(text)
        version, name, weights = (description[key] for key in ("format", "model", "weights"))
    except (ValueError, KeyError, TypeError, RecursionError):
        raise UnrainError(f"{source} does not say which network it is; it was not exported by unrain.") from None
    if version != FORMAT:
        raise UnrainError(f"{source} has format {version!r}, this version reads {FORMAT}; export it again.")
    if not isinstance(name, str) or not isinstance(weights, str):
        raise UnrainError(f"{source} does not say which network it is; it was not exported by unrain.")
    return description


def require_same_weights(description: dict[str, Any], model: nn.Module, source: str) -> None:
    """Raise when the file was made from other weights than the model's."""
    found, expected = description["weights"], weights_hash(model)
    if found != expected:
        raise UnrainError(
            f"{source} was exported from other weights ({found[:12]}) than these of "
            f"{getattr(model, 'name', 'the model')} ({expected[:12]}); name the right ones with --weights."
        )

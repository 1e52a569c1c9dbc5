"""The five deraining systems as plain PyTorch, by name: list them, build them, load weights into them."""

import difflib
from copy import copy
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UnrainError
from .catalog import CATALOG, Entry

if TYPE_CHECKING:
    from torch import nn

__all__ = [
    "CATALOG",
    "Entry",
    "build",
    "find",
    "is_for_video",
    "load",
    "models",
    "no_stages",
    "repeats_one_stage",
    "with_stages",
]

WEIGHTS = Path(__file__).resolve().parent.parent / "weights"


def models() -> list[str]:
    """The names `build` and `load` take."""
    return list(CATALOG)


def find(name: str) -> Entry:
    """The catalog's row of that name."""
    if name in CATALOG:
        return CATALOG[name]
    near = difflib.get_close_matches(name.lower(), CATALOG, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else "`unrain models` lists them."
    raise UnrainError(f"no model is called {name!r}; {hint}")


def build(name: str, **overrides: Any) -> "nn.Module":
    """The network of that name with random weights; `overrides` are fields of its configuration."""
    entry = find(name)
    network = getattr(import_module(f".{entry.file}", __name__), entry.cls)
    known = [item.name for item in fields(network.Config)]
    for field in overrides:
        if field not in known:
            raise UnrainError(f"{name} has no option {field!r}; it takes {', '.join(known)}.")
    model = network(network.Config(**{**entry.config, **overrides}))
    model.name = name
    return model


def load(name_or_path: "str | Path", weights: "str | Path | None" = None) -> "nn.Module":
    """A network with trained weights, in eval mode.

    A name takes the weights that ship with the package, or those of the file `weights`; a path is a .safetensors file
    of this project or a published .pth checkpoint, whose network is recognised.
    """
    from .checkpoint import load_file

    if weights is not None:
        find(str(name_or_path))
        return load_file(Path(weights), name=str(name_or_path))
    if str(name_or_path) not in CATALOG and (Path(name_or_path).suffix or Path(name_or_path).exists()):
        return load_file(Path(name_or_path))
    name = str(name_or_path)
    find(name)
    shipped = WEIGHTS / f"{name}.safetensors"
    if not shipped.is_file():
        raise UnrainError(
            f"no weights for {name} are shipped; train them with `unrain train {name}`, "
            f"or convert a published checkpoint with `unrain convert FILE` and load that."
        )
    return load_file(shipped, name=name)


def with_stages(model: "nn.Module", stages: int | None) -> "nn.Module":
    """The network, or, for another number of stages, a copy that shares its weights."""
    if stages is None:
        return model
    if getattr(model, "stages", None) is None:
        raise no_stages(getattr(model, "name", type(model).__name__))
    if stages < 1:
        raise UnrainError(f"stages must be at least 1, got {stages}")
    other: Any = copy(model)
    other.stages = stages
    return other


def no_stages(name: str) -> UnrainError:
    return UnrainError(f"{name} has no stages; leave their number out")


def repeats_one_stage(model: object) -> bool:
    """Whether every stage has the same weights and leaves a state of the same shape, its picture in it."""
    return getattr(model, "repeats_one_stage", False)


def is_for_video(model: object) -> bool:
    """Whether it goes from frame to frame with a state of its own: `step(x, state) -> (picture, state)`."""
    return hasattr(model, "step") and hasattr(model, "initial_state")

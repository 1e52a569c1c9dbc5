"""unrain: a wiper for cameras. The door to the public API; every name is imported on first use."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"

_HOME = {
    "models": ".engine.models",
    "build": ".engine.models",
    "load": ".engine.models",
    "accelerate": ".engine.compile",
    "ConvLSTMCell": ".engine.nn",
    "ConvGRUCell": ".engine.nn",
    "MemoryBank": ".engine.nn",
    "GaussianPyramid": ".engine.nn",
    "CharbonnierLoss": ".engine.nn",
    "EdgeLoss": ".engine.nn",
    "SSIMLoss": ".engine.nn",
    "BackgroundWhiteningLoss": ".engine.nn",
    "record": ".engine.program",
    "Program": ".engine.program",
    "Engine": ".engine.runtime",
    "Stream": ".engine.runtime",
    "Status": ".engine.runtime",
    "info": ".engine.info",
}
_SUBPACKAGES = ("engine", "export", "kernels")

__all__ = ["__version__", *_HOME, *_SUBPACKAGES]

if TYPE_CHECKING:
    from . import engine, export, kernels
    from .engine.compile import accelerate
    from .engine.info import info
    from .engine.models import build, load, models
    from .engine.nn import (
        BackgroundWhiteningLoss,
        CharbonnierLoss,
        ConvGRUCell,
        ConvLSTMCell,
        EdgeLoss,
        GaussianPyramid,
        MemoryBank,
        SSIMLoss,
    )
    from .engine.program import Program, record
    from .engine.runtime import Engine, Status, Stream


def __getattr__(name: str) -> Any:
    if name in _HOME:
        value = getattr(import_module(_HOME[name], __name__), name)
    elif name in _SUBPACKAGES:
        value = import_module(f".{name}", __name__)
    else:
        raise AttributeError(f"module 'unrain' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)

"""Other people's PyTorch: `torch.compile(model, backend="unrain")` and `unrain.accelerate(model)`."""

from .accelerate import accelerate
from .backend import backend
from .report import Entry, Report

__all__ = ["Entry", "Report", "accelerate", "backend"]

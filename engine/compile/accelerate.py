"""`unrain.accelerate`: a model of someone else's compiled with this project's backend, and a report of it."""

from __future__ import annotations

import functools
from typing import Any

import torch
import torch._dynamo
from torch import nn

from .backend import backend
from .report import Report


def accelerate(module: nn.Module, **settings: Any) -> nn.Module:
    """`module.compile(backend="unrain")` with a report; returns the same module.

    In place: the same object with the same state dict, attributes, hooks and call signature; what it computes changes
    by rounding alone. It is compiled when it is first called, and again where Dynamo's guards say so. `settings` are
    those of torch.compile: dynamic, fullgraph, mode, options.

    `accelerate(module).report` then says what was fused, where, and what was left alone and why. (A model whose class
    has a `report` of its own keeps it.) A copy of the module, or a pickled one, is the plain model again.
    """
    if not isinstance(module, nn.Module):
        raise TypeError(f"module must be an nn.Module, got {type(module).__name__}")
    # hooks that are added to a part of the model later: without this, Dynamo takes it that there will be none
    torch._dynamo.config.skip_nnmodule_hook_guards = False
    report = Report()
    module.compile(backend=functools.partial(backend, report=report), **settings)
    if not hasattr(type(module), "report"):
        module.report = report
    return module

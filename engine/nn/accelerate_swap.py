"""How a module of someone else's gets a fused forward: its class is replaced by a subclass made for the purpose.

Parameters, buffers, children, hooks and every attribute stay in the very same object, so the state dict, `isinstance`,
`.to(...)`, deepcopy and pickling behave as before. A call that is not of the proven kind runs the original forward.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

from torch import nn

Settings = tuple[tuple[str, Any], ...]


@dataclass(frozen=True)
class Recipe:
    """What a fused forward needs to know, beyond what the module itself holds. Small, hashable and picklable."""

    names: tuple[str, ...]  # of the arguments that forward requires
    settings: Settings  # the module's own plain attributes when it was proven; another value, and the proof is void

    def arguments(self, module: nn.Module, *values: Any) -> tuple[Any, ...] | None:
        """What `run` needs, or None where only the original forward will do."""
        raise NotImplementedError

    def run(self, module: nn.Module, *values: Any) -> Any:
        raise NotImplementedError

    def describe(self) -> str:
        raise NotImplementedError

    def bind(self, module: nn.Module, args: tuple[Any, ...], keywords: dict[str, Any]) -> tuple[Any, ...] | None:
        if keywords:
            rest = self.names[len(args) :]
            if len(keywords) != len(rest) or any(name not in keywords for name in rest):
                return None
            args = (*args, *(keywords[name] for name in rest))
        if len(args) != len(self.names) or any(getattr(module, name) != value for name, value in self.settings):
            return None
        return self.arguments(module, *args)


def swap(module: nn.Module, recipe: Recipe) -> None:
    module._fused = recipe
    module.__class__ = _fused_class(type(module))


def is_swapped(module: nn.Module) -> bool:
    return isinstance(module.__dict__.get("_fused"), Recipe)


def required_arguments(forward: Callable[..., Any]) -> tuple[str, ...] | None:
    """The names of the arguments that a forward cannot do without, or None where they cannot be known."""
    kinds = inspect.Parameter
    try:
        parameters = list(inspect.signature(forward).parameters.values())
    except (TypeError, ValueError):
        return None
    required = [p for p in parameters if p.default is p.empty]
    if any(p.kind in (kinds.VAR_POSITIONAL, kinds.KEYWORD_ONLY) for p in required):
        return None
    named = [p for p in required if p.kind in (kinds.POSITIONAL_ONLY, kinds.POSITIONAL_OR_KEYWORD)]
    return tuple(p.name for p in named)


def plain_settings(module: nn.Module, used: nn.Module) -> Settings:
    """The numbers, words and switches that a module keeps for itself: eps, forget_bias, reduction, ...

    `used` is a copy that has run: what running changes (the channels last seen, say) is no setting.
    """
    return tuple(
        (name, value)
        for name, value in module.__dict__.items()
        if not name.startswith("_")
        and name != "training"
        and isinstance(value, bool | int | float | str)
        and used.__dict__.get(name) == value
    )


@cache
def _fused_class(base: type[nn.Module]) -> type[nn.Module]:
    def forward(self: nn.Module, *args: Any, **keywords: Any) -> Any:
        recipe = self._fused
        values = recipe.bind(self, args, keywords)
        return base.forward(self, *args, **keywords) if values is None else recipe.run(self, *values)

    def reduce(self: nn.Module, protocol: int) -> tuple[Any, ...]:
        """Deepcopy and pickle meet the base class alone, which they can find by its name."""
        parts = list(base.__reduce_ex__(self, protocol))
        return _rebuild, (base, parts[0], parts[1][1:]), *parts[2:]

    return type(base.__name__, (base,), {"forward": forward, "__reduce_ex__": reduce, "__module__": base.__module__})


def _rebuild(base: type[nn.Module], make: Callable[..., nn.Module], rest: tuple[Any, ...]) -> nn.Module:
    return make(_fused_class(base), *rest)

"""Values that a rule may rely on: constants of the graph, and inputs that hold the same numbers in every call.

The window of an SSIM, say, is a buffer: an input of the graph, whose numbers Dynamo does not guard. A rule that looked
at one makes the compiled graph ask, at every call, whether it still holds what it held; where not, the graph as it was
captured runs instead.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch._ops import OpOverload
from torch._subclasses.fake_tensor import FakeTensor, unset_fake_temporarily
from torch.fx.node import map_arg

LARGEST = 1 << 16  # numbers; what is larger is no window


class _Unknown(Exception):
    pass


class Known:
    def __init__(self, module: fx.GraphModule, inputs: Sequence[Any]) -> None:
        self._module = module
        self._inputs = dict(
            zip((node for node in module.graph.nodes if node.op == "placeholder"), inputs, strict=False)
        )
        self._places = {node: place for place, node in enumerate(self._inputs)}
        self._values: dict[fx.Node, Any] = {}
        self.assumed: dict[int, Tensor] = {}  # by the place of the input

    def __call__(self, node: Any) -> Tensor | None:
        try:
            with unset_fake_temporarily(), torch.no_grad():
                found = self._value(node)
        except _Unknown:
            return None
        return found if isinstance(found, Tensor) and found.numel() <= LARGEST else None

    def _value(self, node: fx.Node) -> Any:
        if node not in self._values:
            self._values[node] = self._computed(node)
        return self._values[node]

    def _computed(self, node: fx.Node) -> Any:
        if node.op == "get_attr":
            found = getattr(self._module, str(node.target))
            if not isinstance(found, Tensor) or isinstance(found, FakeTensor):
                raise _Unknown
            return found
        if node.op == "placeholder":
            given = self._inputs.get(node)
            if isinstance(given, FakeTensor) or not isinstance(given, Tensor) or given.requires_grad:
                raise _Unknown
            if given.numel() > LARGEST:
                raise _Unknown
            self.assumed[self._places[node]] = given.detach().clone()
            return given
        if node.target is torch.ops.aten.detach_.default:
            return self._value(node.args[0])  # type: ignore[arg-type]
        if node.target is torch.ops.aten.type_as.default:  # of the other only its kind matters
            return self._value(node.args[0]).to(node.meta["val"].dtype)  # type: ignore[arg-type]
        if isinstance(node.target, OpOverload):
            changes = torch.Tag.nondeterministic_seeded in node.target.tags or node.target._schema.is_mutable
            if changes:
                raise _Unknown
        elif node.op != "call_function" or node.target.__module__ != "_operator":  # type: ignore[union-attr]
            raise _Unknown
        args, keywords = map_arg((node.args, node.kwargs), self._value)
        return node.target(*args, **keywords)  # type: ignore[operator]

    def guarded(self, compiled: Callable[..., Any], captured: Callable[..., Any]) -> Callable[..., Any]:
        if not self.assumed:
            return compiled
        assumed = tuple(self.assumed.items())

        def run(*inputs: Any) -> Any:
            holds = all(torch.equal(inputs[place], held) for place, held in assumed)
            return (compiled if holds else captured)(*inputs)

        return run

"""A graph that Dynamo captured, brought to the level of operations that torch.export records.

There every way of writing an operation is one: `x.sigmoid()`, `torch.sigmoid(x)` and `nn.Sigmoid()(x)` are
`aten.sigmoid`. The graph stays differentiable, autocast and grad mode stay around it, and each node knows the module
and the line that it comes from.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, fx
from torch._guards import detect_fake_mode
from torch._ops import HigherOrderOperator
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.amp.autocast_mode import _enter_autocast
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.traceback import preserve_node_meta


class LeftAsItWas(Exception):
    """Why a graph is not rewritten at all."""


def levelled(captured: fx.GraphModule, inputs: Sequence[Any]) -> fx.GraphModule:
    """The same graph in aten operations, its inputs in the same order and with the same symbolic sizes."""
    for node in captured.graph.nodes:
        if isinstance(node.target, HigherOrderOperator):
            raise LeftAsItWas(f"it holds {node.target.name()}, whose parts are a matter of its own")
        if node.target is _enter_autocast and (node.args[2] or autocast()):
            raise LeftAsItWas("autocast begins or ends inside it, and dtypes are not known before it runs")
    placeholders = [node for node in captured.graph.nodes if node.op == "placeholder"]
    examples = _examples(placeholders, inputs)
    mode = detect_fake_mode(examples)

    def run(*values: Any) -> Any:
        return fx.Interpreter(captured).run(*values)

    try:
        with preserve_node_meta(), mode or nullcontext():
            traced = make_fx(run, pre_dispatch=True, tracing_mode="symbolic", _allow_non_fake_inputs=True)(*examples)
    except Exception as error:  # whatever it was, the graph as captured still runs
        said = [*str(error).strip().splitlines(), ""][0]
        raise LeftAsItWas(f"it cannot be traced: {type(error).__name__}: {said}") from error
    _keep_what_compilers_read(captured, traced, placeholders)
    return traced


def _examples(placeholders: Sequence[fx.Node], inputs: Sequence[Any]) -> list[Any]:
    known = [node.meta.get("example_value", given) for node, given in zip(placeholders, inputs, strict=True)]
    mode = detect_fake_mode(known) or FakeTensorMode(allow_non_fake_inputs=True)
    return [
        mode.from_tensor(each) if isinstance(each, Tensor) and not isinstance(each, FakeTensor) else each
        for each in known
    ]


def _keep_what_compilers_read(captured: fx.GraphModule, traced: fx.GraphModule, before: Sequence[fx.Node]) -> None:
    """What AOTAutograd looks up of a graph from Dynamo: where each input comes from."""
    traced.meta.update(captured.meta)
    after = [node for node in traced.graph.nodes if node.op == "placeholder"]
    for old, new in zip(before, after, strict=True):
        for name in ("_dynamo_source",):
            if hasattr(old, name):
                setattr(new, name, getattr(old, name))
        if "tensor_dict" in old.meta:
            new.meta["tensor_dict"] = old.meta["tensor_dict"]


def autocast() -> bool:
    return any(torch.is_autocast_enabled(device) for device in ("cpu", "cuda"))


def value(node: fx.Node) -> Any:
    """The fake tensor, or list of them, that stands for a node's result."""
    return node.meta.get("val")


def wants_gradients(inputs: Sequence[Any]) -> bool:
    return torch.is_grad_enabled() and any(isinstance(each, Tensor) and each.requires_grad for each in inputs)

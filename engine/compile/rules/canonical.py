"""What is written in several ways, brought into one, so that a pattern needs to know one."""

from __future__ import annotations

import torch
from torch import fx

from ..edit import Writer
from ..match import Safety, dtype, only, op, same_shape

CUTS = ("chunk", "split", "split_with_sizes", "tensor_split")


def gates_after_cuts(graph: fx.Graph) -> None:
    """sigmoid(pre) cut into gates becomes pre cut into gates, and the sigmoid of each."""
    safety = Safety(graph)
    for node in list(graph.nodes):
        if op(node) not in ("sigmoid", "tanh") or not node.users:
            continue
        (pre,) = node.all_input_nodes
        if all(op(user) in CUTS for user in node.users) and not safety.is_changed(node) and not safety.is_changed(pre):
            for cut in list(node.users):
                parts = Writer(cut)(cut.target, pre, *cut.args[1:], **cut.kwargs)  # type: ignore[arg-type]
                for part in list(cut.users):
                    write = Writer(part)
                    part.replace_all_uses_with(write(node.target, write.item(parts, part.args[1])))  # type: ignore[arg-type]
    graph.eliminate_dead_code()


def without_changes_in_place(graph: fx.Graph) -> None:
    """`relu_` of a result that nobody else holds is `relu`."""
    safety = Safety(graph)
    for node in list(graph.nodes):
        name = op(node)
        if not name.endswith("_") or name.endswith("__") or not node.args or not isinstance(node.args[0], fx.Node):
            continue
        given = node.args[0]
        plain = getattr(torch.ops.aten, name[:-1], None)
        overload = node.target._overloadname  # type: ignore[union-attr]
        fresh = given.op == "call_function" and safety.root(given) is given and only(given, node)
        if fresh and plain is not None and overload in plain.overloads() and same_shape(given, node):
            new = Writer(node)(getattr(plain, overload), *node.args, **node.kwargs)
            if dtype(new) == dtype(given):
                node.replace_all_uses_with(new)
                graph.erase_node(node)
            else:
                graph.erase_node(new)

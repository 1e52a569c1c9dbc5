"""Where in the list an instruction stands, as far as that is free."""

from __future__ import annotations

from collections import Counter

from ..graph import THIN, VECTOR, Node, Run


def early(run: Run) -> Run:
    """What takes less room than the maps that nobody reads after it comes as soon as it can."""
    readers = Counter(each for node in run.nodes for each in set(node.inputs))
    readers.update(each for mark in run.marks for each in mark.values)
    order: list[Node] = []
    for node in run.nodes:
        freed = sum(_room(each) for each in set(node.inputs) if readers[each] == 1 and each.op != "input")
        if freed > _room(node):
            order.insert(max((order.index(each) + 1 for each in node.inputs if each.op != "input"), default=0), node)
        else:
            order.append(node)
    return Run(run.picture, run.ports, tuple(order), run.marks)


def _room(node: Node) -> float:
    """Numbers for each pixel of the picture."""
    if node.down == VECTOR or node.op == "second":
        return 0.0
    return (4 if node.channels <= THIN else -(-node.channels // 16) * 16) / 4.0**node.down

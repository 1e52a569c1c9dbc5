"""The pointwise part of recurrent cells, and the convolutions before it."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from ..graph import THIN, Node, Run, Uses, listed, rewritten


def is_act(node: Node, act: str) -> bool:
    return node.op == "affine" and node["act1"] == act and not node.constants


def _orders(node: Node) -> Iterator[tuple[Node, Node]]:
    yield node.inputs[0], node.inputs[1]
    yield node.inputs[1], node.inputs[0]


def _product(node: Node, first: str) -> Iterator[tuple[Node, Node]]:
    """(x, y) of every reading of the node as first(x) * y."""
    if node.op == "mul" and node["act1"] == "none" and node.inputs[1].down == node.down:
        for a, b in _orders(node):
            if is_act(a, first):
                yield a.inputs[0], b


def _gated(node: Node) -> tuple[Node, Node] | None:
    """i and g of sigmoid(i) * tanh(g)."""
    return next(((i, b.inputs[0]) for i, b in _product(node, "sigmoid") if is_act(b, "tanh")), None)


def _new_cell(node: Node) -> tuple[Node, ...] | None:
    """i, f, g, c of sigmoid(f) * c + sigmoid(i) * tanh(g), or i, g where there is nothing to forget."""
    first = _gated(node)
    if first is not None:
        return first
    if node.op == "add" and node["act1"] == "none":
        for kept, new in _orders(node):
            gated = _gated(new)
            held = next(_product(kept, "sigmoid"), None)
            if gated is not None and held is not None:
                return gated[0], held[0], gated[1], held[1]
    return None


def lstm_cells(run: Run) -> Run:
    """h = sigmoid(o) * tanh(c) of a new c is one operation that yields both."""
    found: dict[Node, Node] = {}  # c to its lstm
    replaced: dict[Node, Node] = {}
    for node in run.nodes:
        for o, b in _product(node, "sigmoid"):
            c = b.inputs[0] if is_act(b, "tanh") else None
            parts = _new_cell(c) if c is not None and c not in found else None
            if parts is not None:
                i, f, g, held = parts if len(parts) == 4 else (parts[0], None, parts[1], None)
                inputs = (i, g, o) if f is None else (i, f, g, o, held)
                made_of = ("sigmoid", "tanh", "lstm")
                found[c] = replaced[node] = Node("lstm", inputs, *node.shape, {}, {}, node.where, made_of)
                break
    return _replaced(run, found, replaced) if found else run


def _replaced(run: Run, cells: dict[Node, Node], hidden: dict[Node, Node]) -> Run:
    """The run with each c and h read from its lstm, which may stand before or behind what it needs in the list."""
    made: dict[Node, Node] = {}

    def new(node: Node) -> Node:
        if node not in made:
            if node in hidden:
                made[node] = remade(hidden[node])
            elif node in cells:
                made[node] = second(remade(cells[node]))
            else:
                made[node] = remade(node)
        return made[node]

    def remade(node: Node) -> Node:
        if node in made:
            return made[node]
        inputs = tuple(new(each) for each in node.inputs)
        made[node] = node if inputs == node.inputs else node.but(inputs=inputs)
        return made[node]

    order = [new(node) for node in run.nodes]
    marks = tuple(type(mark)(new(mark.picture), tuple(new(each) for each in mark.states)) for mark in run.marks)
    return Run(run.picture, run.ports, listed(order, marks), marks)


def second(cell: Node) -> Node:
    """The c of a cell."""
    return Node("second", (cell,), cell.channels, cell.down, {}, {}, cell.where)


def convolutional_lstms(run: Run) -> Run:
    """Gates that are convolutions of the same maps, read by nobody else, and the cell after them are one operation."""

    def change(node: Node, uses: Uses) -> Node | None:
        if node.op != "lstm" or node.channels <= THIN:
            return None
        gates = node.inputs[: 4 if len(node.inputs) == 5 else 3]
        first = gates[0]
        for gate in gates:
            plain = gate.op == "conv" and gate["act1"] == "none" and not gate["adds"] and not gate["form"]
            if not plain or gate.inputs != first.inputs or uses(gate) > 1:
                return None
            if (gate["kernel"], gate["stride"], gate["dilation"], gate["groups"]) != (3, 1, 1, 1):
                return None
        weight = torch.cat([gate.constants["weight"] for gate in gates])
        none = torch.zeros(node.channels)
        bias = torch.cat([gate.constants.get("bias", none).double() for gate in gates])
        attributes = {"kernel": 3, "gates": len(gates), "maps": len(first.inputs)}
        return node.but(
            op="conv_lstm",
            inputs=(*first.inputs, *node.inputs[4:]),
            attributes=attributes,
            constants={"weight": weight, "bias": bias},
            where=first.where,
            absorbed=(first,),
        )

    return rewritten(run, change)


def interpolations(run: Run) -> Run:
    """(1 - u) * a + u * b is an interpolation: the end of a GRU."""

    def change(node: Node, uses: Uses) -> Node | None:
        if node.op != "add" or node["act1"] != "none":
            return None
        for kept, new in _orders(node):
            if kept.op != "mul" or new.op != "mul":
                continue
            for rest, a in _orders(kept):
                for u, b in _orders(new):
                    if _is_rest(rest, u) and a.shape == b.shape == u.shape:
                        return Node("lerp", (a, b, u), *node.shape, {}, {}, node.where, (*kept.made_of, *node.made_of))
        return None

    return rewritten(run, change)


def _is_rest(node: Node, u: Node) -> bool:
    """1 - u."""
    if node.op != "affine" or node.inputs[0] is not u or node["act1"] != "none" or "order" in node.constants:
        return False
    scale, offset = node.constants.get("scale"), node.constants.get("offset")
    return scale is not None and offset is not None and bool((scale == -1).all() and (offset == 1).all())

"""Concatenations: never stored where their reader takes a list of maps."""

from __future__ import annotations

import torch

from ..graph import Node, Run, Uses, rewritten

MOST = 16  # maps a convolution takes


def flat_concatenations(run: Run) -> Run:
    """A concatenation of concatenations is one; one of a single map is that map."""

    def change(node: Node, uses: Uses) -> Node | None:
        if node.op != "cat":
            return None
        parts = tuple(part for each in node.inputs for part in (each.inputs if each.op == "cat" else (each,)))
        if len(parts) == 1:
            return parts[0]
        return node.but(inputs=parts) if parts != node.inputs else None

    return rewritten(run, change)


def pointwise_of_concatenations(run: Run) -> Run:
    """A sum, difference or product of concatenations with the same pieces is the concatenation of theirs."""

    def change(node: Node, uses: Uses) -> Node | None:
        if node.op not in ("add", "sub", "mul", "affine", "clamp") or any(each.op != "cat" for each in node.inputs):
            return None
        widths = [[part.channels for part in each.inputs] for each in node.inputs]
        if any(each != widths[0] for each in widths) or "order" in node.constants:
            return None
        pieces, first = [], 0
        for parts in zip(*(each.inputs for each in node.inputs), strict=True):
            last = first + parts[0].channels
            constants = {
                name: value[first:last] if len(value) == node.channels else value
                for name, value in node.constants.items()
            }
            pieces.append(node.but(inputs=parts, channels=last - first, constants=constants))
            first = last
        return Node("cat", tuple(pieces), *node.shape, {}, {}, node.where)

    return rewritten(run, change)


def unshuffled_concatenations(run: Run) -> Run:
    """A pixel unshuffle of a concatenation is the concatenation of its parts' unshuffles."""

    def change(node: Node, uses: Uses) -> Node | None:
        if node.op != "unshuffle" or node.inputs[0].op != "cat":
            return None
        parts = tuple(
            node.but(inputs=(each,), channels=each.channels * node["r"] ** 2) for each in node.inputs[0].inputs
        )
        return Node("cat", parts, *node.shape, {}, {}, node.where)

    return rewritten(run, change)


def convolution_of_concatenation(run: Run) -> Run:
    """A convolution reads the maps of a concatenation where they lie."""

    def change(node: Node, uses: Uses) -> Node | None:
        if node.op not in ("conv", "conv_lstm") or node["groups"] not in (None, 1):
            return None
        count = node["maps"] or 1
        maps = tuple(part for each in node.inputs[:count] for part in (each.inputs if each.op == "cat" else (each,)))
        if maps == node.inputs[:count] or len(maps) > MOST:
            return None
        joined = [each for each in node.inputs[:count] if each.op == "cat"]
        return node.but(inputs=(*maps, *node.inputs[count:]), attributes={"maps": len(maps)}, absorbed=joined)

    return rewritten(run, change)


def repeated_sources(run: Run) -> Run:
    """A map that a convolution reads twice is read once, with the sum of the weights."""

    def change(node: Node, uses: Uses) -> Node | None:
        count = node["maps"] or 1
        maps = node.inputs[:count]
        if node.op not in ("conv", "conv_lstm") or len(set(maps)) == count or node["groups"] not in (None, 1):
            return None
        side = 0 if node["form"] else 1
        columns: dict[Node, torch.Tensor] = {}
        for each, part in zip(
            maps, node.constants["weight"].double().split([m.channels for m in maps], side), strict=True
        ):
            columns[each] = columns[each] + part if each in columns else part
        weight = torch.cat(list(columns.values()), side)
        return node.but(
            inputs=(*columns, *node.inputs[count:]), attributes={"maps": len(columns)}, constants={"weight": weight}
        )

    return rewritten(run, change)

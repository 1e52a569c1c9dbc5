"""What a state of zeros makes superfluous goes."""

from __future__ import annotations

import torch

from ..graph import Node, Run, Uses, rewritten


def is_zero(node: Node) -> bool:
    return node.op == "fill" and not bool(node.constants["values"].any())


def without_zeros(run: Run) -> Run:
    """x * 0 is 0 (a state of zeros is no measurement: nothing in it can be infinite), x + 0 is x."""

    def change(node: Node, uses: Uses) -> Node | None:
        if node.op not in ("add", "sub", "mul") or node["act1"] != "none":
            return None
        a, b = node.inputs
        if node.op == "mul" and (is_zero(a) or is_zero(b)):
            zero = {"values": torch.zeros(node.channels)}
            return Node("fill", (), *node.shape, {}, zero, node.where, node.made_of)
        if node.op != "mul" and is_zero(b):
            return a
        if node.op == "add" and is_zero(a):
            return b
        return None

    return rewritten(run, change)


def of_constants(run: Run) -> Run:
    """What is done to a map of constants, without a neighbour, is done to the constants."""

    def change(node: Node, uses: Uses) -> Node | None:
        if node.op not in ("unshuffle", "pool", "slice") or node.inputs[0].op != "fill":
            return None
        values = node.inputs[0].constants["values"]
        if node.op == "unshuffle":
            values = values.repeat_interleave(node["r"] ** 2)
        elif node.op == "slice":
            values = values[node["first"] : node["first"] + node.channels]
        return Node("fill", (), *node.shape, {}, {"values": values}, node.where, node.made_of)

    return rewritten(run, change)


def convolutions_without_zeros(run: Run) -> Run:
    """A map of zeros among a convolution's inputs goes, with the weights that read it."""

    def change(node: Node, uses: Uses) -> Node | None:
        if node.op not in ("conv", "conv_lstm") or node["groups"] not in (1, None):
            return None
        maps = node.inputs[: node["maps"]] if node["maps"] else ()
        kept = [each for each in maps if not is_zero(each)]
        if len(kept) == len(maps) or not kept:
            return None
        side = 0 if node["form"] else 1
        columns = node.constants["weight"].split([each.channels for each in maps], side)
        weight = torch.cat([part for part, each in zip(columns, maps, strict=True) if not is_zero(each)], side)
        inputs = (*kept, *node.inputs[len(maps) :])
        return node.but(inputs=inputs, constants={"weight": weight}, attributes={"maps": len(kept)})

    return rewritten(run, change)

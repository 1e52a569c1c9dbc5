"""Norms over channels and the memory's reading, recognised in their parts."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from ..graph import Node, Run, Uses, rewritten


def channel_norms(run: Run) -> Run:
    """x / max(|x|, eps), and (x - mean) / sqrt(variance + eps), over the channels of each pixel."""

    def change(node: Node, uses: Uses) -> Node | None:
        if node.op != "div" or node.inputs[1].op != "expand":
            return None
        x, below = node.inputs[0], node.inputs[1].inputs[0]
        if below.op == "clamp" and below.inputs[0].op == "length" and below.inputs[0].inputs[0] is x:
            attributes = {"eps": below["low"], "kind": "length"}
            return Node("channel_norm", (x,), *node.shape, attributes, {}, node.where, ("normalize",))
        return _layer_norm(node, x, below)

    return rewritten(run, change)


def _layer_norm(node: Node, difference: Node, below: Node) -> Node | None:
    if below.op != "sqrt" or below.inputs[0].op != "affine" or set(below.inputs[0].constants) != {"offset"}:
        return None
    variance = below.inputs[0].inputs[0]
    if variance.op != "channel_mean" or variance.inputs[0].op != "mul":
        return None
    if variance.inputs[0].inputs != (difference, difference) or difference.op != "sub":
        return None
    x, mean = difference.inputs
    if mean.op != "expand" or mean.inputs[0].op != "channel_mean" or mean.inputs[0].inputs[0] is not x:
        return None
    attributes = {"eps": float(below.inputs[0].constants["offset"][0]), "kind": "mean"}
    return Node("channel_norm", (x,), *node.shape, attributes, {}, node.where, ("layer_norm",))


def memory_reads(run: Run) -> Run:
    """Cosine scores with the items, softmax over them, their weighted sum."""

    def change(node: Node, uses: Uses) -> Node | None:
        if not _pointwise(node) or node.inputs[0].op != "softmax" or not _pointwise(node.inputs[0].inputs[0]):
            return None
        scores = node.inputs[0].inputs[0]
        norm = scores.inputs[0]
        if norm.op != "channel_norm" or norm["kind"] != "length" or norm.constants:
            return None
        items = node.constants["weight"][:, :, 0, 0].T  # [M, C]
        if not torch.equal(F.normalize(items, dim=1), scores.constants["weight"][:, :, 0, 0]):
            return None
        return Node("memory_read", norm.inputs, *node.shape, {}, {"items": items}, node.where, ("cosine", "softmax"))

    return rewritten(run, change)


def _pointwise(node: Node) -> bool:
    return node.op == "conv" and node["kernel"] == 1 and not node["adds"] and "bias" not in node.constants

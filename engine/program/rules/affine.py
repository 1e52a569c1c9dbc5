"""Scales, offsets and reorderings of channels: merged with each other and folded into convolutions."""

from __future__ import annotations

import torch
from torch import Tensor

from ..graph import Node, Run, rewritten


def is_identity(node: Node) -> bool:
    return node.op == "affine" and node["act1"] == "none" and not node.constants


def _parts(node: Node) -> tuple[Tensor, Tensor, Tensor]:
    """Scale, offset (double) and order of an affine node, all spelled out."""
    count = node.channels
    scale = node.constants.get("scale", torch.ones(count)).double()
    offset = node.constants.get("offset", torch.zeros(count)).double()
    return scale, offset, node.constants.get("order", torch.arange(count)).long()


def merged(run: Run) -> Run:
    """act(affine(affine(x))) is one; what changes nothing goes."""

    def change(node: Node, uses) -> Node | None:
        if node.op != "affine":
            return None
        if is_identity(node):
            return node.inputs[0]
        inner = node.inputs[0]
        if inner.op != "affine" or inner["act1"] != "none":
            return None
        scale, offset, order = _parts(node)
        inner_scale, inner_offset, inner_order = _parts(inner)
        constants = {
            "scale": scale * inner_scale[order],
            "offset": scale * inner_offset[order] + offset,
            "order": inner_order[order].float(),
        }
        return node.but(inputs=inner.inputs, constants=_needed(constants), absorbed=(inner,))

    return rewritten(run, change)


def _needed(constants: dict[str, Tensor]) -> dict[str, Tensor | None]:
    scale, offset, order = constants["scale"], constants["offset"], constants["order"]
    return {
        "scale": None if bool((scale == 1).all()) else scale,
        "offset": None if bool((offset == 0).all()) else offset,
        "order": None if torch.equal(order.long(), torch.arange(len(order))) else order,
    }


def into_convolution_before(run: Run) -> Run:
    """Batch normalisation and other scales, offsets and orders go into the weights of the convolution before."""

    def change(node: Node, uses) -> Node | None:
        if node.op != "affine" or not {"scale", "offset", "order"} & set(node.constants):
            return None
        conv = node.inputs[0]
        if conv.op not in ("conv", "dense") or uses(conv) > 1 or conv["adds"] or conv["shuffle"]:
            return None
        if conv["act1"] != "none" or ((conv["groups"] or 1) > 1 and "order" in node.constants):
            return None
        scale, offset, order = _parts(node)
        weight = conv.constants["weight"].double()
        rows = -1 if conv.op == "dense" else (-1, 1, 1)
        if conv["form"]:
            weight = weight[:, order] * scale[:, None, None]
        else:
            weight = weight[order] * (scale[:, None] if conv.op == "dense" else scale[:, None, None, None])
        del rows
        bias = offset
        if "bias" in conv.constants:
            bias = conv.constants["bias"].double()[order] * scale + offset
        constants = {"weight": weight, "bias": bias if bool(bias.any()) or "bias" in conv.constants else None}
        folded = conv.but(constants=constants, channels=node.channels, absorbed=(node,))
        if node["act1"] == "none":
            return folded
        left = {"slope": node.constants["slope"]} if "slope" in node.constants else {}
        return Node("affine", (folded,), *node.shape, {"act1": node["act1"]}, left, node.where, ())

    return rewritten(run, change)

"""Scales, offsets and reorderings of channels: merged with each other and folded into convolutions."""

from __future__ import annotations

import torch
from torch import Tensor

from ..graph import Node, Run, Uses, rewritten


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

    def change(node: Node, uses: Uses) -> Node | None:
        if node.op != "affine":
            return None
        if is_identity(node):
            return node.inputs[0]
        inner = node.inputs[0]
        if inner.op != "affine" or inner["act1"] != "none":
            needed = _needed(inner, *_parts(node))
            trivial = {name: None for name in node.constants if needed.get(name, 0) is None}
            clean = node.but(constants=trivial)
            return inner if is_identity(clean) else clean if trivial else None
        scale, offset, order = _parts(node)
        inner_scale, inner_offset, inner_order = _parts(inner)
        both = scale * inner_scale[order], scale * inner_offset[order] + offset, inner_order[order]
        return node.but(inputs=inner.inputs, constants=_needed(inner.inputs[0], *both), absorbed=(inner,))

    return rewritten(run, change)


def _needed(x: Node, scale: Tensor, offset: Tensor, order: Tensor) -> dict[str, Tensor | None]:
    """Those of the constants of an affine node of x that change anything."""
    as_it_is = len(order) == x.channels and torch.equal(order, torch.arange(x.channels))
    return {
        "scale": None if bool((scale == 1).all()) else scale,
        "offset": None if bool((offset == 0).all()) else offset,
        "order": None if as_it_is else order.float(),
    }


def _is_linear(node: Node, uses: Uses) -> bool:
    """A bare convolution, or a sum of them, that nobody else reads."""
    if uses(node) > 1 or node["act1"] != "none":
        return False
    if node.op == "conv":
        return not node["adds"] and not node["shuffle"]
    return node.op in ("add", "sub") and all(_is_linear(each, uses) for each in node.inputs)


def over_sums(run: Run) -> Run:
    """What is done to a sum of bare convolutions is done to each of them, and so goes into their weights."""

    def change(node: Node, uses: Uses) -> Node | None:
        source = node.inputs[0] if node.inputs else node
        if node.op != "affine" or source.op not in ("add", "sub") or not _is_linear(source, uses):
            return None
        if not set(node.constants) & {"scale", "offset", "order"}:
            return None

        def spread(sum_or_conv: Node, offset: bool) -> Node:
            if sum_or_conv.op == "conv":
                left = {} if offset else {"offset": None}
                return node.but(inputs=(sum_or_conv,), attributes={"act1": "none"}, constants=left | {"slope": None})
            first, second = sum_or_conv.inputs
            return sum_or_conv.but(inputs=(spread(first, offset), spread(second, False)), channels=node.channels)

        spread_out = spread(source, True)
        if node["act1"] == "none":
            return spread_out
        left = {name: None for name in ("scale", "offset", "order")}
        return node.but(inputs=(spread_out,), constants=left)

    return rewritten(run, change)


def into_convolution_after(run: Run) -> Run:
    """Scales and orders of the channels of a map that only one convolution reads go into its weights.

    An offset does too where there is no padding: a convolution pads with zeros, not with the offset.
    """

    def change(node: Node, uses: Uses) -> Node | None:
        count = node["maps"] or 1
        if node.op != "conv" or node["groups"] != 1 or node["form"]:
            return None
        for at, source in enumerate(node.inputs[:count]):
            bare = source.op == "affine" and source["act1"] == "none" and uses(source) == 1
            if not bare or ("offset" in source.constants and node["kernel"] > 1):
                continue
            scale, offset, order = _parts(source)
            columns = list(node.constants["weight"].double().split([each.channels for each in node.inputs[:count]], 1))
            part = columns[at]
            constants = {}
            if "offset" in source.constants:
                bias = node.constants.get("bias", torch.zeros(len(part))).double()
                constants["bias"] = bias + (part * offset[:, None, None]).sum((1, 2, 3))
            columns[at] = part.new_zeros(len(part), source.inputs[0].channels, *part.shape[2:])
            columns[at].index_add_(1, order, part * scale[:, None, None])
            inputs = (*node.inputs[:at], source.inputs[0], *node.inputs[at + 1 :])
            weight = torch.cat(columns, 1)
            return node.but(inputs=inputs, constants=constants | {"weight": weight}, absorbed=(source,))
        return None

    return rewritten(run, change)


def into_convolution_before(run: Run) -> Run:
    """Batch normalisation and other scales, offsets and orders go into the weights of the convolution before."""

    def change(node: Node, uses: Uses) -> Node | None:
        if node.op != "affine" or not {"scale", "offset", "order"} & set(node.constants):
            return None
        conv = node.inputs[0]
        if conv.op not in ("conv", "dense") or uses(conv) > 1 or conv["adds"] or conv["shuffle"]:
            return None
        if conv["act1"] != "none" or ((conv["groups"] or 1) > 1 and "order" in node.constants):
            return None
        scale, offset, order = _parts(node)
        weight = conv.constants["weight"].double()
        if conv["form"]:
            weight = weight[:, order] * scale[:, None, None]
        else:
            weight = weight[order] * (scale[:, None] if conv.op == "dense" else scale[:, None, None, None])
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

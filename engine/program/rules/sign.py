"""A ReLU of what is never negative goes."""

from __future__ import annotations

from ..graph import Node, Run, Uses, rewritten

POSITIVE = ("relu", "relu6", "sigmoid")


def never_negative(node: Node) -> bool:
    if node.op == "conv" and node["adds"]:
        return node["act2"] in POSITIVE or (
            node["act2"] == "none" and node["act1"] in POSITIVE and never_negative(node.inputs[-1])
        )
    if node["act1"] in POSITIVE:
        return True
    if node.op == "add" and node["act1"] == "none":
        return all(never_negative(each) for each in node.inputs)
    return node.op in ("pool", "mean", "shuffle", "unshuffle", "slice") and never_negative(node.inputs[0])


def needless_relus(run: Run) -> Run:
    """relu(x) is x, and relu(x + relu(z)) is x + relu(z), where x is never negative."""

    def change(node: Node, uses: Uses) -> Node | None:
        if node.op == "affine" and node["act1"] == "relu" and not node.constants and never_negative(node.inputs[0]):
            return node.inputs[0]
        if (
            node.op == "conv"
            and node["act2"] == "relu"
            and node["act1"] in POSITIVE
            and never_negative(node.inputs[-1])
        ):
            return node.but(attributes={"act2": "none"})
        return None

    return rewritten(run, change)

"""What follows a convolution is done before its result is stored."""

from __future__ import annotations

from ..graph import Node, Run, Uses, rewritten


def _is_act(node: Node) -> bool:
    return node.op == "affine" and node["act1"] != "none" and not set(node.constants) - {"slope"}


def activations(run: Run) -> Run:
    """A convolution, a sum, a product or a dense layer with the activation after it is one."""

    def change(node: Node, uses: Uses) -> Node | None:
        if not _is_act(node):
            return None
        source = node.inputs[0]
        if uses(source) > 1 or source.op not in ("conv", "dense", "add", "sub", "mul"):
            return None
        second = source.op == "conv" and (source["adds"] or source["act1"] != "none")
        place = "act2" if second else "act1"
        slope = node.constants.get("slope")
        if source[place] != "none" or (second and source["shuffle"] and slope is not None and len(slope) > 1):
            return None
        if source["shuffle"] and slope is not None and len(slope) > 1:
            slope = slope.repeat_interleave(source["shuffle"] ** 2)
        slopes = {"slope2" if second else "slope1" if source.op == "conv" else "slope": slope}
        return source.but(attributes={place: node["act1"]}, constants=slopes, absorbed=(node,))

    return rewritten(run, change)


def shuffles(run: Run) -> Run:
    """A pixel shuffle by 2 is done in the store of the convolution before it."""

    def change(node: Node, uses: Uses) -> Node | None:
        if node.op != "shuffle" or node["r"] != 2:
            return None
        conv = node.inputs[0]
        finished = conv["adds"] or conv["shuffle"] or conv["act2"] != "none"
        if conv.op != "conv" or uses(conv) > 1 or finished or conv["form"] or conv["stride"] != 1:
            return None
        return conv.but(attributes={"shuffle": 2}, channels=node.channels, down=node.down, absorbed=(node,))

    return rewritten(run, change)


def differences(run: Run) -> Run:
    """a - conv(x) is a + conv(x) with the weights negated; a - (b + c) is (a - b) - c, where those are convolutions."""

    def bare(node: Node, uses: Uses) -> bool:
        return node.op == "conv" and node["act1"] == "none" and not node["adds"] and uses(node) == 1

    def change(node: Node, uses: Uses) -> Node | None:
        if node.op != "sub" or node["act1"] != "none":
            return None
        first, taken = node.inputs
        if bare(taken, uses):
            constants = {name: -value for name, value in taken.constants.items()}
            negated = taken.but(constants=constants, absorbed=(node,))
            return node.but(op="add", inputs=(first, negated))
        if taken.op == "add" and taken["act1"] == "none" and uses(taken) == 1 and bare(taken.inputs[1], uses):
            left = node.but(inputs=(first, taken.inputs[0]))
            return change(node.but(inputs=(change(left, uses) or left, taken.inputs[1])), uses)
        return None

    return rewritten(run, change)


def sums(run: Run) -> Run:
    """A convolution adds a map to its result before it is stored; of two convolutions the later one does.

    a + (b + conv) is (a + b) + conv, so that a chain of sums finds its convolutions.
    """

    def change(node: Node, uses: Uses) -> Node | None:
        if node.op != "add" or node.inputs[1].down != node.down:
            return None
        for conv, other in ((node.inputs[1], node.inputs[0]), node.inputs):
            bare = conv.op == "conv" and not conv["adds"] and conv["act2"] == "none"
            if bare and uses(conv) == 1 and conv is not other:
                slope = {"slope2": node.constants.get("slope")}
                return conv.but(
                    inputs=(*conv.inputs, other),
                    attributes={"adds": True, "act2": node["act1"], "maps": conv["maps"] or 1},
                    constants=slope,
                    absorbed=(node,),
                )
        for inner, other in (node.inputs[::-1], node.inputs):
            if inner.op == "conv" and inner["adds"] and inner["act2"] == "none" and uses(inner) == 1:
                sum_first = change(Node("add", (inner.inputs[-1], other), *node.shape, {"act1": "none"}), uses)
                if sum_first is not None:
                    slope = {"slope2": node.constants.get("slope")}
                    inputs = (*inner.inputs[:-1], sum_first)
                    return inner.but(
                        inputs=inputs, attributes={"act2": node["act1"]}, constants=slope, absorbed=(node,)
                    )
        return None

    return rewritten(run, change)

"""Some of a map's channels: taken where they are made, so that no map is made to be cut up."""

from __future__ import annotations

from ..graph import Node, Run, Uses, rewritten


def of_concatenations(run: Run) -> Run:
    """A piece of a piece is one piece; a piece of a concatenation is a piece of its part, or some of its parts."""

    def change(node: Node, uses: Uses) -> Node | None:
        if node.op != "slice":
            return None
        source, first, last = node.inputs[0], node["first"], node["first"] + node.channels
        if source.op == "slice":
            return node.but(inputs=source.inputs, attributes={"first": first + source["first"]})
        if source.op != "cat":
            return source if node.channels == source.channels else None
        parts, begin = [], 0
        for part in source.inputs:
            low, high = max(first - begin, 0), min(last - begin, part.channels)
            if low < high:
                whole = high - low == part.channels
                parts.append(
                    part if whole else node.but(inputs=(part,), channels=high - low, attributes={"first": low})
                )
            begin += part.channels
        return parts[0] if len(parts) == 1 else Node("cat", tuple(parts), *node.shape, {}, {}, node.where)

    return rewritten(run, change)


def of_pointwise(run: Run) -> Run:
    """A piece of a pointwise result is the result of pieces."""

    def change(node: Node, uses: Uses) -> Node | None:
        if node.op != "slice" or node.inputs[0].op not in ("add", "sub", "mul", "affine", "clamp"):
            return None
        source, first, last = node.inputs[0], node["first"], node["first"] + node.channels
        if "order" in source.constants:
            return None
        inputs = tuple(node.but(inputs=(each,), down=each.down) for each in source.inputs)
        constants = {
            name: value[first:last] if len(value) == source.channels else value
            for name, value in source.constants.items()
        }
        return source.but(inputs=inputs, channels=node.channels, constants=constants)

    return rewritten(run, change)


def of_convolutions(run: Run) -> Run:
    """A piece of a convolution's result is a convolution with a piece of its weights, if nobody wants the whole."""
    cut_up = set(run.nodes) - {each for mark in run.marks for each in mark.values}
    cut_up -= {each for node in run.nodes if node.op != "slice" for each in node.inputs}

    def change(node: Node, uses: Uses) -> Node | None:
        if node.op != "slice" or node.inputs[0].op != "conv":
            return None
        source, first, last = node.inputs[0], node["first"], node["first"] + node.channels
        if uses.before(source) not in cut_up or source["adds"] or source["shuffle"]:
            return None
        groups = source["groups"]
        if groups > 1 and groups != source.channels:
            return None
        weight = source.constants["weight"]
        weight = weight[:, first:last] if source["form"] else weight[first:last]
        constants = {"weight": weight}
        for name in ("bias", "slope1", "slope2"):
            if name in source.constants:
                value = source.constants[name]
                constants[name] = value[first:last] if len(value) == source.channels else value
        inputs, attributes = source.inputs, {}
        if groups > 1:
            if source.inputs[0].channels != groups:
                return None
            inputs = (node.but(inputs=source.inputs, down=source.inputs[0].down),)
            attributes = {"groups": node.channels}
        return source.but(inputs=inputs, channels=node.channels, attributes=attributes, constants=constants)

    return rewritten(run, change)

"""Where stages put the same map through the same weights beside what changes, that part is computed once."""

from __future__ import annotations

from collections import defaultdict

import torch

from ..graph import Node, Run, Uses, rewritten
from .shared import Contents

GEOMETRY = ("kernel", "stride", "dilation", "maps")


def unchanging_sources(run: Run) -> Run:
    """conv([a, x_t]) for several t is conv(a), once, plus conv([x_t])."""
    contents = Contents()

    def key(node: Node) -> tuple | None:
        plain = node.op == "conv" and node["groups"] == 1 and not (node["adds"] or node["form"] or node["shuffle"])
        if not plain or (node["maps"] or 1) == 1:
            return None
        return contents(node.constants["weight"]), *(node[name] for name in GEOMETRY)

    groups: dict[tuple | None, list[Node]] = defaultdict(list)
    for node in run.nodes:
        groups[key(node)].append(node)
    unchanging: dict[tuple, list[int]] = {}
    for each, nodes in groups.items():
        if each is not None and len(nodes) > 1:
            count = nodes[0]["maps"]
            places = [at for at in range(count) if len({node.inputs[at] for node in nodes}) == 1]
            if 0 < len(places) < count:
                unchanging[each] = places

    def change(node: Node, uses: Uses) -> Node | None:
        places = unchanging.get(key(node) or ())
        if places is None:
            return None
        columns = node.constants["weight"].split([each.channels for each in node.inputs], 1)

        def part(places: list[int], **constants: torch.Tensor | None) -> Node:
            weight = torch.cat([columns[at] for at in places], 1)
            inputs = tuple(node.inputs[at] for at in places)
            constants = {"slope1": None, "weight": weight, **constants}
            return node.but(inputs=inputs, attributes={"act1": "none", "maps": len(places)}, constants=constants)

        same = part(places)
        moving = part([at for at in range(node["maps"]) if at not in places], bias=None)
        attributes = {"adds": True, "act2": node["act1"]}
        slope = {"slope2": node.constants.get("slope1")}
        return moving.but(inputs=(*moving.inputs, same), attributes=attributes, constants=slope)

    return rewritten(run, change)

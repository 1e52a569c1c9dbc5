"""Where stages put the same map through the same weights beside what changes, that part is computed once."""

from __future__ import annotations

from collections import defaultdict

from ..graph import Node, Run, rewritten
from .shared import Contents


def unchanging_sources(run: Run) -> Run:
    """conv([a, x_t]) for several t is conv(a), once, plus conv([x_t])."""
    contents = Contents()
    groups: dict[tuple, list[Node]] = defaultdict(list)
    for node in run.nodes:
        if node.op == "conv" and (node["maps"] or 1) > 1 and not node["adds"] and not node["form"]:
            groups[contents(node.constants["weight"]), node["maps"]].append(node)
    fixed: dict[tuple, set[int]] = {}
    for key, nodes in groups.items():
        places = {at for at in range(key[1]) if len({node.inputs[at] for node in nodes}) == 1}
        if len(nodes) > 1 and places and len(places) < key[1]:
            fixed[key] = places

    def change(node: Node, uses) -> Node | None:
        if node.op != "conv" or (node["maps"] or 1) < 2 or node["adds"] or node["form"]:
            return None
        places = fixed.get((contents(node.constants["weight"]), node["maps"]))
        if places is None:
            return None
        columns = node.constants["weight"].split([each.channels for each in node.inputs], 1)

        def part(of: list[int], bias: bool) -> Node:
            import torch

            constants = {"weight": torch.cat([columns[at] for at in of], 1)}
            kept = node.but(
                inputs=tuple(node.inputs[at] for at in of),
                attributes={"act1": "none", "maps": len(of)},
                constants=constants | ({} if bias else {"bias": None}) | {"slope1": None},
            )
            return kept

        same = part(sorted(places), True)
        moving = part([at for at in range(node["maps"]) if at not in places], False)
        slope = {"slope2": node.constants.get("slope1")}
        return moving.but(
            inputs=(*moving.inputs, same), attributes={"adds": True, "act2": node["act1"]}, constants=slope
        )

    return rewritten(run, change)

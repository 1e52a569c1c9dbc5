"""Which layers may be INT8: as many as the fidelity rule allows, the harmful ones first to go back.

All convolutions are quantised first. Where that is below the rule, each layer's harm is measured alone (it in INT8, all
others in fp32), and the fewest of the worst go back that bring the whole above the rule.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ...engine.errors import UnrainError
from ..fidelity import RULE, Fidelity, compare
from .quantise import calibrate, convolutions, quantised
from .run import session, walk

if TYPE_CHECKING:
    import onnx

MARGIN = 1.0  # dB above the rule: other pictures than the calibration's are to pass, too


class Quantised(NamedTuple):
    graph: onnx.ModelProto
    int8: list[str]  # layers in INT8
    kept: dict[str, float]  # convolutions that stay in higher precision: the dB each of them alone in INT8 gives
    fidelity: Fidelity  # of INT8 with everything else in fp32, on what it was calibrated on


def quantise(model: onnx.ModelProto, clips: Sequence[np.ndarray], beyond: Collection[str] = ()) -> Quantised:
    """The fp32 graph with as many convolutions in INT8 as the rule allows; nodes in `beyond` are left as they are.

    clips   pictures, clips of one frame, or for a graph with a state clips [T,3,H,W]: the rule is then kept with the
            state running, the INT8 graph's own
    """
    scales = calibrate(model, clips)
    layers = [
        layer
        for layer, nodes in convolutions(model).items()
        if not any(node.name in beyond for node in nodes) and all(np.isfinite(scales[node.input[0]]) for node in nodes)
    ]
    expected = _runner(model)

    def fidelity(some: Collection[str]) -> Fidelity:
        return compare(_runner(quantised(model, scales, some)), expected, clips, "int8")

    kept = _fewest_kept(layers, fidelity)
    int8 = [layer for layer in layers if layer not in kept]
    if not int8:
        raise UnrainError(f"no layer of this network can be INT8 and keep {RULE['int8']:.0f} dB; export it in fp16.")
    return Quantised(quantised(model, scales, int8), int8, kept, fidelity(int8))


def _fewest_kept(layers: Sequence[str], fidelity: Callable[[Collection[str]], Fidelity]) -> dict[str, float]:
    """The layers that must stay, with the dB that each alone would leave."""

    def passes(result: Fidelity) -> bool:
        return result.not_finite == 0 and result.decibels >= RULE["int8"] + MARGIN

    if passes(fidelity(layers)):
        return {}
    alone = {layer: fidelity([layer]).decibels for layer in layers}
    worst_first = sorted(layers, key=lambda layer: alone[layer])
    low, high = 1, len(layers)  # how many stay; keeping all passes
    while low < high:
        middle = (low + high) // 2
        if passes(fidelity(worst_first[middle:])):
            high = middle
        else:
            low = middle + 1
    return {layer: alone[layer] for layer in worst_first[:high]}


def _runner(model: onnx.ModelProto) -> Callable[[np.ndarray], np.ndarray]:
    run = session(model)
    return lambda clip: np.concatenate([found["derained"] for _, found in walk(model, run, ["derained"], clip)])

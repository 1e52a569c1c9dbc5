"""The gates of a GRU over pictures become `gru_gates`, its reset `gru_reset`; z and r come from one convolution."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import fx

from ....kernels import gru_gates
from ....kernels.gru_gates import gru_reset
from ..columns import Gate, check, columns, pre_activations
from ..edit import Writer, replace
from ..match import NoMatch, dtype, either, flat_sum, is_number, one, only, op, piece, same_shape, shape, two
from . import Found, Setup

WHAT = "GRU step"
HALF = (torch.float16, torch.bfloat16)


@dataclass
class Step:
    """h' = (1 - u) h + u q with u = sigmoid(z), or the other way round."""

    h_next: fx.Node
    z: fx.Node
    h: fx.Node
    q: fx.Node
    z_keeps: bool
    inside: set[fx.Node]
    activation: str = "none"
    candidate: fx.Node = field(init=False)
    after: tuple[fx.Node, fx.Node] | None = None  # r and what it resets, behind the candidate's convolution
    before: tuple[fx.Node, fx.Node] | None = None  # r and its product with h, before it
    gates: list[fx.Node] = field(default_factory=list)  # the sigmoids of z and r

    def __post_init__(self) -> None:
        self.candidate = self.q


def find(graph: fx.Graph, setup: Setup) -> list[Found]:
    steps = [step for node in graph.nodes if (step := _step(node)) is not None]
    return [Found(WHAT, step.h_next, lambda step=step: _rewrite(step, setup)) for step in steps]


def _step(node: fx.Node) -> Step | None:
    found = _weighed(node)
    if found is None:
        return None
    u, with_u, without, made = found
    z = one(u, "sigmoid")
    if z is None or not all(isinstance(each, fx.Node) for each in (with_u, without)):
        return None
    if not same_shape(node, u, with_u, without):
        return None
    for q, h, z_keeps in ((with_u, without, False), (without, with_u, True)):
        for name in ("tanh", "relu"):
            if one(q, name) is not None:
                return Step(node, z, h, q, z_keeps, {node, u, *made}, name, gates=[u])
    return None


def _weighed(node: fx.Node) -> tuple[fx.Node, fx.Node, fx.Node, list[fx.Node]] | None:
    """u, what is weighed by u, what is weighed by 1 - u, and the nodes between."""
    if op(node) == "lerp" and isinstance(node.args[2], fx.Node):
        without, with_u, u = node.args
        return u, with_u, without, []  # type: ignore[return-value]
    for first, second in either(two(node, "add")):
        for u, with_u in either(two(first, "mul")):
            for rest, without in either(two(second, "mul")):
                if isinstance(u, fx.Node) and _one_minus(rest) is u:
                    return u, with_u, without, [first, second, rest]
            difference = two(second, "mul") is None and two(with_u, "sub")
            if difference and difference[1] is second:  # h + u (q - h)
                return u, difference[0], second, [first, with_u]
    return None


def _one_minus(node: object) -> object:
    """x, of 1 - x."""
    for first, second in [two(node, "sub") or (None, None), (two(node, "rsub") or (None, None))[::-1]]:
        if is_number(first) and first == 1:
            return second
    return None


def _rewrite(step: Step, setup: Setup) -> str:
    if len(shape(step.h_next) or ()) != 4:
        raise NoMatch("it is no step over pictures [B, C, H, W]")
    _candidate(step)
    _reset_before(step)
    for node in step.inside - {step.h_next}:
        if not only(node, *step.inside):
            raise NoMatch("a gate is read by something else too")
    _check_types(step)
    inputs = [step.z, step.h, step.candidate, *(step.after or ()), *(step.before or ())[:1]]
    setup.safety.check(step.inside, inputs)

    z, r = _gates(step)
    if step.before is not None:
        product = step.before[1]
        replace(product, Writer(product)(gru_reset, r, step.h))
    after = () if step.after is None else (r, step.after[1])
    write = Writer(step.h_next)
    h_next = write(gru_gates, z, step.candidate, step.h, *after, z_keeps=step.z_keeps, activation=step.activation)
    replace(step.h_next, h_next)
    return "gru_gates" if step.before is None else "gru_gates, gru_reset"


def _candidate(step: Step) -> None:
    """What the candidate's nonlinearity is taken of, and the reset in it where it follows the convolution."""
    if not only(step.q, *step.inside):
        step.activation = "none"
        return
    step.inside.add(step.q)
    step.candidate = one(step.q, step.activation)
    for product, other in either(two(step.candidate, "add")):
        for gate, hidden in either(two(product, "mul")):
            r = one(gate, "sigmoid")
            fits = isinstance(other, fx.Node) and same_shape(step.candidate, other, gate, hidden)
            alone = only(step.candidate, step.q) and only(product, step.candidate) and only(gate, product)  # type: ignore[arg-type]
            if r is not None and fits and alone:
                step.inside |= {step.candidate, product, gate}
                step.gates.append(gate)
                step.candidate, step.after = other, (r, hidden)
                return


def _reset_before(step: Step) -> None:
    """sigmoid(r) h where the candidate's convolution reads it, perhaps beside other maps."""
    if step.after is not None:
        return
    for convolution in flat_sum(step.candidate, list(step.candidate.users))[0]:
        if op(convolution) != "conv2d":
            continue
        given = convolution.args[0]
        maps = given.args[0] if op(given) == "cat" else [given]  # type: ignore[union-attr]
        for each in maps:  # type: ignore[union-attr]
            for gate, state in either(two(each, "mul")):
                r = one(gate, "sigmoid")
                if state is step.h and r is not None and only(gate, each) and same_shape(gate, state, each):
                    if {dtype(r), dtype(each)} == {dtype(state)}:
                        step.gates.append(gate)
                        step.before = (r, each)
                    return


def _check_types(step: Step) -> None:
    given = {dtype(each) for each in (step.z, step.candidate, *(step.after or ()))}
    if len(given) > 1 or dtype(step.h) != dtype(step.h_next):
        raise NoMatch("its gates and its state are of several dtypes")
    (start,), end = given, dtype(step.h)
    if start != end and not (start in HALF and end == torch.float32):
        raise NoMatch(f"its gates are {start}, its state {end}")


def _gates(step: Step) -> tuple[fx.Node, fx.Node | None]:
    """z and r: from one convolution where two go over the same input, otherwise as they are."""
    r = (step.after or step.before or (None,))[0]
    if r is None or piece(r).source is piece(step.z).source:
        return step.z, r
    place = step.h_next if step.before is None else step.before[1]
    gates, absorbed = [], {*step.inside, *step.gates}
    for node, gate in zip((step.z, r), step.gates, strict=True):
        maps, number, additions = flat_sum(node, [gate])
        gates.append(Gate(maps, number))
        absorbed.update(additions)
    try:
        found = columns(gates, absorbed)
        check(found, absorbed)
        if not all(column.is_convolved for column in found):
            return step.z, r
    except NoMatch:
        return step.z, r
    read = {each for column in found for node in column.convolutions for each in node.all_input_nodes}
    if any(place < each for each in read):
        return step.z, r
    write = Writer(place)
    pre = pre_activations(write, gates, found, absorbed).whole(write)
    channels = shape(step.h)[1]  # type: ignore[index]
    z, r = write.parts(pre, [channels, channels], 1)
    return z, r

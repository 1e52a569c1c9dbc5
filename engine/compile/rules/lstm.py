"""The gates of an LSTM over pictures, with the convolutions before them, become `lstm_gates` or `conv_lstm`."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import fx

from ....kernels import conv_lstm, lstm_gates
from ..columns import Convolved, Gate, check, columns, pre_activations, setting
from ..edit import Writer, aten, replace
from ..match import NoMatch, argument, dtype, either, equal, flat_sum, one, only, op, piece, same_shape, shape, two
from ..trace import value
from . import Found, Setup

WHAT = "LSTM step"


@dataclass
class Step:
    """c' = sigmoid(f) * c + sigmoid(i) * tanh(g), and h = sigmoid(o) * tanh(c') where it follows."""

    c_next: fx.Node
    c: fx.Node
    pre: dict[str, fx.Node]  # what the nonlinearity of each gate is taken of
    inside: set[fx.Node] = field(default_factory=set)
    h: fx.Node | None = None


def find(graph: fx.Graph, setup: Setup) -> list[Found]:
    steps = [step for node in graph.nodes if (step := _step(node)) is not None]
    return [Found(WHAT, step.c_next, lambda step=step: _rewrite(step, setup)) for step in steps]


def _products(node: fx.Node) -> tuple[list[fx.Node], list[tuple[fx.Node, fx.Node]]] | None:
    """The two products of a sum, and the nodes that make them."""
    pair = two(node, "add")
    if pair and all(op(each) == "mul" for each in pair):
        return list(pair), [two(each, "mul") for each in pair]  # type: ignore[list-item]
    if op(node) == "addcmul" and argument(node, "value") == 1 and op(node.args[0]) == "mul":
        return [node.args[0]], [two(node.args[0], "mul"), (node.args[1], node.args[2])]  # type: ignore[list-item]
    return None


def _step(node: fx.Node) -> Step | None:
    found = _products(node)
    if found is None or None in found[1]:
        return None
    made, products = found
    for forget, new in (products, products[::-1]):
        for f, c in either(forget):
            for i, g in either(new):
                pre = {"f": one(f, "sigmoid"), "i": one(i, "sigmoid"), "g": one(g, "tanh")}
                if None not in pre.values() and isinstance(c, fx.Node) and same_shape(node, c, f, i, g):
                    step = Step(node, c, pre, {node, *made, f, i, g})
                    _output(step)
                    return step
    return None


def _output(step: Step) -> None:
    for user in step.c_next.users:
        if one(user, "tanh") is None or len(user.users) != 1:
            continue
        (h,) = user.users
        for o, t in either(two(h, "mul")):
            if t is user and one(o, "sigmoid") is not None and same_shape(o, h):
                step.h, step.pre["o"] = h, one(o, "sigmoid")
                step.inside |= {user, h, o}
                return


def _rewrite(step: Step, setup: Setup) -> str:
    if len(shape(step.c_next) or ()) != 4:
        raise NoMatch("it is no step over pictures [B, C, H, W]")
    if step.h is None:
        return _cell_alone(step, setup)
    ends = {step.c_next, step.h}
    for node in step.inside - ends:
        if not only(node, *step.inside):
            raise NoMatch("a gate is read by something else too")
    gates, peepholes = _gates(step)
    absorbed = set(step.inside)
    found = columns(gates, absorbed)
    check(found, absorbed)
    _check_types(step)
    inputs = [step.c, *(each for gate in gates for each in gate.maps), *peepholes]
    setup.safety.check(step.inside, inputs)
    if any(user < step.h for user in step.c_next.users if user not in step.inside):
        raise NoMatch("its state is used before its output is known")

    write = Writer(step.h)
    convolved = pre_activations(write, gates, found, absorbed)
    peephole = _peephole(write, step, peepholes)
    both = None if peephole is not None else _with_the_convolution(write, step, convolved, setup)
    name = "lstm_gates" if both is None else "conv_lstm"
    if both is None:
        pre = convolved.whole(write)
        if dtype(pre) != dtype(step.h):
            pre = write(aten.to.dtype, pre, dtype(step.h))
        if peephole is not None and dtype(peephole) != dtype(pre):
            peephole = write(aten.to.dtype, peephole, dtype(pre))
        both = write(lstm_gates, pre, step.c, peephole)
    h, c_next = write.item(both, 0), write.item(both, 1)
    replace(step.h, h)
    replace(step.c_next, c_next, step.inside)
    return name


def _gates(step: Step) -> tuple[list[Gate], list[fx.Node]]:
    """The four gates in our order, and their peepholes in the order i, f, o; none, or one for each."""
    gates, peepholes = [], []
    for name in "ifgo":
        node = step.pre[name]
        nonlinear = next(user for user in node.users if user in step.inside)
        maps, number, additions = flat_sum(node, [nonlinear])
        state = step.c_next if name == "o" else step.c
        for each in list(maps):
            for weight, by in either(two(each, "mul")):
                if (
                    by is state
                    and isinstance(weight, fx.Node)
                    and _is_peephole(weight, state)
                    and only(each, *additions)
                ):
                    maps.remove(each)
                    peepholes.append(weight)
                    step.inside.add(each)
                    break
        step.inside.update(additions)
        gates.append(Gate(maps, number))
    if len(peepholes) not in (0, 3):
        raise NoMatch("only some of its gates see the state")
    return gates, peepholes


def _is_peephole(weight: fx.Node, state: fx.Node) -> bool:
    given, whole = shape(weight), shape(state)
    if given is None or whole is None or len(given) not in (3, 4) or (len(given) == 4 and given[0] != 1):
        return False
    return given[-3] == whole[1] and (given[-2:] == (1, 1) or all(map(equal, given[-2:], whole[-2:])))


def _peephole(write: Writer, step: Step, weights: list[fx.Node]) -> fx.Node | None:
    if not weights:
        return None
    shapes = {tuple(map(str, shape(each)[-3:])) for each in weights}  # type: ignore[index]
    if len(shapes) > 1:
        raise NoMatch("its peepholes are of different shapes")
    return write.joined(
        [each if len(shape(each)) == 4 else write(aten.unsqueeze.default, each, 0) for each in weights], 0
    )  # type: ignore[arg-type]


def _check_types(step: Step) -> None:
    """One dtype, or half precision before the gates and float32 after them, as autocast has it."""
    assert step.h is not None
    before = {dtype(node) for node in step.pre.values()}
    after = {dtype(step.c), dtype(step.c_next), dtype(step.h)}
    if len(before) > 1 or len(after) > 1:
        raise NoMatch("its gates and states are of several dtypes")
    (start,), (end,) = before, after
    if start != end and not (start in (torch.float16, torch.bfloat16) and end == torch.float32):
        raise NoMatch(f"its gates are {start}, its states {end}")


def _with_the_convolution(write: Writer, step: Step, convolved: Convolved, setup: Setup) -> fx.Node | None:
    """`conv_lstm`, where one 3x3 convolution makes the gates; in training on a CPU `lstm_gates` is quicker, which does
    not convolve once more on the way back."""
    part = convolved.single
    channels = shape(step.c)[1]  # type: ignore[index]
    if part is None or part.how != ((1, 1), (1, 1), (1, 1)) or shape(part.weight)[2:] != (3, 3):  # type: ignore[index]
        return None
    if setup.autocast or (setup.gradients and value(step.c).device.type == "cpu"):
        return None
    if len(part.inputs) < 2 or len({dtype(each) for each in (*part.inputs, step.c, part.weight)}) > 1:
        return None
    *others, last = part.inputs
    weight = part.weight
    if shape(last)[1] != channels:  # type: ignore[index]
        last, *others = part.inputs
        if shape(last)[1] != channels:  # type: ignore[index]
            return None
        total = shape(weight)[1]  # type: ignore[index]
        weight = write.joined(write.parts(weight, [channels, total - channels], 1)[::-1], 1)
    return write(conv_lstm, write.joined(others, 1), last, step.c, weight, part.bias)


def _cell_alone(step: Step, setup: Setup) -> str:
    """A state without its output, as where the output gate looks at the new state through a convolution: the map of
    pre-activations still holds that gate's part, which is read from there."""
    for node in step.inside - {step.c_next}:
        if not only(node, *step.inside):
            raise NoMatch("a gate is read by something else too")
    gates, peepholes = _three_gates(step)
    if peepholes:
        raise NoMatch("its output gate is not computed here, and the others see the state")
    fourth, additions = _fourth(gates, step)
    gates.append(Gate(_maps(fourth), 0.0))
    absorbed = {*step.inside, *additions}
    found = columns(gates, absorbed)
    check(found, absorbed)
    setup.safety.check(step.inside, [step.c, *(each for gate in gates for each in gate.maps)])
    types = {dtype(node) for node in (*step.pre.values(), step.c, step.c_next)}
    if len(types) > 1:
        raise NoMatch("its gates and states are of several dtypes")
    place = min(step.c_next, fourth, key=setup.safety.place.__getitem__)
    late = [each for gate in gates for each in gate.maps if place < each and setting(each) is None]
    if late:
        raise NoMatch("its gates are not known where its state is needed")
    write = Writer(place)
    pre = pre_activations(write, gates, found, absorbed).whole(write)
    channels = shape(step.c)[1]  # type: ignore[index]
    output = write(aten.slice.Tensor, pre, 1, 3 * channels, 4 * channels)
    both = Writer(step.c_next)(lstm_gates, pre, step.c, None)
    replace(fourth, output)
    replace(step.c_next, Writer(step.c_next).item(both, 1))
    return "lstm_gates"


def _maps(node: fx.Node) -> list[fx.Node]:
    return flat_sum(node, list(node.users))[0]


def _three_gates(step: Step) -> tuple[list[Gate], list[fx.Node]]:
    gates = []
    for name in "ifg":
        node = step.pre[name]
        maps, number, additions = flat_sum(node, [user for user in node.users if user in step.inside])
        step.inside.update(additions)
        gates.append(Gate(maps, number))
    return gates, [each for gate in gates for each in gate.maps if two(each, "mul")]


def _fourth(gates: list[Gate], step: Step) -> tuple[fx.Node, list[fx.Node]]:
    """The sum that takes one more piece of every map that the three gates take pieces of."""
    sources = [{piece(each).source for each in gate.maps} for gate in gates]
    if any(each != sources[0] for each in sources):
        raise NoMatch("its gates are not made of the same maps")
    taken = {each for gate in gates for each in gate.maps}
    for node in step.c_next.graph.nodes:
        if op(node) != "add" or node in step.inside or not same_shape(node, step.c):
            continue
        maps, number, additions = flat_sum(node, list(node.users))
        if (
            number == 0
            and not taken & set(maps)
            and {piece(each).source for each in maps} == sources[0]
            and len(maps) == len(sources[0])
        ):
            return node, additions
    raise NoMatch("its output gate is not computed with the others")

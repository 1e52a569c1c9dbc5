"""The pre-activations of gates, however they were convolved and summed, as one map of gates in a given order.

A gate's pre-activation is a sum of maps. Each is a piece of a larger map (one convolution for all gates, then chunk) or
the result of a convolution of its own; a *column* is what belongs together over all gates: pieces of one map, or
convolutions of one input. Gates are brought into order in a convolution's weights, where it costs nothing, and two
convolutions whose results are added become one over both inputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

from torch import fx

from .edit import Writer, aten
from .match import NoMatch, Piece, argument, op, piece, readers, shape


class Setting(NamedTuple):
    stride: tuple[int, ...]
    padding: Any
    dilation: tuple[int, ...]


class Gate(NamedTuple):
    """One gate's pre-activation: maps to be added, a number to be added, and the additions that did it."""

    maps: list[fx.Node]
    number: float


@dataclass
class Column:
    """What one map or one input gives to every gate."""

    pieces: list[Piece]  # in the order of the gates

    @property
    def convolutions(self) -> list[fx.Node]:
        return list(dict.fromkeys(each.source for each in self.pieces))

    @property
    def is_convolved(self) -> bool:
        return setting(self.pieces[0].source) is not None


def setting(node: fx.Node) -> Setting | None:
    """How a plain convolution in two dimensions goes over its input; None for everything else."""
    if op(node) not in ("conv2d",) or argument(node, "groups") != 1 or len(shape(node) or ()) != 4:
        return None
    padding = argument(node, "padding")
    return Setting(
        _two(argument(node, "stride")),
        padding if isinstance(padding, str) else _two(padding),
        _two(argument(node, "dilation")),
    )


def _two(number: Any) -> tuple[int, ...]:
    return (number, number) if isinstance(number, int) else tuple(number) * (2 // len(number))


def columns(gates: Sequence[Gate], absorbed: set[fx.Node]) -> list[Column]:
    """The columns of these gates; their convolutions join the `absorbed` where nobody else reads them."""
    tables = [_by_key(gate) for gate in gates]
    if any(set(table) != set(tables[0]) for table in tables):
        raise NoMatch("its gates are not made of the same maps")
    found = [Column([table[key] for table in tables]) for key in tables[0]]
    for column in found:
        if column.is_convolved:
            absorbed.update(column.convolutions)
    return found


def _by_key(gate: Gate) -> dict[Any, Piece]:
    table: dict[Any, Piece] = {}
    for each in gate.maps:
        part = piece(each)
        how = setting(part.source)
        key = part.source if how is None else (part.source.args[0], how, shape(part.source.args[1])[2:])  # type: ignore[index]
        if key in table:
            raise NoMatch("a gate takes two pieces of one map")
        table[key] = part
    return table


def pre_activations(write: Writer, gates: Sequence[Gate], found: Sequence[Column], inside: set[fx.Node]) -> Convolved:
    """What makes the gates, side by side along the channels; `inside` are the nodes of the pattern that go."""
    groups: dict[Any, list[Column]] = {}
    plain: list[Column] = []
    for column in found:
        if not column.is_convolved:
            plain.append(column)
            continue
        first = column.pieces[0].source
        sides = tuple(map(str, shape(first.args[0])[2:]))  # type: ignore[index]
        groups.setdefault((setting(first), shape(first.args[1])[2:], sides), []).append(column)  # type: ignore[index]
    numbers = [gate.number for gate in gates]
    parts: list[Any] = [_Part(write, group, inside) for group in groups.values()]
    maps = [_whole(column) for column in plain]
    if any(numbers) and parts:
        parts[0].add(numbers)
    elif any(numbers):
        maps[0] = write(aten.add.Tensor, maps[0], _numbers(write, maps[0], numbers))
    return Convolved(parts, maps)


def _numbers(write: Writer, like: fx.Node, numbers: Sequence[float]) -> fx.Node:
    """One number for each gate, to be added to a map of all gates."""
    size = shape(like)[1] // len(numbers)  # type: ignore[index]
    return write.joined([write(aten.new_full.default, like, [size, 1, 1], number) for number in numbers], 0)


def check(found: Sequence[Column], inside: set[fx.Node]) -> None:
    """Raises NoMatch where `pre_activations` would cost more than it saves; nothing is written yet."""
    for column in found:
        if not column.is_convolved:
            _whole(column)
            continue
        if len({each.source.args[0] for each in column.pieces}) > 1:
            raise NoMatch("its gates are convolved from different inputs")
        for convolution in column.convolutions:
            taken = _taken(column, convolution)
            for reader in readers(convolution):
                if reader in inside:
                    continue
                for used in reader.all_input_nodes:
                    part = piece(used)
                    if part.source is convolution and any(
                        a < part.start + part.count and part.start < b for a, b in taken
                    ):
                        raise NoMatch("a pre-activation is read by something else too")


def _taken(column: Column, convolution: fx.Node) -> list[tuple[int, int]]:
    return [(each.start, each.start + each.count) for each in column.pieces if each.source is convolution]


def _whole(column: Column) -> fx.Node:
    source, at = column.pieces[0].source, 0
    for each in column.pieces:
        if each.source is not source or each.start != at:
            raise NoMatch("its gates lie in another order, and no convolution could bring them into ours")
        at += each.count
    if at != shape(source)[1]:  # type: ignore[index]
        raise NoMatch("its gates are only a part of a map that no convolution makes")
    return source


class _Part:
    """One convolution of the result: inputs side by side, weights in the order of the gates."""

    def __init__(self, write: Writer, group: Sequence[Column], inside: set[fx.Node]) -> None:
        self.write = write
        first = group[0].pieces[0].source
        self.how = setting(first)
        self.size = group[0].pieces[0].count
        self.inputs: list[fx.Node] = []
        weights, biases = [], []
        for column in group:
            rows = _Rows(write, column, inside)
            self.inputs += _parts_of(column.pieces[0].source.args[0])
            weights.append(rows.weight)
            biases += [] if rows.bias is None else [rows.bias]
        self.weight = write.joined(weights, 1)
        self.bias = write.sum(biases) if biases else None

    def add(self, numbers: Sequence[float]) -> None:
        write = self.write
        sizes = [self.size] * len(numbers)
        if self.bias is None:
            rows = shape(self.weight)[0]  # type: ignore[index]
            self.bias = write(aten.new_zeros.default, self.weight, [rows])
        parts = write.parts(self.bias, sizes)
        self.bias = write.joined(
            [
                write(aten.add.Tensor, part, number) if number else part
                for part, number in zip(parts, numbers, strict=True)
            ],
            0,
        )

    def convolved(self) -> fx.Node:
        how = self.how
        assert how is not None
        x = self.write.joined(self.inputs, 1)
        function = aten.conv2d.padding if isinstance(how.padding, str) else aten.conv2d.default
        padding = how.padding if isinstance(how.padding, str) else list(how.padding)
        return self.write(function, x, self.weight, self.bias, list(how.stride), padding, list(how.dilation), 1)


class Convolved:
    def __init__(self, parts: Sequence[_Part], plain: Sequence[fx.Node]) -> None:
        self.parts, self.plain = parts, plain

    @property
    def single(self) -> _Part | None:
        """The one convolution that makes all of it."""
        return self.parts[0] if len(self.parts) == 1 and not self.plain else None

    def whole(self, write: Writer) -> fx.Node:
        return write.sum([*(part.convolved() for part in self.parts), *self.plain])


def _parts_of(node: Any) -> list[fx.Node]:
    """What a concatenation that only convolutions read puts side by side."""
    if op(node) == "cat" and argument(node, "dim") in (1, -3) and all(op(user) == "conv2d" for user in node.users):
        return list(node.args[0])
    return [node]


class _Rows:
    """The rows of weights and biases of one column in the order of its gates."""

    def __init__(self, write: Writer, column: Column, inside: set[fx.Node]) -> None:
        self.write = write
        cut = {each: self._cut(column, each, inside) for each in column.convolutions}
        self.weight = self._gathered(column, {each: rows[0] for each, rows in cut.items()}, 1)
        biases = {each: rows[1] for each, rows in cut.items()}
        if all(each is None for each in biases.values()):
            self.bias = None
        else:
            for each, rows in biases.items():
                if rows is None:
                    weight = each.args[1]
                    whole = write(aten.new_zeros.default, weight, [shape(weight)[0]])
                    biases[each] = self._pieces(column, each, whole)
            self.bias = self._gathered(column, biases, 0)

    def _gathered(self, column: Column, cut: dict[fx.Node, Any], axis: int) -> fx.Node:
        sources = column.convolutions
        if len(sources) == 1 and [each.start for each in column.pieces] == sorted(each.start for each in column.pieces):
            whole = cut[sources[0]].get("whole")
            if whole is not None:
                return whole
        return self.write.joined([cut[each.source][each.start] for each in column.pieces], 0)

    def _cut(self, column: Column, convolution: fx.Node, inside: set[fx.Node]) -> tuple[Any, Any]:
        weight, bias = convolution.args[1], argument(convolution, "bias")
        rows = self._pieces(column, convolution, weight)
        biases = None if bias is None else self._pieces(column, convolution, bias)
        if rows.get("rest"):
            _leave_the_rest(convolution, rows["rest"], biases and biases["rest"], _taken(column, convolution), inside)
        return rows, biases

    def _pieces(self, column: Column, convolution: fx.Node, of: Any) -> dict[Any, Any]:
        """`of` by the starts of the pieces that the gates take, and what they leave."""
        taken = sorted(_taken(column, convolution))
        total = shape(of)[0]  # type: ignore[index]
        bounds = sorted({0, total, *(each for pair in taken for each in pair)})
        found: dict[Any, Any] = {"rest": []}
        covered = sum(end - start for start, end in taken) == total
        if covered and len(column.convolutions) == 1:
            found["whole"] = of
            if [each.start for each in column.pieces] == [start for start, _ in taken]:
                return found
        cut = self.write.parts(of, [end - start for start, end in pairwise(bounds)])
        for start, part in zip(bounds, cut, strict=False):
            if any(start == begin for begin, _ in taken):
                found[start] = part
            else:
                found["rest"].append(part)
        return found


def _leave_the_rest(
    convolution: fx.Node,
    weights: Sequence[fx.Node],
    biases: Any,
    taken: Sequence[tuple[int, int]],
    inside: set[fx.Node],
) -> None:
    """What gates do not take of a convolution becomes one of its own, for whoever reads those pieces."""
    others = [each for each in _piece_nodes(convolution) if not _is_taken(piece(each), taken)]
    if not others:
        return
    write = Writer(convolution)
    # the cut weights were written where the gates are; here they are needed earlier
    for each in (*weights, *(biases or ())):
        _move_before(each, convolution)
    weight = write.joined(list(weights), 0)
    bias = write.joined(list(biases), 0) if biases else None
    args = list(convolution.args)
    args[1] = weight
    if len(args) > 2:
        args[2] = bias
    rest = write(convolution.target, *args, **convolution.kwargs)  # type: ignore[arg-type]
    for each in others:
        part = piece(each)
        start = part.start - sum(end - begin for begin, end in taken if begin < part.start)
        with rest.graph.inserting_before(each):
            new = Writer(each)(aten.slice.Tensor, rest, 1, start, start + part.count)
        each.replace_all_uses_with(new)


def _is_taken(part: Piece, taken: Sequence[tuple[int, int]]) -> bool:
    return any(begin <= part.start < end for begin, end in taken)


def _piece_nodes(convolution: fx.Node) -> list[fx.Node]:
    found = []
    for user in convolution.users:
        if op(user) in ("chunk", "split", "split_with_sizes", "tensor_split"):
            found += list(user.users)
        elif op(user) in ("slice", "narrow"):
            found.append(user)
    return found


def _move_before(node: fx.Node, place: fx.Node) -> None:
    for each in node.all_input_nodes:
        if each.op != "placeholder" and each.target is not None and each in node.graph.nodes and _is_after(each, place):
            _move_before(each, place)
    if _is_after(node, place):
        place.prepend(node)


def _is_after(node: fx.Node, place: fx.Node) -> bool:
    return place < node

"""Reading and updating a memory by cosine similarity becomes `memory_read` and `memory_update`."""

from __future__ import annotations

from typing import Any

from torch import fx

from ....kernels import memory_read, memory_update
from ....kernels.memory_read.reference import SMALLEST_NORM
from ..edit import Writer, aten, replace
from ..match import NoMatch, argument, dtype, either, only, op, shape, two
from . import Found, Setup


def find(graph: fx.Graph, setup: Setup) -> list[Found]:
    found = []
    for node in graph.nodes:
        if op(node) in ("matmul", "mm") and _softmax(node.args[0], -1) is not None:
            found.append(Found("memory read", node, lambda node=node: _read(node, setup)))
        elif _normalised(node) is not None and _update_sum(_normalised(node)) is not None:
            found.append(Found("memory update", node, lambda node=node: _update(node, setup)))
    return found


def _read(node: fx.Node, setup: Setup) -> str:
    weights, items = node.args
    scores = _softmax(weights, -1)
    query, keys = _cosine(scores)
    if items not in (keys, _normalised(keys)):
        raise NoMatch("what it reads are not the items that it compares with")
    items = _normalised(keys) if items is not keys else keys
    _check(setup, {node, weights, scores}, [query, items])  # type: ignore[list-item]
    if not only(scores, weights):  # type: ignore[arg-type]
        raise NoMatch("its scores are read by something else too, and have to be made anyway")
    others = not only(weights, node)  # type: ignore[arg-type]
    if any(len(shape(each) or ()) not in (2, len(shape(query) or ())) for each in (node, weights)):
        raise NoMatch("its results are of another shape than its queries")
    query = _normalised(query) if _plain_rows(query) else query
    write = Writer(weights)  # type: ignore[arg-type]
    if weights < items:  # type: ignore[operator]
        raise NoMatch("its items are not known where its weights are needed")
    rows = query if len(shape(query) or ()) == 2 else write(aten.reshape.default, query, [-1, shape(query)[-1]])  # type: ignore[index]
    made = write(memory_read, rows, items, others)
    if others:
        replace(weights, _shaped(write, write.item(made, 1), weights, query))
    replace(node, _shaped(write, write.item(made, 0) if others else made, node, query))
    return "memory_read"


def _shaped(write: Writer, rows: fx.Node, like: fx.Node, query: fx.Node) -> fx.Node:
    """Rows as the original has them, which may be those of a map."""
    if len(shape(like) or ()) == 2:
        return rows
    return write(aten.reshape.default, rows, _like(write, query, shape(like)[-1]))  # type: ignore[index]


def _like(write: Writer, query: Any, last: int) -> list[Any]:
    """The sizes of the query with another number at the end; symbolic ones are read when it runs."""
    sizes = shape(query)
    assert sizes is not None
    return [
        each if isinstance(each, int) else write(aten.sym_size.int, query, axis) for axis, each in enumerate(sizes[:-1])
    ] + [last]


def _update(node: fx.Node, setup: Setup) -> str:
    weights, query, items = _update_sum(_normalised(node))  # type: ignore[misc]
    scores = _softmax(weights, 0)
    compared, keys = _cosine(scores)
    if query not in (compared, _normalised(compared)) or items not in (keys, _normalised(keys)):
        raise NoMatch("what it takes in are not the queries and items that it compares")
    if not only(scores, weights):  # type: ignore[arg-type]
        raise NoMatch("its scores are read by something else too, and have to be made anyway")
    if len(shape(query) or ()) != 2:
        raise NoMatch("its queries are no rows [N, C]")
    _check(setup, {node, weights, scores}, [query, items])  # type: ignore[list-item]
    replace(node, Writer(node)(memory_update, query, items, "soft"))
    return "memory_update"


def _check(setup: Setup, inside: set[fx.Node], inputs: list[fx.Node]) -> None:
    if len({dtype(each) for each in (*inside, *inputs)}) > 1 or setup.autocast:
        raise NoMatch("it is computed in several dtypes")
    setup.safety.check(inside, inputs)


def _softmax(node: Any, axis: int) -> Any:
    """The scores that a softmax along this axis is taken of."""
    if op(node) != "softmax" or argument(node, "dtype") is not None:
        return None
    rank = len(shape(node) or ())
    return node.args[0] if argument(node, "dim") % rank == axis % rank else None


def _cosine(scores: Any) -> tuple[fx.Node, fx.Node]:
    """The rows of length one, of queries and of items, that the scores are the products of."""
    pair = None
    while op(scores) in ("view", "reshape") and shape(scores)[-1] == shape(scores.args[0])[-1]:  # type: ignore[index]
        scores = scores.args[0]
    if op(scores) in ("matmul", "mm") and _transposed(scores.args[1]) is not None:
        pair = scores.args[0], _transposed(scores.args[1])
    elif op(scores) == "linear" and argument(scores, "bias") is None:
        pair = scores.args[0], scores.args[1]
    if pair is None or not all(isinstance(each, fx.Node) and _has_unit_rows(each) for each in pair):
        raise NoMatch("its scores are no cosines: queries or items are not normalised here")
    return pair  # type: ignore[return-value]


def _transposed(node: Any) -> Any:
    if op(node) in ("t", "numpy_T") or (op(node) == "transpose" and {each % 2 for each in node.args[1:]} == {0, 1}):
        return node.args[0] if len(shape(node) or ()) == 2 else None
    if op(node) == "permute" and list(node.args[1]) == [1, 0]:
        return node.args[0]
    return None


def _norm_axis(node: Any) -> int | None:
    """Along which axis F.normalize made lengths of one."""
    pair = two(node, "div")
    if pair is None or not isinstance(pair[1], fx.Node):
        return None
    below = pair[1]
    if op(below) in ("expand", "expand_as"):
        below = below.args[0]  # type: ignore[assignment]
    if op(below) not in ("clamp_min", "clamp") or float(below.args[1]) != SMALLEST_NORM:  # type: ignore[arg-type]
        return None
    norm = below.args[0]
    if op(norm) not in ("norm", "linalg_vector_norm") or norm.args[0] is not pair[0]:  # type: ignore[union-attr]
        return None
    power = norm.args[1] if len(norm.args) > 1 else 2  # type: ignore[union-attr]
    axes = argument(norm, "dim")  # type: ignore[arg-type]
    if power != 2 or axes is None or len(axes) != 1 or not argument(norm, "keepdim"):  # type: ignore[arg-type]
        return None
    return axes[0] % len(shape(node) or (0,))


def _normalised(node: Any) -> Any:
    """What F.normalize was called on."""
    return node.args[0] if _norm_axis(node) is not None else None


def _plain_rows(node: fx.Node) -> bool:
    axis = _norm_axis(node)
    return axis is not None and axis == len(shape(node) or ()) - 1


def _has_unit_rows(node: fx.Node) -> bool:
    """Whether a tensor is of length one along its last axis, which it may have been brought to since."""
    axis = len(shape(node) or ()) - 1
    while _norm_axis(node) is None:
        if op(node) == "permute":
            axis = node.args[1][axis] % len(node.args[1])  # type: ignore[index,arg-type]
        elif op(node) in ("view", "reshape"):
            if axis != len(shape(node)) - 1 or shape(node)[-1] != shape(node.args[0])[-1]:  # type: ignore[arg-type,index]
                return False
            axis = len(shape(node.args[0])) - 1  # type: ignore[arg-type]
        elif op(node) not in ("contiguous", "clone"):
            return False
        node = node.args[0]  # type: ignore[assignment]
    return _norm_axis(node) == axis


def _update_sum(node: Any) -> tuple[Any, Any, Any] | None:
    """Weights, queries and items of the sum that an update normalises."""
    for product, items in either(two(node, "add")):
        if op(product) in ("matmul", "mm") and _softmax(_transposed(product.args[0]), 0) is not None:
            return _transposed(product.args[0]), product.args[1], items
    return None

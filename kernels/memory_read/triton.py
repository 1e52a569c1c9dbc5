"""`memory_read` in Triton: norms, cosine scores, softmax over the items and weighted sum of a block of queries at once.

Layout    rows: query [N,C] and items [M,C], row-major.
Tiling    one program per block of queries with all M items (up to 128, a compile-time constant); C passes by in slices
          of 16, once for the scores and once for the output, so registers hold [queries, items] alone, whatever C.
          The second pass over a slice finds it in L1 or L2. The N x M scores never reach memory.
Softmax   cosines lie in [-1, 1], so their exponentials need no maximum taken off first.
Backward  one kernel: at most 256 programs, each walks its blocks of queries in order, writes their gradient, and adds
          the items' gradient to a partial [M,C] of its own; `sum_rows` adds the partials in order.
Bytes     forward 2s per element of query (s bytes of storage), backward 3s and the partials (256 M C floats at most).
Bound     memory for C = 64 and M = 20 (4 M flops for 2s bytes); the launch below some 10,000 queries.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from ..registry import Call
from ..triton_aot import Grid, KernelSpec
from ..triton_common import NAMES, available, dot, exp, on_its_device, refuse, sum_rows, sum_rows_specs
from .reference import SMALLEST_NORM

__all__ = ["available", "backward", "can_run", "forward", "specs"]

MOST_ITEMS = 128
CHUNKS = 256  # programs of a backward pass, at most: a fixed number, so that sums are the same on every GPU
SLICE = 16
WARPS = 8
QUERIES_GRID = Grid("count / BLOCK_N")
CHUNKS_GRID = Grid("count / rows_per_chunk")
_SMALLEST = tl.constexpr(SMALLEST_NORM)


def can_run(call: Call) -> str | None:
    if call.detail[1] > MOST_ITEMS:
        return f"{call.detail[1]} items are more than the {MOST_ITEMS} whose scores fit registers"
    return refuse(call)


@triton.jit
def load_slice(ptr, row, rows, start, C: tl.constexpr, SLICE: tl.constexpr):
    """[rows, SLICE] in float32 from column `start` on; what does not exist is zero."""
    column = start + tl.arange(0, SLICE)
    inside = (row < rows)[:, None] & (column < C)[None, :]
    return tl.load(ptr + row.to(tl.int64)[:, None] * C + column[None, :], mask=inside, other=0.0).to(tl.float32)


@triton.jit
def store_slice(ptr, values, row, rows, start, C: tl.constexpr, SLICE: tl.constexpr):
    column = start + tl.arange(0, SLICE)
    inside = (row < rows)[:, None] & (column < C)[None, :]
    tl.store(ptr + row.to(tl.int64)[:, None] * C + column[None, :], values.to(ptr.dtype.element_ty), mask=inside)


@triton.jit
def length(squares):
    """At least SMALLEST_NORM, as it divides; NaN stays NaN."""
    norm = tl.sqrt_rn(squares)
    return tl.where(norm < _SMALLEST, _SMALLEST, norm)


@triton.jit
def cosines(query_ptr, items_ptr, row, count, index, M: tl.constexpr, C: tl.constexpr, SLICE: tl.constexpr):
    """Scores [queries, items], and the lengths of the queries and of the items."""
    scores = tl.zeros((row.shape[0], index.shape[0]), tl.float32)
    query_squares = tl.zeros((row.shape[0],), tl.float32)
    item_squares = tl.zeros((index.shape[0],), tl.float32)
    for start in tl.range(0, C, SLICE):
        query = load_slice(query_ptr, row, count, start, C, SLICE)
        item = load_slice(items_ptr, index, M, start, C, SLICE)
        scores = dot(query, tl.trans(item), scores)
        query_squares += tl.sum(query * query, 1)
        item_squares += tl.sum(item * item, 1)
    query_length = length(query_squares)
    item_length = length(item_squares)
    return scores / query_length[:, None] / item_length[None, :], query_length, item_length


@triton.jit
def products(left_ptr, right_ptr, row, count, index, M: tl.constexpr, C: tl.constexpr, SLICE: tl.constexpr):
    """[rows, items]: each row of left times each row of right."""
    found = tl.zeros((row.shape[0], index.shape[0]), tl.float32)
    for start in tl.range(0, C, SLICE):
        left = load_slice(left_ptr, row, count, start, C, SLICE)
        found = dot(left, tl.trans(load_slice(right_ptr, index, M, start, C, SLICE)), found)
    return found


@triton.jit
def along(grad_scores, scores, lengths, axis: tl.constexpr):
    """What a row's own direction takes of its gradient: (sum of grad_i unit_i) . unit is the sum of grad_i score_i.

    A row of zeros has no direction.
    """
    return tl.where(lengths <= _SMALLEST, 0.0, tl.sum(grad_scores * scores, axis))


@triton.jit
def add_to_partial(partial_ptr, values, index, start, first, M: tl.constexpr, C: tl.constexpr, SLICE: tl.constexpr):
    """Adds to this program's own partial sum, which its first block of queries starts."""
    column = start + tl.arange(0, SLICE)
    begun = tl.where(first, 0, M)  # not `inside & (first == 0)`: the interpreter of triton 3.9 spreads no single bit
    inside = column[None, :] < C
    at = partial_ptr + index[:, None] * C + column[None, :]
    before = tl.load(at, mask=(index < begun)[:, None] & inside, other=0.0)
    tl.store(at, before + values, mask=(index < M)[:, None] & inside)


@triton.jit
def memory_read_forward(
    query_ptr, items_ptr, read_ptr, weights_ptr, count,
    M: tl.constexpr, C: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_M: tl.constexpr, SLICE: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    index = tl.arange(0, BLOCK_M)
    scores, _query_length, _item_length = cosines(query_ptr, items_ptr, row, count, index, M, C, SLICE)
    raised = tl.where((index < M)[None, :], exp(scores), 0.0)
    weights = raised / tl.sum(raised, 1)[:, None]
    for start in tl.range(0, C, SLICE):
        read = tl.zeros((BLOCK_N, SLICE), tl.float32)
        read = dot(weights, load_slice(items_ptr, index, M, start, C, SLICE), read)
        store_slice(read_ptr, read, row, count, start, C, SLICE)
    if weights_ptr is not None:
        inside = (row < count)[:, None] & (index < M)[None, :]
        at = weights_ptr + row[:, None] * M + index[None, :]
        tl.store(at, weights.to(weights_ptr.dtype.element_ty), mask=inside)


@triton.jit
def memory_read_backward(
    grad_read_ptr, grad_weights_ptr, query_ptr, items_ptr, d_query_ptr, partial_ptr, count, rows_per_chunk,
    M: tl.constexpr, C: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_M: tl.constexpr, SLICE: tl.constexpr,
):  # fmt: skip
    chunk = tl.program_id(0).to(tl.int64)
    index = tl.arange(0, BLOCK_M)
    partial_ptr += chunk * (M * C)
    begin = chunk * rows_per_chunk
    stop = tl.minimum(begin + rows_per_chunk, count)
    place = begin
    while place < stop:
        row = place + tl.arange(0, BLOCK_N)
        inside = (row < count)[:, None] & (index < M)[None, :]
        scores, query_length, item_length = cosines(query_ptr, items_ptr, row, count, index, M, C, SLICE)
        raised = tl.where((index < M)[None, :], exp(scores), 0.0)
        weights = raised / tl.sum(raised, 1)[:, None]
        grad_weights = products(grad_read_ptr, items_ptr, row, count, index, M, C, SLICE)
        if grad_weights_ptr is not None:
            at = grad_weights_ptr + row[:, None] * M + index[None, :]
            grad_weights += tl.load(at, mask=inside, other=0.0).to(tl.float32)
        grad_scores = weights * (grad_weights - tl.sum(weights * grad_weights, 1)[:, None])
        weights = tl.where(inside, weights, 0.0)
        grad_scores = tl.where(inside, grad_scores, 0.0)
        query_along = along(grad_scores, scores, query_length, 1) / query_length
        item_along = along(grad_scores, scores, item_length, 0) / item_length
        to_query = grad_scores / item_length[None, :]
        to_item = tl.trans(grad_scores / query_length[:, None])
        for start in tl.range(0, C, SLICE):
            query = load_slice(query_ptr, row, count, start, C, SLICE)
            item = load_slice(items_ptr, index, M, start, C, SLICE)
            d_query = dot(to_query, item, -query * query_along[:, None]) / query_length[:, None]
            store_slice(d_query_ptr, d_query, row, count, start, C, SLICE)
            d_item = dot(to_item, query, -item * item_along[:, None]) / item_length[:, None]
            d_item = dot(tl.trans(weights), load_slice(grad_read_ptr, row, count, start, C, SLICE), d_item)
            add_to_partial(partial_ptr, d_item, index, start, place == begin, M, C, SLICE)
        tl.debug_barrier()  # the next block adds to what other threads of this program wrote
        place += BLOCK_N


@on_its_device
def forward(out, query, items, _want_weights) -> None:
    read, weights = out
    if query.numel():
        blocks = tile(items.shape[0], items.shape[1])
        memory_read_forward[QUERIES_GRID(count=query.shape[0], **blocks)](
            query, items, read, weights, query.shape[0], **blocks, num_warps=WARPS
        )


@on_its_device
def backward(out, grad_read, grad_weights, query, items) -> None:
    d_query, d_items = out
    if query.shape[0] == 0:
        d_items.zero_()
        return
    blocks = tile(items.shape[0], items.shape[1])
    rows = rows_per_chunk(query.shape[0], blocks["BLOCK_N"])
    grid = CHUNKS_GRID(count=query.shape[0], rows_per_chunk=rows)
    partial = torch.empty(*grid, items.numel(), dtype=torch.float32, device=query.device)
    memory_read_backward[grid](
        grad_read, grad_weights, query, items, d_query, partial, query.shape[0], rows, **blocks, num_warps=WARPS
    )
    sum_rows(partial, d_items)


def tile(items: int, columns: int) -> dict[str, int]:
    wide = max(triton.next_power_of_2(items), 16)
    return {"M": items, "C": columns, "BLOCK_N": max(min(64, 2048 // wide), 16), "BLOCK_M": wide, "SLICE": SLICE}


def rows_per_chunk(count: int, block: int) -> int:
    """Whole blocks, by the number of rows alone, so that sums are reproducible."""
    return triton.cdiv(triton.cdiv(count, block), CHUNKS) * block


# (M, C): the memory of the time-lapse net, and the largest.
SHAPES = ((20, 64), (MOST_ITEMS, 512))


def specs(arch: int) -> list[KernelSpec]:
    """The same on every architecture."""
    found = sum_rows_specs("memory_read", columns=20 * 64)
    for fn, grid in ((memory_read_forward, QUERIES_GRID), (memory_read_backward, CHUNKS_GRID)):
        for name in NAMES.values():
            for items, columns in SHAPES:
                types = dict.fromkeys(fn.arg_names, f"*{name}:16") | {"partial_ptr": "*fp32:16"}
                types |= {"count": "i32", "rows_per_chunk": "i32:16"}
                constants = tile(items, columns) | {"weights_ptr": None, "grad_weights_ptr": None}
                title = f"{fn.__name__}_{items}x{columns}_{name}"
                found.append(KernelSpec.of(title, "memory_read", fn, grid, types, constants, WARPS))
    return found

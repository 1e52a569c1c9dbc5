"""`memory_update` in Triton: the softmax over all queries, the weighted sums of them, and the normalisation.

Layout    rows: query [N,C] and items [M,C], row-major.
Tiling    at most 256 programs, each walks its blocks of queries in order with all M items (up to 128) and adds raised
          scores times queries to a partial [M,C] of its own, slice by slice of C; `sum_rows` adds the partials in order
          and a small kernel scales, adds the old items and normalises. N x M scores never reach memory.
Softmax   cosines lie in [-1, 1]: their exponentials are summed as they come, and divided once at the end. The hard
          rule divides by the exponential of an item's highest score instead, and a query counts for one item alone.
Backward  the sums are made again; then a second walk writes the gradient of the queries and partial ones of the items.
Bytes     2s per element of query forward (s bytes of storage; the second pass over a slice comes from cache), 5s
          backward; partials of 256 M C floats at most.
Bound     memory, or at the paper's 16,384 queries the three launches.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from ..memory_read.triton import (
    CHUNKS,
    CHUNKS_GRID,
    SHAPES,
    SLICE,
    WARPS,
    add_to_partial,
    along,
    can_run,
    cosines,
    length,
    load_slice,
    products,
    rows_per_chunk,
    store_slice,
    tile,
)
from ..triton_aot import Grid, KernelSpec
from ..triton_common import NAMES, available, dot, exp, on_its_device, sum_rows, sum_rows_specs

__all__ = ["available", "backward", "can_run", "forward", "specs"]

ITEMS = 16  # items of a program where one walks over items instead of queries
ITEMS_GRID = Grid("M / ITEMS")


@triton.jit
def _highest(scores):
    """Scores for comparisons: NaN counts as the highest, as it does in PyTorch."""
    return tl.where(scores != scores, float("inf"), scores)


@triton.jit
def _taking(scores, inside, index, HARD: tl.constexpr):
    """Which item takes in which query: all of them, or under the hard rule a query's nearest item alone."""
    if HARD:
        candidates = tl.where(inside, _highest(scores), float("-inf"))
        nearest = tl.argmax(candidates, 1, tie_break_left=True)
        inside = inside & (index[None, :] == nearest[:, None])
    return inside


@triton.jit
def memory_update_scan(
    query_ptr, items_ptr, partial_ptr, level_ptr, nearest_ptr, count, rows_per_chunk,
    HARD: tl.constexpr, M: tl.constexpr, C: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_M: tl.constexpr,
    SLICE: tl.constexpr,
):  # fmt: skip
    """Per chunk and item the sum of raised scores times queries, and the level: the sum of the raised scores, or under
    the hard rule the highest score and the first query that has it."""
    chunk = tl.program_id(0).to(tl.int64)
    index = tl.arange(0, BLOCK_M)
    partial_ptr += chunk * (M * C)
    begin = chunk * rows_per_chunk
    stop = tl.minimum(begin + rows_per_chunk, count)
    level = tl.full((BLOCK_M,), float("-inf") if HARD else 0.0, tl.float32)
    nearest = tl.zeros((BLOCK_M,), tl.int32)  # counted from the chunk's beginning: half the registers of int64
    place = begin
    while place < stop:
        row = place + tl.arange(0, BLOCK_N)
        inside = (row < count)[:, None] & (index < M)[None, :]
        scores, _query_length, _item_length = cosines(query_ptr, items_ptr, row, count, index, M, C, SLICE)
        raised = tl.where(_taking(scores, inside, index, HARD), exp(scores), 0.0)
        if HARD:
            candidates = tl.where(inside, _highest(scores), float("-inf"))
            highest = tl.max(candidates, 0)
            first = (place - begin).to(tl.int32) + tl.argmax(candidates, 0, tie_break_left=True)
            nearest = tl.where(highest > level, first, nearest)
            level = tl.maximum(level, highest)
        else:
            level += tl.sum(raised, 0)
        for start in tl.range(0, C, SLICE):
            query = load_slice(query_ptr, row, count, start, C, SLICE)
            added = tl.zeros((BLOCK_M, SLICE), tl.float32)
            added = dot(tl.trans(raised), query, added)
            add_to_partial(partial_ptr, added, index, start, place == begin, M, C, SLICE)
        tl.debug_barrier()  # the next block adds to what other threads of this program wrote
        place += BLOCK_N
    tl.store(level_ptr + chunk * M + index, level, mask=index < M)
    if HARD:
        tl.store(nearest_ptr + chunk * M + index, begin + nearest, mask=index < M)


@triton.jit
def _level(level_ptr, index, chunks, HARD: tl.constexpr, M: tl.constexpr, CHUNKS: tl.constexpr):
    """The level over all chunks, and the chunk that holds an item's highest score."""
    chunk = tl.arange(0, CHUNKS)
    inside = (chunk < chunks)[:, None] & (index < M)[None, :]
    at = level_ptr + chunk[:, None] * M + index[None, :]
    if HARD:
        levels = tl.load(at, mask=inside, other=float("-inf"))
        peak = tl.max(levels, 0)
        return tl.where(peak == float("inf"), float("nan"), peak), tl.argmax(levels, 0, tie_break_left=True)
    else:
        return tl.sum(tl.load(at, mask=inside, other=0.0), 0), tl.zeros((index.shape[0],), tl.int32)


@triton.jit
def _taken_in(sums_ptr, level, index, start, HARD: tl.constexpr, M: tl.constexpr, C: tl.constexpr, SLICE: tl.constexpr):
    """A slice of the weighted sums of queries."""
    sums = load_slice(sums_ptr, index, M, start, C, SLICE)
    if HARD:
        return sums * exp(-level)[:, None]
    else:
        return sums / level[:, None]


@triton.jit
def memory_update_finish(
    items_ptr, sums_ptr, level_ptr, out_ptr, chunks,
    HARD: tl.constexpr, M: tl.constexpr, C: tl.constexpr, ITEMS: tl.constexpr, SLICE: tl.constexpr,
    CHUNKS: tl.constexpr,
):  # fmt: skip
    index = tl.program_id(0) * ITEMS + tl.arange(0, ITEMS)
    level, _chunk = _level(level_ptr, index, chunks, HARD, M, CHUNKS)
    squares = tl.zeros((ITEMS,), tl.float32)
    for start in tl.range(0, C, SLICE):
        fresh = _taken_in(sums_ptr, level, index, start, HARD, M, C, SLICE)
        fresh += load_slice(items_ptr, index, M, start, C, SLICE)
        squares += tl.sum(fresh * fresh, 1)
    divisor = length(squares)
    for start in tl.range(0, C, SLICE):
        fresh = _taken_in(sums_ptr, level, index, start, HARD, M, C, SLICE)
        fresh += load_slice(items_ptr, index, M, start, C, SLICE)
        store_slice(out_ptr, fresh / divisor[:, None], index, M, start, C, SLICE)


@triton.jit
def memory_update_backward_items(
    grad_ptr, items_ptr, sums_ptr, level_ptr, nearest_ptr, d_sum_ptr, total_level_ptr, offset_ptr, payer_ptr, chunks,
    HARD: tl.constexpr, M: tl.constexpr, C: tl.constexpr, ITEMS: tl.constexpr, SLICE: tl.constexpr,
    CHUNKS: tl.constexpr,
):  # fmt: skip
    """Through the normalisation: the gradient to the sum item + weighted queries, and per item the level of
    its weights, what the softmax takes off their gradient, and under the hard rule the query that pays for it."""
    index = tl.program_id(0) * ITEMS + tl.arange(0, ITEMS)
    level, chunk = _level(level_ptr, index, chunks, HARD, M, CHUNKS)
    squares = tl.zeros((ITEMS,), tl.float32)
    through = tl.zeros((ITEMS,), tl.float32)
    for start in tl.range(0, C, SLICE):
        fresh = _taken_in(sums_ptr, level, index, start, HARD, M, C, SLICE)
        fresh += load_slice(items_ptr, index, M, start, C, SLICE)
        squares += tl.sum(fresh * fresh, 1)
        through += tl.sum(fresh * load_slice(grad_ptr, index, M, start, C, SLICE), 1)
    divisor = length(squares)
    through = along(through[:, None], (1.0 / divisor)[:, None], divisor, 1) / divisor
    offset = tl.zeros((ITEMS,), tl.float32)
    for start in tl.range(0, C, SLICE):
        taken = _taken_in(sums_ptr, level, index, start, HARD, M, C, SLICE)
        fresh = taken + load_slice(items_ptr, index, M, start, C, SLICE)
        d_sum = load_slice(grad_ptr, index, M, start, C, SLICE) - fresh * through[:, None]
        d_sum = d_sum / divisor[:, None]
        offset += tl.sum(d_sum * taken, 1)
        store_slice(d_sum_ptr, d_sum, index, M, start, C, SLICE)
    tl.store(total_level_ptr + index, level, mask=index < M)
    tl.store(offset_ptr + index, offset, mask=index < M)
    if HARD:
        payer = tl.load(nearest_ptr + chunk * M + index, mask=index < M, other=0)
        tl.store(payer_ptr + index, payer, mask=index < M)


@triton.jit
def memory_update_backward_query(
    query_ptr, items_ptr, d_sum_ptr, level_ptr, offset_ptr, payer_ptr, d_query_ptr, partial_ptr, count, rows_per_chunk,
    HARD: tl.constexpr, M: tl.constexpr, C: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_M: tl.constexpr,
    SLICE: tl.constexpr,
):  # fmt: skip
    chunk = tl.program_id(0).to(tl.int64)
    index = tl.arange(0, BLOCK_M)
    level = tl.load(level_ptr + index, mask=index < M, other=1.0)
    offset = tl.load(offset_ptr + index, mask=index < M, other=0.0)
    partial_ptr += chunk * (M * C)
    begin = chunk * rows_per_chunk
    stop = tl.minimum(begin + rows_per_chunk, count)
    place = begin
    while place < stop:
        row = place + tl.arange(0, BLOCK_N)
        inside = (row < count)[:, None] & (index < M)[None, :]
        scores, query_length, item_length = cosines(query_ptr, items_ptr, row, count, index, M, C, SLICE)
        weights = exp(scores - level[None, :]) if HARD else exp(scores) / level[None, :]
        weights = tl.where(_taking(scores, inside, index, HARD), weights, 0.0)
        grad_scores = weights * products(query_ptr, d_sum_ptr, row, count, index, M, C, SLICE)
        if HARD:
            payer = tl.load(payer_ptr + index, mask=index < M, other=-1)
            grad_scores -= tl.where(row[:, None] == payer[None, :], offset[None, :], 0.0)
        else:
            grad_scores -= weights * offset[None, :]
        query_along = along(grad_scores, scores, query_length, 1) / query_length
        item_along = along(grad_scores, scores, item_length, 0) / item_length
        to_query = grad_scores / item_length[None, :]
        to_item = tl.trans(grad_scores / query_length[:, None])
        for start in tl.range(0, C, SLICE):
            query = load_slice(query_ptr, row, count, start, C, SLICE)
            item = load_slice(items_ptr, index, M, start, C, SLICE)
            d_query = dot(to_query, item, -query * query_along[:, None]) / query_length[:, None]
            d_query = dot(weights, load_slice(d_sum_ptr, index, M, start, C, SLICE), d_query)
            store_slice(d_query_ptr, d_query, row, count, start, C, SLICE)
            d_item = dot(to_item, query, -item * item_along[:, None]) / item_length[:, None]
            add_to_partial(partial_ptr, d_item, index, start, place == begin, M, C, SLICE)
        tl.debug_barrier()  # the next block adds to what other threads of this program wrote
        place += BLOCK_N


@on_its_device
def forward(out, query, items, rule) -> None:
    (result,) = out
    if query.shape[0] == 0:
        result.copy_(torch.nn.functional.normalize(items.float(), dim=1))
        return
    hard = rule == "hard"
    sums, level, _nearest = _sums(query, items, hard)
    walk = _item_tile(items)
    memory_update_finish[ITEMS_GRID(**walk)](items, sums, level, result, level.shape[0], HARD=hard, **walk, num_warps=4)


@on_its_device
def backward(out, grad, query, items, rule) -> None:
    d_query, d_items = out
    count, blocks = query.shape[0], query_tile(*items.shape)
    hard = rule == "hard"
    if count:
        sums, level, nearest = _sums(query, items, hard)
    else:
        sums, nearest = torch.zeros_like(items, dtype=torch.float32), None
        level = torch.ones(1, len(items), dtype=torch.float32, device=items.device)
        hard = False
    d_sum = torch.empty_like(sums)
    total_level, offset = (torch.empty(len(items), dtype=torch.float32, device=items.device) for _ in range(2))
    payer = torch.empty(len(items), dtype=torch.int64, device=items.device) if hard else None
    walk = _item_tile(items)
    memory_update_backward_items[ITEMS_GRID(**walk)](
        grad, items, sums, level, nearest, d_sum, total_level, offset, payer, level.shape[0],
        HARD=hard, **walk, num_warps=4,
    )  # fmt: skip
    if count:
        rows = rows_per_chunk(count, blocks["BLOCK_N"])
        grid = CHUNKS_GRID(count=count, rows_per_chunk=rows)
        partial = torch.empty(*grid, items.numel(), dtype=torch.float32, device=query.device)
        memory_update_backward_query[grid](
            query, items, d_sum, total_level, offset, payer, d_query, partial, count, rows, HARD=hard, **blocks,
            num_warps=WARPS,
        )  # fmt: skip
        sum_rows(partial, sums)
        d_sum += sums
    d_items.copy_(d_sum)


def _sums(query, items, hard):
    """The raised scores times the queries, added up [M,C]; and per chunk and item the level and the nearest query."""
    blocks = scan_tile(*items.shape, hard)
    rows = rows_per_chunk(query.shape[0], blocks["BLOCK_N"])
    grid = CHUNKS_GRID(count=query.shape[0], rows_per_chunk=rows)
    partial = torch.empty(*grid, items.numel(), dtype=torch.float32, device=query.device)
    level = torch.empty(*grid, items.shape[0], dtype=torch.float32, device=query.device)
    nearest = torch.empty(*grid, items.shape[0], dtype=torch.int64, device=query.device) if hard else None
    memory_update_scan[grid](
        query, items, partial, level, nearest, query.shape[0], rows, HARD=hard, **blocks, num_warps=WARPS
    )
    sums = torch.empty(items.shape, dtype=torch.float32, device=query.device)
    sum_rows(partial, sums)
    return sums, level, nearest


def scan_tile(items: int, columns: int, hard: bool) -> dict[str, int]:
    """Few queries at a time: the hard rule keeps level, nearest query and candidates of every item in registers."""
    blocks = tile(items, columns)
    return blocks | {"BLOCK_N": 16 if hard and blocks["BLOCK_M"] > 64 else 32}


def query_tile(items: int, columns: int) -> dict[str, int]:
    """A walk that keeps gradients of queries and of items at once."""
    blocks = tile(items, columns)
    return blocks | {"BLOCK_N": min(blocks["BLOCK_N"], 32)}


def _item_tile(items: torch.Tensor) -> dict[str, int]:
    return {"M": items.shape[0], "C": items.shape[1], "ITEMS": ITEMS, "SLICE": SLICE, "CHUNKS": CHUNKS}


def specs(arch: int) -> list[KernelSpec]:
    """Both rules at both shapes of `memory_read`; the same on every architecture."""
    found = sum_rows_specs("memory_update", columns=20 * 64)
    walks = {memory_update_scan: (CHUNKS_GRID, WARPS), memory_update_backward_query: (CHUNKS_GRID, WARPS)}
    walks |= {memory_update_finish: (ITEMS_GRID, 4), memory_update_backward_items: (ITEMS_GRID, 4)}
    wide = ("partial_ptr", "level_ptr", "sums_ptr", "d_sum_ptr", "total_level_ptr", "offset_ptr")
    for fn, (grid, warps) in walks.items():
        for name in NAMES.values():
            for items, columns in SHAPES:
                for hard in (False, True):
                    types = dict.fromkeys(fn.arg_names, f"*{name}:16") | dict.fromkeys(wide, "*fp32:16")
                    types |= {"nearest_ptr": "*i64:16", "payer_ptr": "*i64:16"}
                    types |= {"count": "i32", "chunks": "i32", "rows_per_chunk": "i32:16"}
                    walk = scan_tile(items, columns, hard) if fn is memory_update_scan else query_tile(items, columns)
                    constants = walk | {"HARD": hard, "ITEMS": ITEMS, "CHUNKS": CHUNKS}
                    if not hard:
                        constants |= {"nearest_ptr": None, "payer_ptr": None}
                    title = f"{fn.__name__}_{'hard' if hard else 'soft'}_{items}x{columns}_{name}"
                    found.append(KernelSpec.of(title, "memory_update", fn, grid, types, constants, warps))
    return found

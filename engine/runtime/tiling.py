"""Large pictures in tiles with a halo, in bounded memory.

All windows of a picture have one size, so that a backend prepares itself once. A window that would stick out is moved
inside; what is kept of a window lies at least `halo` away from every edge of it that is not an edge of the picture.

An SRN of T = 6 sees 78 pixels far, a BRN 132: with that much halo tiles give the same picture as no tiles. What comes
from farthest weighs little. On a Rain100L picture in tiles of 128, in codes of 255, the largest difference is

    halo        16      32      48      64
    SRN       13.99    4.70    1.57    0.01     (Rain100H weights; with Rain100L's 6.02, 0.78, 0.08, 0.00)
    BRN        8.63    6.47    3.37    0.85     (Rain100H weights, T = 6)
"""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import nn

from ..errors import UnrainError
from .backends import Planned, Runner, backend

log = logging.getLogger("unrain.runtime")

ALIGNMENT = 16  # windows start at multiples of it: every pyramid of ours then has its levels at the same places
MEMORY = 768 << 20  # bytes a run may use beside the weights, if nothing else is asked for
SMALLEST = 64
_SIDE = 512  # of the picture that a network's needs are taken from

FARTHEST = 96  # pixels of a halo: what comes from beyond weighs little
_UNKNOWN_HALO = 64
_UNKNOWN_BYTES = 6000.0  # for each pixel, of a network that has no program
_UNFUSED = 3.0  # times what the program of a network takes: what other backends take
_SEEN_WHOLE = "tiles: what this network averages over the whole picture it averages over each tile"


class Window(NamedTuple):
    """One tile: what is computed, and where its kept part lies in the window and in the picture."""

    rows: slice
    columns: slice
    kept: tuple[slice, slice]  # in the window
    place: tuple[slice, slice]  # in the picture


class Plan(NamedTuple):
    tile: tuple[int, int] | None  # height and width of what a window adds to the picture; None: the whole at once
    halo: int
    note: str | None
    pictures: int = 1  # of a batch that are run at once


class Needs(NamedTuple):
    """What a network takes and sees."""

    bytes_per_pixel: float  # at the peak of a run, beside the weights and the picture
    halo: int
    note: str | None = None  # on what its tiles are

    @staticmethod
    def of(bytes_per_pixel: float, reach: int | None) -> Needs:
        """`reach`: how far away a pixel may change another one, None for the whole picture."""
        if reach is None:
            return Needs(bytes_per_pixel, _UNKNOWN_HALO, _SEEN_WHOLE)
        return Needs(bytes_per_pixel, min(-(-reach // ALIGNMENT) * ALIGNMENT, FARTHEST))


UNKNOWN = Needs(_UNKNOWN_BYTES, _UNKNOWN_HALO)


def certainly_fits(pixels: int, max_memory: int | None) -> bool:
    """So few that no network of a usual kind needs more: what this one needs is then not asked for."""
    return pixels * _UNKNOWN_BYTES <= (MEMORY if max_memory is None else max_memory)


def needs(model: nn.Module, runner: Runner) -> Needs:
    """Of a run by that runner: from the network's program, where there is one."""
    if isinstance(runner, Planned):
        return _of_program(runner, 1.0)
    try:
        return _of_program(backend("fused").make(model, "fp32", torch.device("cpu"), None), _UNFUSED)
    except UnrainError as error:
        log.debug("tiles are planned without a program: %s", error)
        return UNKNOWN


def _of_program(planned: Planned, times: float) -> Needs:
    return Needs.of(times * planned.bytes(_SIDE, _SIDE) / _SIDE**2, planned.reach)


def plan(needs: Needs, height: int, width: int, tile: int | str | None, max_memory: int | None) -> Plan:
    """How a picture of this size is cut, not at all where it fits, and how many are run at once."""
    halo, each = needs.halo, needs.bytes_per_pixel
    limit = max_memory or (math.inf if tile is None else MEMORY)
    whole = Plan(None, halo, None, max(int(min(limit / (height * width * each), sys.maxsize)), 1))
    if tile is None:
        return whole
    if isinstance(tile, str):
        if height * width * each <= limit:
            return whole
        sides = _cheapest(height, width, halo, int(limit / each))
        if sides is None:
            needed = int((SMALLEST + 2 * halo) ** 2 * each)
            raise UnrainError(f"max_memory of {limit} bytes is too little for a tile; it takes {needed}")
    elif height <= tile and width <= tile:
        return whole
    else:
        sides = int(tile), int(tile)
    return Plan(sides, halo, needs.note)


def _cheapest(height: int, width: int, halo: int, pixels: int) -> tuple[int, int] | None:
    """Height and width of the tiles that compute the fewest pixels, halos and all, in windows of at most `pixels`."""
    found: list[tuple[int, int, int]] = []
    for rows in _counts(height, halo):
        for columns in _counts(width, halo):
            window = _window(height, rows, halo), _window(width, columns, halo)
            if window[0] * window[1] <= pixels:
                found.append((rows * columns * window[0] * window[1], *window))
                break  # more columns only add halos
    if not found:
        return None
    _, *best = min(found)
    return best[0] - 2 * halo, best[1] - 2 * halo


def _counts(side: int, halo: int) -> range:
    """Into how many windows a side may be cut, none of which adds less than the smallest tile."""
    return range(1, max((side - 2 * halo) // SMALLEST, 1) + 1)


def _window(side: int, count: int, halo: int) -> int:
    """Its length, if `count` of them cover the side."""
    return side if count == 1 else -(-(side + 2 * halo * (count - 1)) // count // ALIGNMENT) * ALIGNMENT


def windows(height: int, width: int, tile: tuple[int, int], halo: int) -> Iterator[Window]:
    """The tiles of a picture, row by row."""
    for top, rows, kept_rows, place_rows in _cuts(height, tile[0], halo):
        for left, columns, kept_columns, place_columns in _cuts(width, tile[1], halo):
            yield Window(
                slice(top, top + rows),
                slice(left, left + columns),
                (kept_rows, kept_columns),
                (place_rows, place_columns),
            )


def _cuts(side: int, tile: int, halo: int) -> Iterator[tuple[int, int, slice, slice]]:
    """Along one side: the window's start and length, the kept part in it, and its place in the picture."""
    window = -(-(tile + 2 * halo) // ALIGNMENT) * ALIGNMENT
    if window >= side:
        yield 0, side, slice(0, side), slice(0, side)
        return
    done = 0
    while done < side:
        start = max(0, (done - halo) // ALIGNMENT * ALIGNMENT)
        last = start + window >= side
        if last:  # moved inside; the start stays aligned, so the last window may be a little shorter than the rest
            start = -(-(side - window) // ALIGNMENT) * ALIGNMENT
        length = min(window, side - start)
        stop = side if last else start + window - halo
        yield start, length, slice(done - start, stop - start), slice(done, stop)
        done = stop

"""`ssim` in Triton: the five windowed moments of a tile, their similarity and its sum, in one kernel.

Layout    NCHW or NHWC by strides; every plane (image, channel) by itself.
Tiling    16 x 54 places a program. The window is separable: 16 input columns at a time, the vertical pass adds up 11
          shifted rows (from L1 after the first), and the horizontal pass is a product with a band matrix of the window,
          [16 rows, 16 columns] x [16, 64] in float32, which needs no exchange of neighbours between threads.
          One partial sum each; `sum_rows` adds them in order.
Backward  one kernel makes the moments again and writes four maps, the gradients to the moments (x^2 and y^2 share one);
          the other spreads them with the same window and combines them with x and y.
Bytes     forward 2s a pixel (s bytes of storage); backward 2s + 16 written, then 16 + 2s read and up to 2s written.
Bound     L1 and multiply-adds: 22 loads and 5 x (11 + 76) multiply-adds a place forward.
"""

from __future__ import annotations

from functools import cache

import torch
import triton
import triton.language as tl

from ..registry import Call, is_nhwc
from ..triton_aot import Grid, KernelSpec
from ..triton_common import NAMES, available, dot, on_its_device, refuse, sum_rows, sum_rows_specs
from . import reference

__all__ = ["available", "backward", "can_run", "forward", "specs"]

ROWS, COLUMNS, SLICE, WARPS = 16, 64, 16, 4
TAPS = reference.TAPS
USED = COLUMNS - TAPS + 1  # output columns of a tile: the others only feed the window
_TAPS = tl.constexpr(TAPS)
_SIZES = {"ROWS": ROWS, "USED": USED}
FORWARD_GRID = Grid("images * channels * (places_y / ROWS) * (places_x / USED)", **_SIZES)
MOMENTS_GRID = Grid("planes * (places_y / ROWS) * (places_x / USED)", **_SIZES)
IMAGES_GRID = Grid("planes * (height / ROWS) * (width / USED)", **_SIZES)


def can_run(call: Call) -> str | None:
    return refuse(call)


@triton.jit
def _tile(height, width, ROWS: tl.constexpr, USED: tl.constexpr):
    """This program's plane and the first place of its tile."""
    across = tl.cdiv(width, USED)
    down = tl.cdiv(height, ROWS)
    program = tl.program_id(0)
    x0 = (program % across) * USED
    program = program // across
    return (program // down).to(tl.int64), (program % down) * ROWS, x0


@triton.jit
def _plane(plane, channels, height, width, NHWC: tl.constexpr):
    """Offset of a plane's first pixel, and the distance to the next pixel."""
    if NHWC:
        return plane // channels * channels * height * width + plane % channels, channels
    else:
        return plane * height * width, 1


@triton.jit
def _pixels(ptr, base, step, y, x, height, width):
    """[rows, columns] in float32; zero outside of the plane."""
    inside = ((y >= 0) & (y < height))[:, None] & ((x >= 0) & (x < width))[None, :]
    at = base + (y.to(tl.int64)[:, None] * width + x[None, :]) * step
    return tl.load(ptr + at, mask=inside, other=0.0).to(tl.float32)


@triton.jit
def _band(window_ptr, start, SLICE: tl.constexpr, COLUMNS: tl.constexpr):
    """[SLICE, COLUMNS] of the matrix whose column i holds the window in rows i to i + 10, from row `start` on."""
    tap = (start + tl.arange(0, SLICE))[:, None] - tl.arange(0, COLUMNS)[None, :]
    return tl.load(window_ptr + tap, mask=(tap >= 0) & (tap < _TAPS), other=0.0)


@triton.jit
def _moments(
    x_ptr, y_ptr, window_ptr, base, step, y0, x0, height, width,
    PAD: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, SLICE: tl.constexpr,
):  # fmt: skip
    """The windowed means of x, y, x^2, y^2 and xy, [ROWS, COLUMNS] each."""
    mean_x = tl.zeros((ROWS, COLUMNS), tl.float32)
    mean_y = tl.zeros((ROWS, COLUMNS), tl.float32)
    square_x = tl.zeros((ROWS, COLUMNS), tl.float32)
    square_y = tl.zeros((ROWS, COLUMNS), tl.float32)
    product = tl.zeros((ROWS, COLUMNS), tl.float32)
    for start in tl.range(0, COLUMNS, SLICE):
        x_at = x0 + start + tl.arange(0, SLICE) - PAD
        sum_x = tl.zeros((ROWS, SLICE), tl.float32)
        sum_y = tl.zeros((ROWS, SLICE), tl.float32)
        sum_xx = tl.zeros((ROWS, SLICE), tl.float32)
        sum_yy = tl.zeros((ROWS, SLICE), tl.float32)
        sum_xy = tl.zeros((ROWS, SLICE), tl.float32)
        for tap in tl.range(0, _TAPS):
            y_at = y0 + tl.arange(0, ROWS) + tap - PAD
            weight = tl.load(window_ptr + tap)
            a = _pixels(x_ptr, base, step, y_at, x_at, height, width)
            b = _pixels(y_ptr, base, step, y_at, x_at, height, width)
            sum_x += weight * a
            sum_y += weight * b
            sum_xx += weight * (a * a)
            sum_yy += weight * (b * b)
            sum_xy += weight * (a * b)
        band = _band(window_ptr, start, SLICE, COLUMNS)
        mean_x = dot(sum_x, band, mean_x)
        mean_y = dot(sum_y, band, mean_y)
        square_x = dot(sum_xx, band, square_x)
        square_y = dot(sum_yy, band, square_y)
        product = dot(sum_xy, band, product)
    return mean_x, mean_y, square_x, square_y, product


@triton.jit
def _parts(mean_x, mean_y, square_x, square_y, product, c1, c2):
    """The two factors above and the two below the fraction bar."""
    both = mean_x * mean_y
    squares = mean_x * mean_x + mean_y * mean_y
    return 2.0 * both + c1, 2.0 * (product - both) + c2, squares + c1, square_x + square_y - squares + c2


@triton.jit
def ssim_forward(
    x_ptr, y_ptr, window_ptr, partial_ptr, channels, height, width, c1, c2,
    NHWC: tl.constexpr, PAD: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, SLICE: tl.constexpr,
):  # fmt: skip
    USED: tl.constexpr = COLUMNS - _TAPS + 1
    out_height = height + 2 * PAD - _TAPS + 1
    out_width = width + 2 * PAD - _TAPS + 1
    plane, y0, x0 = _tile(out_height, out_width, ROWS, USED)
    base, step = _plane(plane, channels, height, width, NHWC)
    mean_x, mean_y, square_x, square_y, product = _moments(
        x_ptr, y_ptr, window_ptr, base, step, y0, x0, height, width, PAD, ROWS, COLUMNS, SLICE
    )
    top1, top2, bottom1, bottom2 = _parts(
        mean_x, mean_y, square_x, square_y, product, tl.cast(c1, tl.float32), tl.cast(c2, tl.float32)
    )
    column = tl.arange(0, COLUMNS)
    inside = (y0 + tl.arange(0, ROWS) < out_height)[:, None] & ((column < USED) & (x0 + column < out_width))[None, :]
    similarity = tl.where(inside, (top1 * top2) / (bottom1 * bottom2), 0.0)
    tl.store(partial_ptr + tl.program_id(0), tl.sum(tl.sum(similarity, 1), 0))


@triton.jit
def ssim_backward_moments(
    grad_ptr, x_ptr, y_ptr, window_ptr, maps_ptr, channels, height, width, planes, c1, c2, count,
    NHWC: tl.constexpr, PAD: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, SLICE: tl.constexpr,
):  # fmt: skip
    """Gradients to the moments of x, of y, to those of both squares, and to that of the product: four planar maps."""
    USED: tl.constexpr = COLUMNS - _TAPS + 1
    out_height = height + 2 * PAD - _TAPS + 1
    out_width = width + 2 * PAD - _TAPS + 1
    plane, y0, x0 = _tile(out_height, out_width, ROWS, USED)
    base, step = _plane(plane, channels, height, width, NHWC)
    mean_x, mean_y, square_x, square_y, product = _moments(
        x_ptr, y_ptr, window_ptr, base, step, y0, x0, height, width, PAD, ROWS, COLUMNS, SLICE
    )
    top1, top2, bottom1, bottom2 = _parts(
        mean_x, mean_y, square_x, square_y, product, tl.cast(c1, tl.float32), tl.cast(c2, tl.float32)
    )
    share = tl.load(grad_ptr).to(tl.float32) / tl.cast(count, tl.float32)
    bottom = bottom1 * bottom2
    similarity = (top1 * top2) / bottom
    ring = share * 2.0 * (top2 - top1) / bottom
    slope = share * 2.0 * similarity * (1.0 / bottom2 - 1.0 / bottom1)

    column = tl.arange(0, COLUMNS)
    row = y0 + tl.arange(0, ROWS)
    inside = (row < out_height)[:, None] & ((column < USED) & (x0 + column < out_width))[None, :]
    at = maps_ptr + (plane * out_height + row[:, None]) * out_width + (x0 + column)[None, :]
    size = tl.cast(planes, tl.int64) * out_height * out_width
    tl.store(at, ring * mean_y + slope * mean_x, mask=inside)
    tl.store(at + size, ring * mean_x + slope * mean_y, mask=inside)
    tl.store(at + 2 * size, -share * similarity / bottom2, mask=inside)
    tl.store(at + 3 * size, share * 2.0 * top1 / bottom, mask=inside)


@triton.jit
def _spread(
    map_ptr, window_ptr, base, y0, x0, height, width,
    PAD: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, SLICE: tl.constexpr,
):  # fmt: skip
    spread = tl.zeros((ROWS, COLUMNS), tl.float32)
    for start in tl.range(0, COLUMNS, SLICE):
        x_at = x0 + start + tl.arange(0, SLICE) - PAD
        total = tl.zeros((ROWS, SLICE), tl.float32)
        for tap in tl.range(0, _TAPS):
            y_at = y0 + tl.arange(0, ROWS) + tap - PAD
            total += tl.load(window_ptr + tap) * _pixels(map_ptr, base, 1, y_at, x_at, height, width)
        spread = dot(total, _band(window_ptr, start, SLICE, COLUMNS), spread)
    return spread


@triton.jit
def ssim_backward_images(
    x_ptr, y_ptr, window_ptr, maps_ptr, d_x_ptr, d_y_ptr, channels, height, width, planes,
    NHWC: tl.constexpr, PAD: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, SLICE: tl.constexpr,
):  # fmt: skip
    USED: tl.constexpr = COLUMNS - _TAPS + 1
    BACK: tl.constexpr = _TAPS - 1 - PAD  # the transpose pads what the window itself did not
    map_height = height + 2 * PAD - _TAPS + 1
    map_width = width + 2 * PAD - _TAPS + 1
    plane, y0, x0 = _tile(height, width, ROWS, USED)
    size = tl.cast(planes, tl.int64) * map_height * map_width
    map_base = plane * map_height * map_width
    squares = _spread(
        maps_ptr + 2 * size, window_ptr, map_base, y0, x0, map_height, map_width, BACK, ROWS, COLUMNS, SLICE
    )
    products = _spread(
        maps_ptr + 3 * size, window_ptr, map_base, y0, x0, map_height, map_width, BACK, ROWS, COLUMNS, SLICE
    )
    base, step = _plane(plane, channels, height, width, NHWC)
    row = y0 + tl.arange(0, ROWS)
    column = tl.arange(0, COLUMNS)
    inside = (row < height)[:, None] & ((column < USED) & (x0 + column < width))[None, :]
    at = base + (row.to(tl.int64)[:, None] * width + (x0 + column)[None, :]) * step
    a = tl.load(x_ptr + at, mask=inside, other=0.0).to(tl.float32)
    b = tl.load(y_ptr + at, mask=inside, other=0.0).to(tl.float32)
    if d_x_ptr is not None:
        means = _spread(maps_ptr, window_ptr, map_base, y0, x0, map_height, map_width, BACK, ROWS, COLUMNS, SLICE)
        d_x = means + 2.0 * a * squares + b * products
        tl.store(d_x_ptr + at, d_x.to(d_x_ptr.dtype.element_ty), mask=inside)
    if d_y_ptr is not None:
        means = _spread(
            maps_ptr + size, window_ptr, map_base, y0, x0, map_height, map_width, BACK, ROWS, COLUMNS, SLICE
        )
        d_y = means + 2.0 * b * squares + a * products
        tl.store(d_y_ptr + at, d_y.to(d_y_ptr.dtype.element_ty), mask=inside)


@on_its_device
def forward(out, x, y, window, data_range) -> None:
    (result,) = out
    if x.numel() == 0:
        result.fill_(float("nan"))  # the mean of nothing
        return
    images, channels, height, width = x.shape
    pad = padding(window)
    places = height + 2 * pad - TAPS + 1, width + 2 * pad - TAPS + 1
    grid = FORWARD_GRID(images=images, channels=channels, places_y=places[0], places_x=places[1])
    partial = torch.empty(*grid, 1, dtype=torch.float32, device=x.device)
    ssim_forward[grid](
        x, y, weights(x.device), partial, channels, height, width, *constants(data_range), **_tiling(x, pad)
    )
    sum_rows(partial, result, images * channels * places[0] * places[1])


@on_its_device
def backward(out, grad, x, y, window, data_range, _want) -> None:
    d_x, d_y = out
    if x.numel() == 0 or (d_x is None and d_y is None):
        return
    images, channels, height, width = x.shape
    pad = padding(window)
    planes, places = images * channels, (height + 2 * pad - TAPS + 1, width + 2 * pad - TAPS + 1)
    maps = torch.empty(4, planes, *places, dtype=torch.float32, device=x.device)
    taps, tiling = weights(x.device), _tiling(x, pad)
    ssim_backward_moments[MOMENTS_GRID(planes=planes, places_y=places[0], places_x=places[1])](
        grad, x, y, taps, maps, channels, height, width, planes, *constants(data_range), float(maps[0].numel()),
        **tiling,
    )  # fmt: skip
    ssim_backward_images[IMAGES_GRID(planes=planes, height=height, width=width)](
        x, y, taps, maps, d_x, d_y, channels, height, width, planes, **tiling
    )


def padding(window: str) -> int:
    return TAPS // 2 if window == "same" else 0


def constants(data_range: float) -> tuple[float, float]:
    return (0.01 * data_range) ** 2, (0.03 * data_range) ** 2


@cache
def weights(device: torch.device) -> torch.Tensor:
    return torch.tensor(reference.taps(), dtype=torch.float32, device=device)


def _tiling(x: torch.Tensor, pad: int) -> dict[str, int | bool]:
    sizes = {"ROWS": ROWS, "COLUMNS": COLUMNS, "SLICE": SLICE, "num_warps": WARPS}
    return {"NHWC": is_nhwc(x), "PAD": pad, **sizes}


def specs(arch: int) -> list[KernelSpec]:
    """Both windows in planes, and the training window in NHWC; the same on every architecture."""
    found = sum_rows_specs("ssim", columns=1)
    grids = {ssim_forward: FORWARD_GRID, ssim_backward_moments: MOMENTS_GRID, ssim_backward_images: IMAGES_GRID}
    for fn, grid in grids.items():
        for name in NAMES.values():
            for nhwc, window in ((False, "same"), (False, "valid"), (True, "same")):
                types = dict.fromkeys(fn.arg_names, f"*{name}:16")
                types |= dict.fromkeys(("window_ptr", "partial_ptr", "maps_ptr"), "*fp32:16")
                types |= dict.fromkeys(("channels", "height", "width", "planes"), "i32")
                types |= dict.fromkeys(("c1", "c2", "count"), "fp32")
                fixed = {"NHWC": nhwc, "PAD": padding(window), "ROWS": ROWS, "COLUMNS": COLUMNS, "SLICE": SLICE}
                title = f"{fn.__name__}_{window}_{name}_{'nhwc' if nhwc else 'nchw'}"
                found.append(KernelSpec.of(title, "ssim", fn, grid, types, fixed, WARPS))
    return found

"""`conv_lstm` in Triton: the 3x3 convolution over [x, h] as an implicit GEMM whose epilogue is the whole LSTM step.

Layout    channels innermost (NHWC) is the fast one; NCHW runs too, without a copy, at a fraction of the speed. x and h
          stay two tensors: the loop over K walks the nine taps of x, then those of h, masking the zero padding.
Tiling    one program per TILE_H x TILE_W pixels and BLOCK_C channels: an accumulator [pixels, 4 BLOCK_C] in float32.
          Its columns hold the four gates of a channel where one thread of an MMA tile finds them (packing.py), so the
          epilogue splits them in registers; only c', h' and c pass through shared memory, to be coalesced.
Bytes     per pixel at C = Cin = 32 in half precision, from memory: x 64, h 64, c 128 read, h' 64, c' 128 written = 448,
          where cuDNN and one fused pointwise kernel move 128 + 256 + 256 + 128 + 192 = 960. From L2, with 256-pixel
          tiles: nine times x and h (1152) and the 147 KiB of weights once per tile (576).
Bound     147 kflop a pixel are 85 flop per byte of L2. On an H100 at 512x512 that is L2 (80 us) before the tensor cores
          (60 us) and memory (35 us), by data sheet: larger tiles are what helps. Weights cannot stay in shared memory:
          tl has no way to index it by tap.
Backward  the same loop computes the pre-activations again and its epilogue writes their gradients (4C, storage dtype);
          saving the gates instead would cost 4C per pixel of every step of an unrolled net, a third more arithmetic is
          cheaper. The two convolution gradients are left to cuDNN, as deterministic as torch.backends.cudnn says.
"""

from __future__ import annotations

import triton
import triton.language as tl

from ..triton_common import dot, sigmoid, tanh


@triton.jit
def _position(tiles_y, tiles_x, BLOCKS: tl.constexpr, TILE_H: tl.constexpr, TILE_W: tl.constexpr):
    """This program's block of channels, image, and the corner and pixels of its tile."""
    program = tl.program_id(0)
    block = program % BLOCKS
    program = program // BLOCKS
    x0 = (program % tiles_x) * TILE_W
    program = program // tiles_x
    y0 = (program % tiles_y) * TILE_H
    image = program // tiles_y
    pixel = tl.arange(0, TILE_H * TILE_W)
    return block, image.to(tl.int64), y0, x0, pixel // TILE_W, pixel % TILE_W


@triton.jit
def _corner(image, y0, x0, height, width, CHANNELS: tl.constexpr, NHWC: tl.constexpr):
    """Offset of a tile's corner; offsets inside a tile fit 32 bits, this one may not."""
    if NHWC:
        return ((image * height + y0) * width + x0) * CHANNELS
    else:
        return image * CHANNELS * height * width + y0.to(tl.int64) * width + x0


@triton.jit
def _offsets(pixel, channel, height, width, CHANNELS: tl.constexpr, NHWC: tl.constexpr):
    """[pixels, channels] relative to a corner, from pixel offsets in units of one pixel."""
    if NHWC:
        return (pixel * CHANNELS)[:, None] + channel[None, :]
    else:
        return pixel[:, None] + (channel * (height * width))[None, :]


@triton.jit
def _tap(ptr, corner, tap, start, y0, x0, ry, rx, height, width,
         CHANNELS: tl.constexpr, NHWC: tl.constexpr, BLOCK_K: tl.constexpr):  # fmt: skip
    """[pixels, BLOCK_K] of one image under one tap: zero outside of the image."""
    dy = tap // 3 - 1
    dx = tap % 3 - 1
    y = y0 + ry + dy
    x = x0 + rx + dx
    inside = ((y >= 0) & (y < height) & (x >= 0) & (x < width))[:, None]
    channel = start + tl.arange(0, BLOCK_K)
    if CHANNELS % BLOCK_K != 0:
        inside = inside & (channel < CHANNELS)[None, :]
    at = _offsets((ry + dy) * width + (rx + dx), channel, height, width, CHANNELS, NHWC)
    return tl.load(ptr + corner + at, mask=inside, other=0.0)


@triton.jit
def _weights(ptr, row, left, column, COLUMNS: tl.constexpr, EVEN: tl.constexpr, BLOCK_K: tl.constexpr):
    """[BLOCK_K, columns] from `row` on; rows past the `left` ones of this source count as zero."""
    k = tl.arange(0, BLOCK_K)
    at = ptr + (row + k)[:, None] * COLUMNS + column[None, :]
    if EVEN:
        return tl.load(at)
    else:
        return tl.load(at, mask=(k < left)[:, None], other=0.0)


@triton.jit
def _gates(acc, PIXELS: tl.constexpr, BLOCK_C: tl.constexpr, GROUP: tl.constexpr):
    """[pixels, 4 BLOCK_C] in packed column order -> pre-activations i, f, g, o, each [pixels, BLOCK_C]."""
    low, high = tl.split(acc.reshape(PIXELS, BLOCK_C // GROUP, 2, GROUP, 2))
    i, f = tl.split(low.permute(0, 1, 3, 2))
    g, o = tl.split(high.permute(0, 1, 3, 2))
    return (
        i.reshape(PIXELS, BLOCK_C),
        f.reshape(PIXELS, BLOCK_C),
        g.reshape(PIXELS, BLOCK_C),
        o.reshape(PIXELS, BLOCK_C),
    )


@triton.jit
def _pre_activations(
    x_ptr, h_ptr, w_ptr, bias_ptr, block, image, y0, x0, ry, rx, height, width,
    CIN: tl.constexpr, C: tl.constexpr, NHWC: tl.constexpr, TILE_H: tl.constexpr, TILE_W: tl.constexpr,
    BLOCK_C: tl.constexpr, BLOCK_K: tl.constexpr, STAGES: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    PIXELS: tl.constexpr = TILE_H * TILE_W
    X_STEPS: tl.constexpr = (CIN + BLOCK_K - 1) // BLOCK_K
    H_STEPS: tl.constexpr = (C + BLOCK_K - 1) // BLOCK_K
    EVEN: tl.constexpr = CIN % BLOCK_K == 0 and C % BLOCK_K == 0
    column = block * (4 * BLOCK_C) + tl.arange(0, 4 * BLOCK_C)
    x_corner = _corner(image, y0, x0, height, width, CIN, NHWC)
    h_corner = _corner(image, y0, x0, height, width, C, NHWC)
    acc = tl.zeros((PIXELS, 4 * BLOCK_C), tl.float32)
    if CIN == C:
        # One loop over both sources keeps the pipeline of loads full where x ends and h begins.
        for step in tl.range(0, 18 * X_STEPS, num_stages=STAGES):
            of_h = step >= 9 * X_STEPS
            local = tl.where(of_h, step - 9 * X_STEPS, step)
            tap = local // X_STEPS
            start = (local % X_STEPS) * BLOCK_K
            source = tl.where(of_h, h_ptr, x_ptr)
            a = _tap(source, x_corner, tap, start, y0, x0, ry, rx, height, width, C, NHWC, BLOCK_K)
            row = tap * (2 * C) + tl.where(of_h, C, 0) + start
            w = _weights(w_ptr, row, C - start, column, 4 * C, EVEN, BLOCK_K)
            acc = dot(a, w, acc)
    else:
        for step in tl.range(0, 9 * X_STEPS, num_stages=STAGES):
            tap = step // X_STEPS
            start = (step % X_STEPS) * BLOCK_K
            a = _tap(x_ptr, x_corner, tap, start, y0, x0, ry, rx, height, width, CIN, NHWC, BLOCK_K)
            w = _weights(w_ptr, tap * (CIN + C) + start, CIN - start, column, 4 * C, EVEN, BLOCK_K)
            acc = dot(a, w, acc)
        for step in tl.range(0, 9 * H_STEPS, num_stages=STAGES):
            tap = step // H_STEPS
            start = (step % H_STEPS) * BLOCK_K
            a = _tap(h_ptr, h_corner, tap, start, y0, x0, ry, rx, height, width, C, NHWC, BLOCK_K)
            w = _weights(w_ptr, tap * (CIN + C) + CIN + start, C - start, column, 4 * C, EVEN, BLOCK_K)
            acc = dot(a, w, acc)
    if bias_ptr is not None:
        channel = column // (4 * GROUP) * GROUP + column % (2 * GROUP) // 2
        gate = column // (2 * GROUP) % 2 + 2 * (column % 2)
        acc += tl.load(bias_ptr + gate * C + channel).to(tl.float32)[None, :]
    return _gates(acc, PIXELS, BLOCK_C, GROUP)


@triton.jit
def _first_pre_activations(
    x_ptr, w_io_ptr, w_g_ptr, bias_ptr, block, image, y0, x0, ry, rx, height, width,
    CIN: tl.constexpr, C: tl.constexpr, NHWC: tl.constexpr, TILE_H: tl.constexpr, TILE_W: tl.constexpr,
    BLOCK_C: tl.constexpr, BLOCK_K: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """i, g, o from a zero state: no h half, no forget gate. 3C columns are no power of two, hence two products."""
    PIXELS: tl.constexpr = TILE_H * TILE_W
    X_STEPS: tl.constexpr = (CIN + BLOCK_K - 1) // BLOCK_K
    column = block * (2 * BLOCK_C) + tl.arange(0, 2 * BLOCK_C)
    channel = block * BLOCK_C + tl.arange(0, BLOCK_C)
    corner = _corner(image, y0, x0, height, width, CIN, NHWC)
    io = tl.zeros((PIXELS, 2 * BLOCK_C), tl.float32)
    g = tl.zeros((PIXELS, BLOCK_C), tl.float32)
    for step in tl.range(0, 9 * X_STEPS, num_stages=STAGES):
        tap = step // X_STEPS
        start = (step % X_STEPS) * BLOCK_K
        a = _tap(x_ptr, corner, tap, start, y0, x0, ry, rx, height, width, CIN, NHWC, BLOCK_K)
        row = tap * CIN + start
        io = dot(a, _weights(w_io_ptr, row, CIN - start, column, 2 * C, CIN % BLOCK_K == 0, BLOCK_K), io)
        g = dot(a, _weights(w_g_ptr, row, CIN - start, channel, C, CIN % BLOCK_K == 0, BLOCK_K), g)
    i, o = tl.split(io.reshape(PIXELS, BLOCK_C, 2))
    if bias_ptr is not None:
        i += tl.load(bias_ptr + channel).to(tl.float32)[None, :]
        g += tl.load(bias_ptr + 2 * C + channel).to(tl.float32)[None, :]
        o += tl.load(bias_ptr + 3 * C + channel).to(tl.float32)[None, :]
    return i, g, o


@triton.jit
def _state(block, image, y0, x0, ry, rx, height, width, C: tl.constexpr, NHWC: tl.constexpr, BLOCK_C: tl.constexpr):
    """Where the tile lies in h, c and everything shaped like them, and which of its pixels exist."""
    channel = block * BLOCK_C + tl.arange(0, BLOCK_C)
    at = _corner(image, y0, x0, height, width, C, NHWC)
    inside = ((y0 + ry < height) & (x0 + rx < width))[:, None]
    return at + _offsets(ry * width + rx, channel, height, width, C, NHWC), inside


@triton.jit
def _plane(height, width, C: tl.constexpr, NHWC: tl.constexpr):
    """Distance from one gate to the next; four planes may exceed 32 bits."""
    if NHWC:
        return tl.cast(C, tl.int64)
    else:
        return tl.cast(C, tl.int64) * height * width


@triton.jit
def conv_lstm_step(
    x_ptr, h_ptr, c_ptr, w_ptr, bias_ptr, h_out_ptr, c_out_ptr, height, width, tiles_y, tiles_x,
    CIN: tl.constexpr, C: tl.constexpr, NHWC: tl.constexpr, TILE_H: tl.constexpr, TILE_W: tl.constexpr,
    BLOCK_C: tl.constexpr, BLOCK_K: tl.constexpr, STAGES: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    accurate: tl.constexpr = x_ptr.dtype.element_ty == tl.float32
    block, image, y0, x0, ry, rx = _position(tiles_y, tiles_x, C // BLOCK_C, TILE_H, TILE_W)
    i, f, g, o = _pre_activations(
        x_ptr, h_ptr, w_ptr, bias_ptr, block, image, y0, x0, ry, rx, height, width,
        CIN, C, NHWC, TILE_H, TILE_W, BLOCK_C, BLOCK_K, STAGES, GROUP,
    )  # fmt: skip
    at, inside = _state(block, image, y0, x0, ry, rx, height, width, C, NHWC, BLOCK_C)
    c = tl.load(c_ptr + at, mask=inside, other=0.0).to(tl.float32)
    c = sigmoid(f, accurate)[0] * c + sigmoid(i, accurate)[0] * tanh(g, accurate)[0]
    tl.store(c_out_ptr + at, c.to(c_out_ptr.dtype.element_ty), mask=inside)
    tl.store(
        h_out_ptr + at, (sigmoid(o, accurate)[0] * tanh(c, accurate)[0]).to(h_out_ptr.dtype.element_ty), mask=inside
    )


@triton.jit
def conv_lstm_first(
    x_ptr, w_io_ptr, w_g_ptr, bias_ptr, h_out_ptr, c_out_ptr, height, width, tiles_y, tiles_x,
    CIN: tl.constexpr, C: tl.constexpr, NHWC: tl.constexpr, TILE_H: tl.constexpr, TILE_W: tl.constexpr,
    BLOCK_C: tl.constexpr, BLOCK_K: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    accurate: tl.constexpr = x_ptr.dtype.element_ty == tl.float32
    block, image, y0, x0, ry, rx = _position(tiles_y, tiles_x, C // BLOCK_C, TILE_H, TILE_W)
    i, g, o = _first_pre_activations(
        x_ptr, w_io_ptr, w_g_ptr, bias_ptr, block, image, y0, x0, ry, rx, height, width,
        CIN, C, NHWC, TILE_H, TILE_W, BLOCK_C, BLOCK_K, STAGES,
    )  # fmt: skip
    at, inside = _state(block, image, y0, x0, ry, rx, height, width, C, NHWC, BLOCK_C)
    c = sigmoid(i, accurate)[0] * tanh(g, accurate)[0]
    tl.store(c_out_ptr + at, c.to(c_out_ptr.dtype.element_ty), mask=inside)
    tl.store(
        h_out_ptr + at, (sigmoid(o, accurate)[0] * tanh(c, accurate)[0]).to(h_out_ptr.dtype.element_ty), mask=inside
    )


@triton.jit
def conv_lstm_step_backward(
    x_ptr, h_ptr, c_ptr, w_ptr, bias_ptr, grad_h_ptr, grad_c_ptr, d_pre_ptr, d_c_ptr, height, width, tiles_y, tiles_x,
    CIN: tl.constexpr, C: tl.constexpr, NHWC: tl.constexpr, TILE_H: tl.constexpr, TILE_W: tl.constexpr,
    BLOCK_C: tl.constexpr, BLOCK_K: tl.constexpr, STAGES: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    """Gradients to the pre-activations, gates i, f, g, o one after the other as the convolution has them, and to c."""
    accurate: tl.constexpr = x_ptr.dtype.element_ty == tl.float32
    block, image, y0, x0, ry, rx = _position(tiles_y, tiles_x, C // BLOCK_C, TILE_H, TILE_W)
    i, f, g, o = _pre_activations(
        x_ptr, h_ptr, w_ptr, bias_ptr, block, image, y0, x0, ry, rx, height, width,
        CIN, C, NHWC, TILE_H, TILE_W, BLOCK_C, BLOCK_K, STAGES, GROUP,
    )  # fmt: skip
    at, inside = _state(block, image, y0, x0, ry, rx, height, width, C, NHWC, BLOCK_C)
    c = tl.load(c_ptr + at, mask=inside, other=0.0).to(tl.float32)
    grad_h = tl.load(grad_h_ptr + at, mask=inside, other=0.0).to(tl.float32)
    grad_c = tl.load(grad_c_ptr + at, mask=inside, other=0.0).to(tl.float32)
    i, i_slope = sigmoid(i, accurate)
    f, f_slope = sigmoid(f, accurate)
    g, g_slope = tanh(g, accurate)
    o, o_slope = sigmoid(o, accurate)
    t, t_slope = tanh(f * c + i * g, accurate)
    d_cell = grad_c + grad_h * o * t_slope
    storage = d_pre_ptr.dtype.element_ty
    channel = block * BLOCK_C + tl.arange(0, BLOCK_C)
    out = d_pre_ptr + _corner(image, y0, x0, height, width, 4 * C, NHWC)
    out += _offsets(ry * width + rx, channel, height, width, 4 * C, NHWC)
    gate = _plane(height, width, C, NHWC)
    tl.store(out, (d_cell * g * i_slope).to(storage), mask=inside)
    tl.store(out + gate, (d_cell * c * f_slope).to(storage), mask=inside)
    tl.store(out + 2 * gate, (d_cell * i * g_slope).to(storage), mask=inside)
    tl.store(out + 3 * gate, (grad_h * t * o_slope).to(storage), mask=inside)
    tl.store(d_c_ptr + at, (d_cell * f).to(d_c_ptr.dtype.element_ty), mask=inside)


@triton.jit
def conv_lstm_first_backward(
    x_ptr, w_io_ptr, w_g_ptr, bias_ptr, grad_h_ptr, grad_c_ptr, d_pre_ptr, height, width, tiles_y, tiles_x,
    CIN: tl.constexpr, C: tl.constexpr, NHWC: tl.constexpr, TILE_H: tl.constexpr, TILE_W: tl.constexpr,
    BLOCK_C: tl.constexpr, BLOCK_K: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """Gradients to the pre-activations of i, g, o."""
    accurate: tl.constexpr = x_ptr.dtype.element_ty == tl.float32
    block, image, y0, x0, ry, rx = _position(tiles_y, tiles_x, C // BLOCK_C, TILE_H, TILE_W)
    i, g, o = _first_pre_activations(
        x_ptr, w_io_ptr, w_g_ptr, bias_ptr, block, image, y0, x0, ry, rx, height, width,
        CIN, C, NHWC, TILE_H, TILE_W, BLOCK_C, BLOCK_K, STAGES,
    )  # fmt: skip
    at, inside = _state(block, image, y0, x0, ry, rx, height, width, C, NHWC, BLOCK_C)
    grad_h = tl.load(grad_h_ptr + at, mask=inside, other=0.0).to(tl.float32)
    grad_c = tl.load(grad_c_ptr + at, mask=inside, other=0.0).to(tl.float32)
    i, i_slope = sigmoid(i, accurate)
    g, g_slope = tanh(g, accurate)
    o, o_slope = sigmoid(o, accurate)
    t, t_slope = tanh(i * g, accurate)
    d_cell = grad_c + grad_h * o * t_slope
    storage = d_pre_ptr.dtype.element_ty
    channel = block * BLOCK_C + tl.arange(0, BLOCK_C)
    out = d_pre_ptr + _corner(image, y0, x0, height, width, 3 * C, NHWC)
    out += _offsets(ry * width + rx, channel, height, width, 3 * C, NHWC)
    gate = _plane(height, width, C, NHWC)
    tl.store(out, (d_cell * g * i_slope).to(storage), mask=inside)
    tl.store(out + gate, (d_cell * i * g_slope).to(storage), mask=inside)
    tl.store(out + 2 * gate, (grad_h * t * o_slope).to(storage), mask=inside)

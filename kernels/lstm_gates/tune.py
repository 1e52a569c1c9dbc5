"""Measures the Triton `lstm_gates` on the GPU at hand, against the bandwidth of a plain copy there.

    python -m unrain.kernels.lstm_gates.tune --channels 32 --height 512 --width 512

Prints each tile with the share of the copy's bandwidth it reaches; the best belongs into kernels/lstm_gates/triton.py.
"""

from __future__ import annotations

import argparse
from itertools import product

import torch

from ..conv_lstm.tune import milliseconds


def measure(channels: int, height: int, width: int, dtype: torch.dtype, nhwc: bool) -> None:
    from . import triton as implementation

    form = torch.channels_last if nhwc else torch.contiguous_format
    pre = torch.randn(1, 4 * channels, height, width, device="cuda", dtype=dtype).to(memory_format=form)
    c = torch.randn(1, channels, height, width, device="cuda").to(memory_format=form)
    out = torch.empty_like(c, dtype=dtype), torch.empty_like(c)
    moved = sum(each.numel() * each.element_size() for each in (pre, c, *out))
    source, copy = torch.empty(2, moved // 2, dtype=torch.int8, device="cuda")
    reachable = moved / milliseconds(lambda: copy.copy_(source))
    default = implementation.TILE, implementation.WARPS
    try:
        for tile, warps in product((512, 1024, 2048, 4096), (4, 8)):
            implementation.TILE, implementation.WARPS = tile, warps
            time = milliseconds(lambda: implementation.forward(out, pre, c, None))
            mark = "  (default)" if (tile, warps) == default else ""
            print(
                f"  tile {tile:4d}, {warps} warps: {time * 1e3:7.1f} us, {moved / time / reachable:.0%} of a copy{mark}"
            )
    finally:
        implementation.TILE, implementation.WARPS = default


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--channels", type=int, default=32)
    parser.add_argument("--height", type=int, default=512)
    parser.add_argument("--width", type=int, default=512)
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        parser.error("there is no CUDA GPU to measure on")
    for dtype, nhwc in product((torch.float32, torch.float16), (False, True)):
        print(f"{torch.cuda.get_device_name()}, {dtype}, {'NHWC' if nhwc else 'NCHW'}")
        measure(arguments.channels, arguments.height, arguments.width, dtype, nhwc)


if __name__ == "__main__":
    main()

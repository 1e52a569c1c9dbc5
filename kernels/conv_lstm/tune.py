"""Finds the fastest tiling of the Triton `conv_lstm` on the GPU at hand, and whether it beats cuDNN there.

    python -m unrain.kernels.conv_lstm.tune --channels 32 --height 512 --width 512

Nothing calls this by itself. What it finds is kept in the cache folder ($UNRAIN_CACHE, or ~/.cache/unrain), where the
kernel picks its tiling up and "auto" decides by it.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable

import torch

from .. import registry
from ..lstm_gates import lstm_gates
from . import reference
from .tiling import Measured, Tiling, architecture, candidates, default_tiling, remember

DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16}


def tune(
    channels: int,
    c_in: int | None = None,
    dtype: torch.dtype = torch.float16,
    size: tuple[int, int] = (512, 512),
    batch: int = 1,
    first: bool = False,
    report: Callable[[str], None] = lambda line: None,
) -> Measured:
    """Times every candidate that runs and is right, and the rival: cuDNN in channels_last, then `lstm_gates`."""
    from . import triton as implementation

    c_in = channels if c_in is None else c_in
    x, h, c, weight, bias = _inputs(batch, c_in, channels, size, dtype, first)
    out = torch.empty_like(x[:, :1].expand(-1, channels, -1, -1), memory_format=torch.channels_last)
    outs = out, torch.empty_like(out, dtype=torch.float32, memory_format=torch.channels_last)
    ready = implementation.packed(weight)
    rival_weight = weight.contiguous(memory_format=torch.channels_last)

    def rival():
        return lstm_gates(reference.pre_activations(x, h, rival_weight, bias), c)

    with torch.inference_mode():
        expected = rival()
        rival_time = milliseconds(rival) * 1e3
        report(f"cuDNN and lstm_gates: {rival_time:.1f} us")
        arch = architecture(x.device)
        tilings = dict.fromkeys(
            [default_tiling(c_in, channels, dtype, True, arch, first, False), *candidates(channels, arch)]
        )
        times: dict[Tiling, float] = {}
        for tiles in tilings:

            def run(tiles: Tiling = tiles) -> None:
                implementation.launch_forward(outs, x, h, c, ready, bias, tiles)

            try:
                run()
                _same(outs, expected)
                times[tiles] = milliseconds(run) * 1e3
            except Exception as error:  # one that needs more shared memory or registers than there are
                report(f"{tiles}: {type(error).__name__}: {str(error)[:80]}")
            else:
                report(f"{tiles}: {times[tiles]:.1f} us")
    if not times:
        raise RuntimeError(f"no tiling of conv_lstm runs on {torch.cuda.get_device_name()}")
    best = min(times, key=times.__getitem__)
    found = Measured(best, times[best], rival_time)
    remember(x.device, c_in, channels, dtype, first, found)
    registry.forget()
    return found


def milliseconds(run: Callable[[], object], rounds: int = 25) -> float:
    """Median time of one call on the GPU, the L2 cache flushed before each."""
    flush = torch.empty(256 << 20, dtype=torch.int8, device="cuda")
    for _ in range(3):
        run()
    times = []
    for _ in range(rounds):
        flush.zero_()
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        run()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end))
    return statistics.median(times)


def _inputs(batch, c_in, channels, size, dtype, first):
    def image(depth, kind):
        return torch.randn(batch, depth, *size, device="cuda", dtype=kind).to(memory_format=torch.channels_last)

    fan = 9 * (c_in + channels)
    weight = torch.randn(4 * channels, c_in + channels, 3, 3, device="cuda", dtype=dtype) / fan**0.5
    bias = torch.randn(4 * channels, device="cuda", dtype=dtype)
    state = (None, None) if first else (image(channels, dtype), image(channels, torch.float32))
    return image(c_in, dtype), *state, weight, bias


def _same(outs, expected) -> None:
    for mine, theirs in zip(outs, expected, strict=True):
        # The rival rounds its pre-activations to the storage dtype, so only a wrong kernel differs by this much.
        if not (mine.float() - theirs.float()).abs().max() < 0.05:
            raise ArithmeticError("differs from cuDNN")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--channels", type=int, nargs="+", default=[32])
    parser.add_argument("--input-channels", type=int, help="as many as channels when left out")
    parser.add_argument("--height", type=int, default=512)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--dtype", choices=DTYPES, default="float16")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        parser.error("there is no CUDA GPU to measure on")
    size = arguments.height, arguments.width
    for channels in arguments.channels:
        for first in (False, True):
            print(f"{torch.cuda.get_device_name()}, C = {channels}, {'first step' if first else 'step'}")
            dtype = DTYPES[arguments.dtype]
            found = tune(channels, arguments.input_channels, dtype, size, arguments.batch, first, print)
            print(f"best: {found}, {found.rival_microseconds / found.microseconds:.2f} times as fast as cuDNN\n")


if __name__ == "__main__":
    main()

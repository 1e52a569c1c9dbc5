"""The same cases on a GPU: CUDA events, a second-level cache that holds nothing of ours, warm clocks."""

from functools import cache

import pytest
import torch
from test_kernels import enter, listed

ROUNDS, FLUSHED = 50, 256 << 20  # bytes: more than the second-level cache of any GPU


@cache
def _flushed() -> torch.Tensor:
    return torch.empty(FLUSHED, dtype=torch.uint8, device="cuda")


def on_the_gpu(run) -> float:
    """Milliseconds between two events around the run, with nothing of an earlier run left in the cache.

    The spin before it gives the host time to queue all launches: what is timed is the GPU and not Python.
    """
    _flushed().zero_()
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda._sleep(2_000_000)
    begin.record()
    run()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end)


@pytest.mark.gpu
@pytest.mark.parametrize(("name", "contender"), listed("cuda"))
def test_kernels_gpu(name, contender, compete, request):
    enter(name, contender, compete, request, "cuda", ROUNDS, clock=on_the_gpu)

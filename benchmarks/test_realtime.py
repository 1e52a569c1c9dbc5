"""From a camera's bytes to bytes without rain, frame after frame through a `Stream`: `-k realtime`.

    pytest benchmarks --benchmark-only -k realtime                              a look, a minute
    pytest benchmarks --benchmark-only -k realtime --frames 1000 --sizes 720p   what a vehicle would see

Rows are medians; p50, p99 and the maximum over the frames are printed, too, and kept in the results. The clip wanders
and has rain on it, so that no frame is like the one before. The contenders take turns frame by frame, each with a state
of its own. Decoding and encoding have rows in the suite `pipeline`; `unrain run` prints the rate of all three together.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import torch
from case import Outcome
from test_models import height_width
from test_pipeline import pictures

from unrain import Engine, Stream, load
from unrain.engine.benchmark.limits import operations
from unrain.engine.benchmark.timing import interleaved
from unrain.engine.psnr import psnr

NETWORKS = ("wiper", "wiper-s")
DIFFERENT = 30  # frames before the clip begins again
AGREE = 8  # frames over which the contenders must give the same clip
CONTENDERS = ("unrain", "unrain, every frame anew", "eager PyTorch", "eager PyTorch, channels last")

Process = Callable[[np.ndarray], np.ndarray]


@cache
def clip(size: tuple[int, int]) -> list[np.ndarray]:
    noise = np.random.default_rng(0)
    frames = []
    for picture in pictures(DIFFERENT, size):
        streaks = noise.random(size) < 0.02
        frames.append(np.where(streaks[..., None], np.uint8(220), picture))
    return frames


def by_hand(name: str, layout: torch.memory_format, carries: bool = True) -> Process:
    """As its user would write it in PyTorch."""
    model = load(name).to(memory_format=layout)
    state = None

    @torch.inference_mode()
    def process(frame: np.ndarray) -> np.ndarray:
        nonlocal state
        x = torch.from_numpy(frame).permute(2, 0, 1)[None].float().div(255).contiguous(memory_format=layout)
        picture, state = model.step(x, state if carries and state is not None else model.initial_state(x))
        return (picture[0].clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()

    return process


def streamed(name: str, size: tuple[int, int], carry: str | None) -> Process:
    stream = Stream(Engine(load(name), device="cpu"), size, float("inf"), carry=carry)
    assert stream.self_test is None, stream.self_test
    return lambda frame: stream.process(frame)[0]


def made(name: str, contender: str, size: tuple[int, int]) -> Process:
    if contender.startswith("unrain"):
        return streamed(name, size, "nothing" if "anew" in contender else None)
    return by_hand(name, torch.channels_last if "last" in contender else torch.contiguous_format)


def differs(process: Process, reference: Process, frames: list[np.ndarray]) -> str | None:
    """What is wrong with a contender's clip: 40 dB on every frame are asked of whatever precision it chose."""
    for number, frame in enumerate(frames[:AGREE]):
        error = np.square(process(frame).astype(np.float32) - reference(frame)).mean()
        if error > 255**2 / 1e4:
            return f"frame {number} is off by {psnr(error, peak=255):.1f} dB"
    return None


def in_turns(processes: dict[str, Process], frames: list[np.ndarray], count: int) -> dict[str, list[float]]:
    """Milliseconds of each frame; every contender goes on through the clip on its own."""
    places = dict.fromkeys(processes, 0)

    def following(name: str) -> Callable[[], object]:
        def run() -> np.ndarray:
            places[name] += 1
            return processes[name](frames[places[name] % len(frames)])

        return run

    return interleaved({name: following(name) for name in processes}, count)


def pytest_generate_tests(metafunc):
    sizes = [size for size in metafunc.config.getoption("--sizes").split(",") if size]
    cases = [(f"{name} {size}", each) for size in sizes for name in NETWORKS for each in CONTENDERS]
    metafunc.parametrize(("name", "contender"), cases, ids=[f"{n}-{e}".replace(" ", "_") for n, e in cases])


def test_realtime(name, contender, compete, request, capsys):
    network, label = name.split()
    size = height_width(label)
    count = request.config.getoption("--frames")

    def run_race(names: list[str]) -> dict[str, Outcome]:
        frames, found, processes = clip(size), {}, {}
        for each in names:
            process = made(network, each, size)
            reference = by_hand(network, torch.contiguous_format, carries="anew" not in each)
            found[each] = Outcome(wrong=differs(process, reference, frames))
            if not found[each].wrong:
                processes[each] = process
        work = {"operations": operations(load(network), *size), "traffic": 6 * size[0] * size[1]}
        for each, samples in in_turns(processes, frames, count).items():
            p50, p99 = np.percentile(samples, (50, 99))
            tail = {"p50_ms": round(p50, 2), "p99_ms": round(p99, 2), "max_ms": round(max(samples), 2)}
            found[each].samples, found[each].extra = samples, {**work, **tail, "frames": count}
            with capsys.disabled():
                print(f"\n{name}, {each}, {count} frames: " + ", ".join(f"{key} {tail[key]}" for key in tail))
        return found

    compete("realtime", name, contender, run_race)

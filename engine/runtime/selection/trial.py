"""A short race between the ways of running one network at one size; the result is kept on disk."""

from __future__ import annotations

import logging
import math
import os
import platform
import time
from collections.abc import Callable
from importlib import metadata
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ....kernels import native
from ...errors import UnrainError
from .. import cache
from ..backends import Runner, backend
from .candidates import TRIAL_ORDER, UNBUILT, Candidate

log = logging.getLogger("unrain.runtime")

SECONDS = 30.0  # UNRAIN_TRIAL_SECONDS; at 0 nothing is timed, and what needs no build is taken
ROUNDS = 5
_HOPELESS = 2.0  # times the best: one run is enough to know
_PACKAGES = ("torch", "openvino", "nncf", "onnxruntime", "triton", "tensorrt", "tensorrt_rtx")


class Result(NamedTuple):
    """The winner, every time measured in ms, why the others lost or were not tried, and how long it might take."""

    winner: str
    milliseconds: dict[str, float]
    notes: dict[str, str]
    seconds: float


Make = Callable[[Candidate], Runner | str]  # the runner once it has proved faithful, or why not


def bucket(height: int, width: int) -> int:
    """Pictures up to this many pixels a side (if they were square) share a trial: 64, 128, 256, 512."""
    side = 64
    while side < 512 and side * side < height * width:
        side *= 2
    return side


def budget(seconds: float | None) -> float:
    """How long a trial may take, where the caller leaves it open."""
    if seconds is not None:
        return seconds
    text = os.environ.get("UNRAIN_TRIAL_SECONDS", str(SECONDS))
    try:
        return float(text)
    except ValueError:
        raise UnrainError(f"UNRAIN_TRIAL_SECONDS must be a number of seconds, got {text!r}") from None


def question(
    model_hash: str, side: int, device: torch.device, threads: int, asked: tuple[str, str], known: list[Candidate]
) -> str:
    """The key of a trial: all that its outcome depends on, but the time it had."""
    return cache.key_of(
        model=model_hash,
        side=side,
        device=_device_name(device),
        threads=threads,
        asked=asked,
        ways=_able(known),
        native=native.tiers(),
        packages=_versions(),
    )


def stored(key: str, known: list[Candidate], seconds: float | None = None) -> Result | None:
    """An earlier result, if it is whole, had at least as much time as there is now, and its winner can still run."""
    result = _whole(cache.read("trial", key) or {})
    if result is None or result.seconds < budget(seconds) or result.winner not in _able(known):
        return None
    return result


def _whole(found: dict[str, Any]) -> Result | None:
    """A file on disk may hold anything."""
    if set(found) != set(Result._fields):
        return None
    result = Result(**found)
    numbers, texts = result.milliseconds, result.notes
    if not (isinstance(numbers, dict) and isinstance(texts, dict) and isinstance(result.winner, str)):
        return None
    sound = all(_is_time(each) for each in (*numbers.values(), result.seconds))
    sound = sound and all(isinstance(each, str) for each in texts.values())
    return result if sound and result.winner in numbers else None


def _is_time(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value) and value > 0


def _able(known: list[Candidate]) -> list[str]:
    return [str(each) for each in known if each.reason is None]


def race(
    known: list[Candidate],
    make: Make,
    model: nn.Module,
    picture: Tensor,
    key: str,
    seconds: float | None = None,
    wanted: str = "fp32",
) -> Result:
    """Times what can run on `picture`, best of a few rounds each in turn, until the time is up.

    What would take longer to build than there is time left is not begun, nor what a rival in the race leaves nothing to
    gain. Where nothing can run, the winner is "". Where there is no time at all, the precision that is `wanted` goes
    first.
    """
    seconds = budget(seconds)
    if seconds > 0:
        log.info("finding the fastest way to run this network here: once, for about %g seconds", seconds)
    begin = time.perf_counter()
    runners: dict[str, Runner] = {}
    times: dict[str, float] = {}
    notes = {str(each): each.reason for each in known if each.reason is not None}
    order = sorted(
        (each for each in known if each.reason is None), key=lambda each: _first_try(each, seconds > 0, wanted)
    )
    for each in order:
        name = str(each)
        left = seconds - (time.perf_counter() - begin)
        reason = _not_tried(each, runners, model, left, seconds)
        made = make(each) if reason is None else f"not tried, {reason}"
        if isinstance(made, str):
            notes[name] = made
            continue
        runners[name] = made
        if seconds > 0:
            timed(made, picture)
            times[name] = timed(made, picture)
    if not times:
        return Result(next(iter(runners), ""), {}, notes, seconds)
    close = [name for name in runners if times[name] <= _HOPELESS * min(times.values())]
    for _ in range(ROUNDS):
        if len(close) < 2 or time.perf_counter() - begin >= 1.5 * seconds:
            break
        for name in close:
            times[name] = min(times[name], timed(runners[name], picture))
    winner = min(times, key=lambda name: times[name])
    for name, value in times.items():
        if name != winner:
            notes[name] = f"{value:.1f} ms, {value / times[winner]:.2f} times the {times[winner]:.1f} ms of {winner}"
    result = Result(winner, times, notes, seconds)
    cache.write("trial", key, result._asdict())
    return result


def _not_tried(
    each: Candidate, runners: dict[str, Runner], model: nn.Module, left: float, seconds: float
) -> str | None:
    """Why it is not begun; while there is no runner at all, whatever comes is."""
    if not runners:
        return None
    way = backend(each.backend)
    for rival, why in way.OUTDONE_BY.items():
        if f"{rival} {each.precision}" in runners:
            return why
    if left <= 0:
        return f"the trial's {seconds:g} s were up"
    needed = way.build_seconds(model)
    if left < needed:
        return f"it takes about {needed:.0f} s to build, and the trial had {left:.0f} of its {seconds:g} s left"
    return None


def timed(runner: Runner, picture: Tensor) -> float:
    """Milliseconds of one run."""
    begin = time.perf_counter()
    runner.run(picture)
    if picture.device.type == "cuda":
        torch.cuda.synchronize(picture.device)
    return (time.perf_counter() - begin) * 1e3


def _first_try(each: Candidate, timed: bool, wanted: str) -> tuple[int, ...]:
    """Quick to build before slow to build; then, where there is time, the fast precisions before fp32."""
    place, exact = TRIAL_ORDER.index(each.backend), each.precision == "fp32"
    if timed:
        # int8 is slow to build, and asked for by name: it must not be what the time is up for. What stands first builds
        # nothing, and is what int8 has to beat.
        return (place > 0 and each.precision != "int8", place, exact)
    return (each.backend not in UNBUILT, each.precision != wanted, not exact, place)


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"{platform.machine()} {_processor()}"


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as lines:
            kept = [line for line in lines if line.startswith(("model name", "flags", "Features", "CPU part"))]
    except OSError:
        return platform.processor()
    return cache.key_of(cpu=sorted(set(kept)))


def _versions() -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for package in (*_PACKAGES, "unrain"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = None
    return found

"""Rounds that take turns: whatever the machine does meanwhile, it does to every contender alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from math import ceil
from typing import Any, NamedTuple

import numpy as np
import torch

from . import bystanders

REST = 0.005  # seconds before each run, in which the threads of the contender before go to sleep
LEAD = 5.0  # ms of runs that are not timed lead each that is, in which its own threads wake and the clocks rise
MOST_LEADS = 100
SHORT = 20.0  # ms: a run longer than this needs no lead

Run = Callable[[], Any]


class Spread(NamedTuple):
    """Milliseconds over the rounds: least, quartiles and median."""

    least: float
    low: float
    median: float
    high: float
    rounds: int


def spread(samples: list[float]) -> Spread:
    low, median, high = (float(each) for each in np.percentile(samples, (25, 50, 75)))
    return Spread(min(samples), low, median, high, len(samples))


def milliseconds(run: Run) -> float:
    """One run, to the end of what it started on a GPU."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    begin = time.perf_counter()
    run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return (time.perf_counter() - begin) * 1e3


def interleaved(
    contenders: Mapping[str, Run],
    rounds: int = 9,
    warmups: int = 2,
    on_round: Callable[[], object] | None = None,
    clock: Callable[[Run], float] = milliseconds,
) -> dict[str, list[float]]:
    """Milliseconds of every run of every contender, one run each a round, in an order that rotates."""
    names = list(contenders)
    samples: dict[str, list[float]] = {name: [] for name in names}
    leads: dict[str, int] = {}
    for name in names:
        usual = min(milliseconds(contenders[name]) for _ in range(max(warmups, 1)))
        leads[name] = min(ceil(LEAD / max(usual, 1e-3)), MOST_LEADS) if usual < SHORT else 0
    with bystanders.watched():
        for number in range(rounds):
            turn = number % len(names) if names else 0
            for name in names[turn:] + names[:turn]:
                time.sleep(REST)
                for _ in range(leads[name]):
                    contenders[name]()
                samples[name].append(clock(contenders[name]))
            if on_round is not None:
                on_round()
    return samples

"""What else the processor did while rounds were timed: other processes, and other machines on the same host."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

BUSY = 0.05  # of all cores: above this, figures are not to be relied on
SHORTEST = 1.0  # seconds: the system counts in hundredths, and less than this tells nothing
_STAT = Path("/proc/stat")


class Ticks(NamedTuple):
    """Seconds: of the clock, of all processors together, of this process and its children, and stolen by the host."""

    clock: float
    busy: float
    own: float
    stolen: float


_total = Ticks(0.0, 0.0, 0.0, 0.0)


@contextmanager
def watched() -> Iterator[None]:
    """Adds what happens inside to what `cores_taken` is the mean of."""
    global _total
    begin = _now()
    try:
        yield
    finally:
        end = _now()
        if begin and end:
            _total = Ticks(*(sum + after - before for sum, before, after in zip(_total, begin, end, strict=True)))


def cores_taken() -> float | None:
    """Cores that worked for others, on average over all rounds so far; None where the system does not say."""
    if _total.clock < SHORTEST:
        return None
    return round(max(_total.busy - _total.own + _total.stolen, 0.0) / _total.clock, 3)


def warning(taken: float | None, cores: int) -> str | None:
    """The line that belongs beside figures taken on a busy machine."""
    if taken is None or taken <= BUSY * cores:
        return None
    return (
        f"the machine was busy: other work took {taken:.2f} of its {cores} cores while the rounds ran; "
        "such figures say little, and those of many threads the least"
    )


def _now() -> Ticks | None:
    try:
        fields = _STAT.read_text().splitlines()[0].split()[1:9]
    except OSError:
        return None
    user, nice, system, _, _, irq, softirq, stolen = (int(each) / os.sysconf("SC_CLK_TCK") for each in fields)
    own = sum(os.times()[:4])
    return Ticks(time.perf_counter(), user + nice + system + irq + softirq, own, stolen)

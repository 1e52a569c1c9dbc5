"""Cost against size, stages and threads, and memory against size: `-k scaling`. `docs/performance.md` draws them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache

import pytest
import torch
from case import Outcome

from unrain import Engine, build, load
from unrain.engine.benchmark import backends
from unrain.engine.benchmark.timing import interleaved
from unrain.engine.runtime import fidelity

WAYS = ("eager fp32", "fused fp32", "fused bf16")
SIDES, STAGES, THREADS = (64, 128, 256, 384, 512), (1, 2, 4, 6, 8), tuple(range(1, (os.cpu_count() or 1) + 1))
DEPTH = 2  # stages where they are not what varies
POINTS = [
    *(("size", side) for side in SIDES),
    *(("stages", count) for count in STAGES),
    *(("threads", count) for count in THREADS[:4]),
]


def settings(axis: str, x: int) -> tuple[int, int, int | None]:
    """(pixels a side, stages, threads) of a point."""
    return {"size": (x, DEPTH, None), "stages": (128, x, None), "threads": (256, DEPTH, x)}[axis]


@pytest.mark.parametrize(
    ("name", "contender"), [(f"{axis} {x}", way) for axis, x in POINTS for way in WAYS], ids=lambda each: str(each)
)
def test_scaling(name, contender, compete, request):
    axis, x = name.split()
    side, stages, threads = settings(axis, int(x))
    rounds = request.config.getoption("--rounds") or 5

    def run_race(names):
        model = load("srn")
        model.stages = stages
        picture = fidelity.sample(side, side)
        reference = Engine(model, "eager", "fp32", device="cpu")(picture).clone()
        found, runs = {}, {}
        for each in names:
            engine = Engine(model, *each.split(), device="cpu", threads=threads)
            decibels = fidelity.decibels(engine(picture), reference)
            needed = fidelity.LIMITS[each.split()[1]]
            found[each] = Outcome(wrong=f"{decibels:.1f} dB to the reference" if decibels < needed else None)
            if not found[each].wrong:
                runs[each] = lambda engine=engine: engine(picture)
        for each, samples in interleaved(runs, rounds, warmups=1).items():
            found[each].samples = samples
        return found

    model = build("srn")
    model.stages = stages
    counts = backends.counted(model, torch.empty(1, 3, side, side))(backends.Row(*contender.split()))
    if threads not in (None, torch.get_num_threads()):  # the limit is that of all threads
        counts |= {"operations": 0, "traffic": 0}
    compete(
        "scaling",
        name,
        contender,
        run_race,
        axis=axis,
        x=int(x),
        pixels=side * side,
        **counts,
    )


MEMORY_SIDES = (256, 512, 1024)
# The system keeps the peak of a process (VmHWM), and forgets it when it is told to. What `resource` gives would be no
# less than the peak of the process this one was forked from.
MEMORY = """
import json, sys, time
backend, precision, *sides = sys.argv[1:]
import torch
from unrain import Engine, load
from unrain.engine.runtime import fidelity

def peak():
    found = next(line for line in open("/proc/self/status") if line.startswith("VmHWM:"))
    open("/proc/self/clear_refs", "w").write("5")
    return int(found.split()[1]) / 1024

torch.set_num_threads(2)
model = load("srn")
model.stages = 2
engine = Engine(model, backend, precision, device="cpu", tile=None)
engine(fidelity.sample(32, 32))
peak()
before, found = peak(), {}
for side in map(int, sides):
    begin = time.perf_counter()
    engine(fidelity.sample(side, side))
    found[side] = [1e3 * (time.perf_counter() - begin), peak() - before]
print(json.dumps(found))
"""


@cache
def first_runs(way: str) -> dict[str, tuple[float, float]]:
    """Side -> milliseconds and MiB above what the process held before, of the first run at that size."""
    command = [sys.executable, "-c", MEMORY, *way.split(), *map(str, MEMORY_SIDES)]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read the way Linux counts it")
@pytest.mark.parametrize(
    ("name", "contender"),
    [(f"memory {side}", way) for side in MEMORY_SIDES for way in WAYS],
    ids=lambda each: str(each),
)
def test_scaling_memory(name, contender, compete):
    """The time beside the peak is that of a first run, which gets its memory from the system."""
    side = name.split()[1]

    def run_race(names):
        found = {each: first_runs(each)[side] for each in names}
        return {each: Outcome([ms], extra={"peak_mib": round(mib, 1)}) for each, (ms, mib) in found.items()}

    compete("scaling", name, contender, run_race, axis="memory", x=int(side), pixels=int(side) ** 2)

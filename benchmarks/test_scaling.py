"""Cost against size, stages and threads, and memory against size: `-k scaling`. `docs/performance.md` draws them."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch
from case import Outcome

from unrain import Engine, build, load
from unrain.engine.benchmark import limits
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
    compete(
        "scaling",
        name,
        contender,
        run_race,
        axis=axis,
        x=int(x),
        pixels=side * side,
        precision=contender.split()[1],
        operations=limits.operations(model, side, side) if threads in (None, torch.get_num_threads()) else 0,
    )


MEMORY = """
import json, resource, sys
backend, precision, side = sys.argv[1], sys.argv[2], int(sys.argv[3])
import torch
from unrain import Engine, load
from unrain.engine.runtime import fidelity
torch.set_num_threads(2)
model = load("srn")
model.stages = 2
engine = Engine(model, backend, precision, device="cpu", tile=None)
engine(fidelity.sample(32, 32))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
engine(fidelity.sample(side, side))
print(json.dumps(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read the way Linux counts it")
@pytest.mark.parametrize(
    ("name", "contender"),
    [(f"memory {side}", way) for side in (256, 512, 1024) for way in WAYS],
    ids=lambda each: str(each),
)
def test_scaling_memory(name, contender, compete):
    """Peak memory of a run, above what the process holds before it. The time is that of the whole process."""
    side = int(name.split()[1])

    def run_race(names):
        found = {}
        for each in names:
            command = [sys.executable, "-c", MEMORY, *each.split(), str(side)]
            found[each] = Outcome()

            def run(command=command, outcome=found[each]):
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                outcome.extra["peak_mib"] = round(json.loads(done.stdout) / 1024, 1)

            found[each].samples = interleaved({each: run}, rounds=1, warmups=0)[each]
        return found

    compete("scaling", name, contender, run_race, axis="memory", x=side, pixels=side * side)

"""A wrong result has no speed: kernels that are off by one never reach the clock."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from book import Book
from case import OURS, Absent, Case, race, wrong
from rivals import plain_gates

from unrain import kernels
from unrain.engine.benchmark.limits import Limits

ROOT = Path(__file__).resolve().parent.parent.parent
PRE, CELL = torch.randn(1, 32, 6, 9), torch.randn(1, 8, 6, 9)
LIMITS = Limits(1e10, {"fp32": 1e11})


def off_by_one():
    """Our gates, of the pixel beside."""
    h, c = kernels.lstm_gates(PRE, CELL)
    return h.roll(1, dims=3), c


def case(ours, **others):
    contenders = {OURS: ours, "eager": lambda: plain_gates(PRE, CELL), **others}
    exact = lambda: plain_gates(PRE.double(), CELL.double())  # noqa: E731
    return Case("gates", contenders, exact, 1000, plain=lambda: plain_gates(PRE, CELL), rounds=3)


def test_what_is_right_is_timed():
    found = race(case(lambda: kernels.lstm_gates(PRE, CELL)), [OURS, "eager"])
    assert len(found[OURS].samples) == len(found["eager"].samples) == 3
    assert found[OURS].wrong is None


def test_a_kernel_that_is_off_by_one_is_called_wrong_and_never_timed():
    calls = []

    def broken():
        calls.append(1)
        return off_by_one()

    found = race(case(broken), [OURS, "eager"])
    assert "off by" in found[OURS].wrong and found[OURS].samples == []
    assert len(calls) <= 2, "it was run beyond the comparison"
    assert len(found["eager"].samples) == 3, "its rivals are timed all the same"


def test_a_rival_that_is_wrong_is_not_timed_either():
    found = race(case(lambda: kernels.lstm_gates(PRE, CELL), rival=off_by_one), [OURS, "rival"])
    assert found["rival"].wrong and not found["rival"].samples


def test_the_samples_of_the_tests_stand_before_the_clock_too():
    guarded = Case("gates", {OURS: lambda: CELL}, lambda: CELL.double(), 1, gate=lambda: "sample 7x5 differs", rounds=3)
    found = race(guarded, [OURS])
    assert found[OURS].wrong == "sample 7x5 differs" and not found[OURS].samples


def test_a_contender_that_is_absent_has_its_reason():
    def missing():
        raise Absent("not installed: pip install it")

    assert race(case(lambda: kernels.lstm_gates(PRE, CELL), rival=missing), ["rival"])["rival"].absent == (
        "not installed: pip install it"
    )


@pytest.mark.parametrize(
    ("result", "words"),
    [
        ((torch.zeros(2),), "off by"),
        ((torch.ones(3),), "shape"),
        ((torch.ones(2), torch.ones(2)), "2 results"),
        ((torch.tensor([1.0, float("nan")]),), "off by"),
    ],
)
def test_the_comparison_names_the_difference(result, words):
    assert words in wrong(result, (torch.ones(2),))


def test_a_wrong_row_is_written_without_a_time(tmp_path):
    book = Book()
    book.limits["cpu"] = LIMITS
    found = race(case(off_by_one), [OURS, "eager"])
    for name, outcome in found.items():
        book.add("kernels", "gates", name, outcome, "cpu")
    (path,) = book.write(tmp_path)
    ours, eager = json.loads(path.read_text())["rows"]
    assert ours["reason"].startswith("wrong") and ours["median_ms"] is None and ours["limit_share"] is None
    assert eager["median_ms"] > 0


BROKEN = """
from importlib import import_module
native = import_module("unrain.kernels.memory_update.native")
right = native.forward
def off_by_one(out, *rest):
    right(out, *rest)
    out[0].copy_(out[0].roll(1, dims=0))
native.forward = off_by_one
"""


def test_pytest_prints_wrong_and_no_speed(tmp_path):
    """The whole program with a broken op in it."""
    (tmp_path / "broken.py").write_text(BROKEN)
    command = [sys.executable, "-m", "pytest", "-p", "broken", "-p", "no:cacheprovider", "benchmarks/test_kernels.py"]
    command += ["--benchmark-only", "-k", "test_kernels and memory_update and (unrain or eager)", "--rounds", "3"]
    outer = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environment = {**outer, "PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=500)
    assert done.returncode == 1, done.stdout[-3000:] + done.stderr[-2000:]
    summary = done.stdout[done.stdout.index("medians of one run") :]
    (ours,) = [line for line in summary.splitlines() if line.strip().startswith("unrain ")]
    assert "wrong: result 0 is off by" in ours and " ms" not in ours
    (rival,) = [line for line in summary.splitlines() if line.strip().startswith("eager ")]
    assert " ms" in rival

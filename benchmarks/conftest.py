"""Equal conditions for all contenders, rounds that take turns, results as JSON, and the table of ratios at the end.

    pytest benchmarks --benchmark-only                      what runs on a laptop, in minutes
    pytest benchmarks --benchmark-only -k kernels           one suite: kernels, models, pipeline, ...
    pytest benchmarks --benchmark-only --sizes 720p,1080p   the networks at these sizes
    pytest benchmarks --benchmark-only --results            keep what was measured in benchmarks/results/MACHINE/

The contenders of a case are timed together, in the case's first test; every test then hands the rounds of its own
contender to pytest-benchmark, whose clock is set to them.
"""

import json
import os
import sys
from collections import defaultdict
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))  # for the tables of cases
sys.path.insert(0, str(HERE.parent / "tests" / "kernels"))  # for the table the tests are made from
sys.path.insert(0, str(HERE.parent / "tests" / "library"))  # for libunrain, and to call it
sys.path.insert(0, str(HERE.parent / "tests" / "program"))  # for networks that are not ours
sys.path.insert(0, str(HERE.parent / "tests" / "compile"))  # for the layouts of other projects

import terminal  # noqa: E402
from book import Book  # noqa: E402

from unrain.engine.benchmark import bystanders, conditions  # noqa: E402

THREADS = 2


def pytest_addoption(parser):
    group = parser.getgroup("unrain")
    group.addoption("--sizes", default="256x256,512x512", help="sizes of the networks: 480x640, 720p, 1080p, ...")
    group.addoption("--models", default="", help="these networks with all their rows, in place of the usual choice")
    group.addoption(
        "--rounds", type=int, default=None, help="timed runs of each contender, in place of each case's own"
    )
    group.addoption("--frames", type=int, default=40, help="frames of each contender of the real-time suite")
    group.addoption("--results", nargs="?", const="", default=None, help="folder to write the results to as JSON")


def pytest_configure(config):
    conditions.settle(min(THREADS, os.cpu_count() or 1))
    config.book = Book()


class ReplayClock:
    """pytest-benchmark's clock while it is handed rounds that were measured before."""

    now = 0.0

    def __call__(self):
        return ReplayClock.now


@pytest.fixture
def compete(request, benchmark):
    """compete(suite, case, contender, run_race): its rounds in the race of its case, or the reason why none.

    `run_race(names)` gives {contender: Outcome} of all contenders of the case that this session has asked for.
    """
    book = request.config.book

    def enter(suite, case, contender, run_race, device="cpu", **about):
        if (suite, case) not in book.outcomes:
            names = [item.callspec.params["contender"] for item in request.session.items if _same(item, request, case)]
            book.look(device)
            book.outcomes[suite, case] = run_race(names)
            book.look(device)
        outcome = book.outcomes[suite, case][contender]
        book.add(suite, case, contender, outcome, device, **about)
        benchmark.group = case
        benchmark.extra_info["contender"] = contender
        if outcome.absent:
            pytest.skip(outcome.absent)
        if outcome.wrong:
            pytest.fail(f"wrong: {outcome.wrong}", pytrace=False)
        replay(benchmark, outcome.samples)

    return enter


def _same(item, request, case):
    return item.function is request.node.function and item.callspec.params.get("name") == case


def replay(benchmark, samples):
    rounds = iter(samples)

    def one():
        ReplayClock.now += next(rounds) / 1e3

    benchmark.pedantic(one, rounds=len(samples), iterations=1)


def pytest_collection_modifyitems(items):
    for item in items:
        item.add_marker(pytest.mark.benchmark(timer=ReplayClock(), disable_gc=False))
        if "gpu" in item.keywords and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="no CUDA GPU on this machine"))


def pytest_terminal_summary(terminalreporter, config):
    tables = defaultdict(list)
    for rows in config.book.rows().values():
        for row in rows:
            tables[row["case"]].append(row)
    if not tables:
        return
    terminalreporter.section("medians of one run; times: how many times the time of unrain's")
    for case, rows in tables.items():
        terminalreporter.write_line(case)
        for text in terminal.lines(rows):
            terminalreporter.write_line("    " + text)
    company = bystanders.warning(bystanders.cores_taken(), os.cpu_count() or 1)
    if company:
        terminalreporter.write_line(company, yellow=True)


def pytest_sessionfinish(session):
    folder = session.config.getoption("--results")
    if folder is None or hasattr(session.config, "workerinput"):
        return
    target = Path(folder) if folder else HERE / "results" / conditions.machine()
    for path in session.config.book.write(target):
        sys.stderr.write(f"\nwritten to {path}")


def pytest_benchmark_update_machine_info(config, machine_info):
    """What a figure depends on; no more of the machine than that."""
    for key in ("node", "system", "release", "python_build"):
        machine_info.pop(key, None)
    machine_info.update(json.loads(json.dumps(conditions.facts("cuda" if torch.cuda.is_available() else "cpu"))))

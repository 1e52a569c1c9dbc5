"""Equal conditions for all contenders, the gate that stands before every timing, and the table of ratios at the end."""

import ctypes
import os
import platform
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))  # for the tables of cases

THREADS = 2
# glibc hands large blocks back to the system and page-faults them in again, which makes any allocating function look
# several times slower than it is. All contenders get the same allocator, one that keeps what it has.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3


def pytest_configure(config):
    torch.set_num_threads(min(THREADS, os.cpu_count() or 1))
    torch.set_flush_denormal(True)
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        for option, value in ((_M_MMAP_THRESHOLD, 1 << 30), (_M_TRIM_THRESHOLD, (1 << 31) - 1), (_M_TOP_PAD, 1 << 28)):
            libc.mallopt(option, value)


def tensors(result):
    """A contender's result as a flat list of tensors."""
    parts = result if isinstance(result, (tuple, list)) else (result,)
    return [torch.from_numpy(each) if isinstance(each, np.ndarray) else each.detach() for each in parts]


def wrong(result, exact, plain=None):
    """What is wrong with a result, or None. `plain`: the plain reference's result, which sets how exact ours must be.

    Ours may err at most twice as much as plain PyTorch in the same precision, plus one unit in the last place; a rival
    need only compute the same thing.
    """
    result, exact = tensors(result), tensors(exact)
    if len(result) != len(exact):
        return f"{len(result)} results where there should be {len(exact)}"
    for index, (got, true) in enumerate(zip(result, exact, strict=True)):
        if got.shape != true.shape:
            return f"result {index} has shape {tuple(got.shape)}, not {tuple(true.shape)}"
        if not got.is_floating_point():
            if not torch.equal(got.cpu(), true.cpu().to(got.dtype)):
                return f"result {index} differs"
            continue
        got, true = got.double().cpu(), true.double().cpu()
        error = (got - true).abs().max()
        spacing = torch.finfo(result[index].dtype).eps * true.abs().max()
        usual = (tensors(plain)[index].double().cpu() - true).abs().max() if plain is not None else 1e3 * spacing
        if not error <= 2 * usual + spacing:
            return f"result {index} is off by {error:.2e}, where {2 * usual + spacing:.2e} is allowed"
    return None


@pytest.fixture
def timed(benchmark):
    """timed(function, exact, plain=None): checks the result, then times the function; a wrong one is never timed."""

    def check_and_time(function, exact, plain=None, rounds=15):
        problem = wrong(function(), exact, plain)
        if problem is not None:
            benchmark.extra_info["wrong"] = problem
            pytest.fail(f"wrong: {problem}", pytrace=False)
        for _ in range(2):
            function()
        benchmark.pedantic(function, rounds=rounds, iterations=1)

    return check_and_time


def ratios(benchmarks):
    """Rows (case, contender, median ms, times ours, goal, share of the copy limit) from pytest-benchmark's results."""
    medians = {
        (each.group, each.extra_info["contender"]): each for each in benchmarks if "contender" in each.extra_info
    }
    rows = []
    for (group, contender), each in medians.items():
        ours = medians.get((group, "unrain"))
        median = each.stats.median * 1e3
        times = median / (ours.stats.median * 1e3) if ours else float("nan")
        rows.append((group, contender, median, times, each.extra_info.get("goal"), each.extra_info.get("limit")))
    return rows


def pytest_terminal_summary(terminalreporter):
    session = getattr(terminalreporter.config, "_benchmarksession", None)
    rows = ratios([each for each in session.benchmarks if each.stats]) if session else []
    if not rows:
        return
    terminalreporter.section("times against unrain (medians of one run)")
    group = None
    for case, contender, median, times, goal, limit in rows:
        if case != group:
            terminalreporter.write_line(case)
            group = case
        bound = "" if limit is None else f"   {100 * limit / median:3.0f}% of the copy limit"
        aim = "" if goal is None else f"   goal {goal:.2f}: {'reached' if times >= goal else 'missed'}"
        terminalreporter.write_line(f"    {contender:42} {median:9.3f} ms  {times:6.2f} x{bound}{aim}")


def pytest_benchmark_update_machine_info(config, machine_info):
    """What a figure depends on; no more of the machine than that."""
    for key in ("node", "system", "release", "python_build"):
        machine_info.pop(key, None)
    machine_info["torch"] = torch.__version__
    machine_info["threads"] = torch.get_num_threads()
    machine_info["load"] = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    if torch.cuda.is_available():
        machine_info["gpu"] = torch.cuda.get_device_name()


@pytest.fixture(scope="session")
def copy_bandwidth():
    """Bytes a second that a copy moves (read and written both counted), the best of several."""
    import time

    source = torch.ones(64 << 20, dtype=torch.uint8)
    target = torch.empty_like(source)
    best = min(_timed_copy(time.perf_counter, source, target) for _ in range(10))
    return 2 * source.numel() / best


def _timed_copy(clock, source, target):
    begin = clock()
    target.copy_(source)
    return clock() - begin

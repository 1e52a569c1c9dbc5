"""Every op against the strongest free way to do the same: `pytest benchmarks/ --benchmark-only -k kernels`."""

from functools import cache

import pytest
from kernel_cases import OURS, Case, cases

from unrain import kernels


@cache
def table(device: str) -> dict[str, Case]:
    return {case.name: case for case in cases(device)}


@cache
def truth(device: str, name: str):
    """The float64 result, and that of the plain reference, which says how exact ours must be."""
    case = table(device)[name]
    with kernels.use("reference"):
        return case.exact(), (case.plain or case.contenders[OURS])()


def _pairs(device: str):
    return [
        pytest.param(name, contender, id=f"{name}-{contender}".replace(" ", "_"))
        for name, case in table(device).items()
        for contender in case.contenders
    ]


def _run(device, name, contender, timed, benchmark, bandwidth):
    case = table(device)[name]
    exact, plain = truth(device, name)
    benchmark.group = name
    benchmark.extra_info.update(contender=contender, limit=case.traffic / bandwidth * 1e3)
    if contender in case.goals:
        benchmark.extra_info["goal"] = case.goals[contender]
    timed(case.contenders[contender], exact, plain if contender.startswith(OURS) else None)


@pytest.mark.parametrize(("name", "contender"), _pairs("cpu"))
def test_kernels(name, contender, timed, benchmark, copy_bandwidth):
    if contender.startswith("OpenCV"):
        pytest.importorskip("cv2")
    if contender.startswith(OURS):
        reasons = {op: why["native"] for op, why in kernels.info().items() if name.startswith(op)}
        if all(why != "available" for why in reasons.values()):
            pytest.skip(f"the native kernels are not there: {reasons}")
    _run("cpu", name, contender, timed, benchmark, copy_bandwidth)

"""Every op against the strongest free way to do the same: `pytest benchmarks/ --benchmark-only -k kernels`."""

from dataclasses import replace

import pytest
from case import OURS, Outcome, race
from kernel_cases import built, pairs
from op_db import OPS, assert_as_accurate, exact, run

from unrain import kernels


def samples_pass(case: str, device: str = "cpu") -> str | None:
    """The samples that the op's tests are made from, in float32: what is wrong with the first that fails."""
    op = OPS[case.split()[0]]
    for sample in op.samples:
        args = sample.at(op.dtypes[0], device)
        with kernels.use("reference"):
            plain, plain_gradients = run(op, sample, args)
        outputs, gradients = run(op, sample, args)
        true, true_gradients = exact(op, sample, args)
        try:
            for got, usual, right in zip(
                (*outputs, *gradients), (*plain, *plain_gradients), (*true, *true_gradients), strict=False
            ):
                assert_as_accurate(got, usual, right, sample.name)
        except AssertionError as error:
            return str(error).splitlines()[0]
    return None


def listed(device: str):
    return [
        pytest.param(name, contender, id=f"{name}-{contender}".replace(" ", "_")) for name, contender in pairs(device)
    ]


def enter(name, contender, compete, rounds, device="cpu", **clock):
    if contender.startswith(OURS) and device == "cpu":
        reasons = {op: why["native"] for op, why in kernels.info().items() if name.split()[0] == op}
        if any(why != "available" for why in reasons.values()):
            pytest.skip(f"the native kernels are not there: {reasons}")

    def run_race(names: list[str]) -> dict[str, Outcome]:
        case = built(name, device)
        case = replace(case, rounds=rounds or case.rounds, gate=lambda: samples_pass(name, device))
        found = race(case, names, **clock)
        for each, outcome in found.items():
            outcome.extra = {
                "operations": case.operations,
                "traffic": case.traffic,
                "goal": case.goals.get(each),
                **outcome.extra,
            }
        return found

    compete("kernels", name, contender, run_race, device)


@pytest.mark.parametrize(("name", "contender"), listed("cpu"))
def test_kernels(name, contender, compete, request):
    enter(name, contender, compete, request.config.getoption("--rounds"))

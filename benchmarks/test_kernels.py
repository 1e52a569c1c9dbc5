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


def enter(name, contender, compete, request, device="cpu", usual_rounds=None, **clock):
    if contender.startswith(OURS) and device == "cpu":
        reasons = {op: why["native"] for op, why in kernels.info().items() if name.split()[0] == op}
        if any(why != "available" for why in reasons.values()):
            pytest.skip(f"the native kernels are not there: {reasons}")
    rounds = request.config.getoption("--rounds") or usual_rounds

    def run_race(names: list[str]) -> dict[str, Outcome]:
        """The second half of the rounds: the first of all cases come before, in the session's first race.

        What else a machine does to its caches and its memory comes in spells of seconds, which are no property of a
        kernel: the halves lie as far apart as the session is long, and what differs between them widens the quartiles.
        """
        first = request.config.book.sittings
        for case, contenders in chosen(request).items():
            if (device, case) not in first:
                first[device, case] = sitting(case, contenders, device, rounds, clock)
        return joined(first[device, name], sitting(name, names, device, rounds, clock))

    compete("kernels", name, contender, run_race, device)


def chosen(request) -> dict[str, list[str]]:
    """Case -> contenders that this session runs."""
    found: dict[str, list[str]] = {}
    for item in request.session.items:
        if item.function is request.node.function:
            found.setdefault(item.callspec.params["name"], []).append(item.callspec.params["contender"])
    return found


def sitting(name: str, names: list[str], device: str, rounds: int | None, clock) -> dict[str, Outcome]:
    case = built(name, device)
    half = -(-(rounds or case.rounds) // 2)
    found = race(replace(case, rounds=half, gate=lambda: samples_pass(name, device)), names, **clock)
    for each, outcome in found.items():
        about = {"operations": case.operations, "traffic": case.traffic, "goal": case.goals.get(each)}
        outcome.extra = {**about, **outcome.extra}
    return found


def joined(first: dict[str, Outcome], second: dict[str, Outcome]) -> dict[str, Outcome]:
    for name, outcome in second.items():
        outcome.wrong = outcome.wrong or first[name].wrong
        outcome.samples = [] if outcome.wrong else first[name].samples + outcome.samples
    return second


@pytest.mark.parametrize(("name", "contender"), listed("cpu"))
def test_kernels(name, contender, compete, request):
    enter(name, contender, compete, request)

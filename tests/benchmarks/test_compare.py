"""Two results of one machine: noise is no regression, a fifth more time is."""

import json
import random
import time
from copy import deepcopy

import pytest
import torch
from case import Case, race

from unrain import kernels
from unrain.cli.main import main
from unrain.engine.benchmark import results
from unrain.engine.benchmark.compare import compare
from unrain.engine.benchmark.limits import Limits
from unrain.engine.errors import UnrainError

LIMITS = Limits(1e10, {"fp32": 1e11})
CASES = {"gates": 4.0, "pyramid": 1.5, "ssim": 12.0, "read": 0.8, "update": 2.5, "charbonnier": 6.0}


def document(rows):
    return {"format": 1, "suite": "kernels", "facts": {"machine": "here"}, "rows": rows}


def run(seed, slower=None, machine=1.0, noise=0.03):
    """Fifteen rounds of each, with noise that only ever adds, as a machine's does."""
    random.seed(seed)
    rows = []
    for case, base in CASES.items():
        for contender, factor in (("unrain", 1.0), ("eager", 3.0), ("torch.compile", 1.6)):
            planted = 1.2 if (case, contender) == slower else 1.0
            usual = base * factor * planted * machine
            samples = [usual * (1 + abs(random.gauss(0, noise))) for _ in range(15)]
            rows.append(results.row(case, contender, samples, LIMITS, ours=contender == "unrain"))
    return document(rows)


@pytest.mark.parametrize("seed", range(20))
def test_noise_is_no_regression(seed):
    assert not [each for each in compare(run(seed), run(seed + 100)) if each.regression]


def slow_down(row, factor):
    row.update({key: row[key] * factor for key in ("median_ms", "low_ms", "high_ms", "least_ms")})


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("case", CASES)
def test_a_fifth_more_time_is_flagged_and_nothing_else(seed, case):
    found = [each for each in compare(run(seed), run(seed + 100, slower=(case, "unrain"))) if each.regression]
    assert [(each.case, each.verdict) for each in found] == [(case, "slower")]


def test_a_machine_that_is_slower_as_a_whole_is_no_regression():
    found = compare(run(1), run(2, machine=1.4))
    assert {each.verdict for each in found} == {"machine"}


def test_a_rival_that_became_slower_is_not_ours():
    assert not [each for each in compare(run(1), run(2, slower=("ssim", "eager"))) if each.regression]


@pytest.mark.parametrize("seed", range(20))
def test_rivals_that_move_apart_show_how_restless_the_machine_was(seed):
    """Up to a fifth more or less in every row, ours and theirs: nothing can be told apart from that."""
    after = run(seed + 100)
    random.seed(seed)
    for row in after["rows"]:
        slow_down(row, random.uniform(0.8, 1.25))
    changes = compare(run(seed), after)
    assert all(each.margin > 0.2 for each in changes)
    assert not [each for each in changes if each.regression and each.ratio < 1.25]


@pytest.mark.parametrize("seed", range(20))
def test_a_rival_that_met_a_bad_moment_hides_nothing(seed):
    after = run(seed + 100, slower=("gates", "unrain"))
    slow_down(next(row for row in after["rows"] if (row["case"], row["contender"]) == ("ssim", "eager")), 1.8)
    assert [each.case for each in compare(run(seed), after) if each.regression] == ["gates"]


def test_of_several_runs_the_quietest_counts(tmp_path):
    """Row by row; the load of each run hides another one, and none hides the planted fifth."""
    for name, planted in (("before", None), ("after", ("gates", "unrain"))):
        for turn in range(3):
            made = run(turn + 10 * len(name), slower=planted)
            for row in made["rows"][turn::3]:
                slow_down(row, 1.9)
            (tmp_path / name / str(turn)).mkdir(parents=True)
            (tmp_path / name / str(turn) / "kernels.json").write_text(json.dumps(made))
    changes = compare(*(results.read(tmp_path / name) for name in ("before", "after")))
    assert [each.case for each in changes if each.regression] == ["gates"]


@pytest.mark.parametrize("seed", range(20))
def test_of_runs_in_turns_a_planted_fifth_is_flagged_and_nothing_else(tmp_path, seed):
    """Each run is slower as a whole by something of its own, and one of them by half, as on a machine others use."""
    random.seed(seed)
    spells = [random.uniform(1, 1.06) for _ in range(18)]
    for name, planted in (("before", None), ("again", None), ("after", ("gates", "unrain"))):
        for turn in range(6):
            spell = spells.pop() if turn else 1.5
            made = run(1000 * seed + 10 * len(name) + turn, slower=planted, machine=spell)
            (tmp_path / name).mkdir(exist_ok=True)
            (tmp_path / name / f"{turn}.json").write_text(json.dumps(made))
    before, again, after = (results.read(tmp_path / name) for name in ("before", "again", "after"))
    assert not [each for each in compare(before, again) if each.regression]
    assert [each.case for each in compare(before, after) if each.regression] == ["gates"]


def test_what_was_wrong_once_is_wrong(tmp_path):
    odd = run(2)
    odd["rows"][0].update(median_ms=None, reason="wrong: off by one")
    for name, made in (("1.json", run(1)), ("2.json", odd), ("3.json", run(3))):
        (tmp_path / name).write_text(json.dumps(made))
    assert results.read(tmp_path)["rows"][0]["reason"] == "wrong: off by one"


def test_a_folder_of_two_suites_or_none_is_one_line(tmp_path, capfd):
    (tmp_path / "1.json").write_text(json.dumps(run(1)))
    (tmp_path / "2.json").write_text(json.dumps({**run(1), "suite": "models"}))
    (tmp_path / "empty").mkdir()
    for folder, says in ((tmp_path, "several suites"), (tmp_path / "empty", "no results")):
        assert main(["bench", "--compare", str(folder), str(folder)]) == 1
        (line,) = capfd.readouterr().err.strip().splitlines()
        assert says in line


def test_what_became_wrong_or_is_gone_is_a_regression():
    after = run(2)
    for row in after["rows"]:
        if row["contender"] == "unrain" and row["case"] == "gates":
            row.update(median_ms=None, reason="wrong: off by one")
    after["rows"] = [row for row in after["rows"] if (row["case"], row["contender"]) != ("ssim", "unrain")]
    verdicts = {each.case: each.verdict for each in compare(run(1), after)}
    assert verdicts.pop("gates") == "wrong" and verdicts.pop("ssim") == "gone"
    assert set(verdicts.values()) == {"same"}


def test_results_of_two_machines_are_not_compared():
    other = run(2)
    other["facts"]["machine"] = "elsewhere"
    with pytest.raises(UnrainError, match="two machines"):
        compare(run(1), other)


def test_the_command_says_what_regressed(tmp_path, capfd):
    files = [tmp_path / name for name in ("before.json", "after.json", "slow.json")]
    for path, made in zip(files, (run(1), run(2), run(3, slower=("gates", "unrain"))), strict=True):
        path.write_text(json.dumps(made))
    assert main(["bench", "--compare", str(files[0]), str(files[1])]) == 0
    assert f"0 of {len(CASES)} rows regressed" in capfd.readouterr().err
    assert main(["bench", "--compare", str(files[0]), str(files[2]), "--json"]) == 1
    changes = json.loads(capfd.readouterr().out)
    assert [each["case"] for each in changes if each["regression"]] == ["gates"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        '{"rows": []}',
        '{"format": 9, "rows": []}',
        '{"format": 1, "rows": []}',
        '{"format": 1, "facts": {}, "rows": [{}]}',
    ],
)
def test_a_file_that_holds_no_results_is_one_line(tmp_path, capfd, text):
    (tmp_path / "odd.json").write_text(text)
    assert main(["bench", "--compare", str(tmp_path / "odd.json"), str(tmp_path / "odd.json")]) == 1
    assert len(capfd.readouterr().err.strip().splitlines()) == 1


def measured(extra: bool):
    """A real run of an op and a rival, by the processor's time, which other work on the machine hardly touches."""
    x = torch.rand(2, 3, 192, 192)
    part = x[:, :, :39].contiguous()  # a fifth

    def ours():
        y = kernels.gaussian_pyramid(x, levels=2, kernel="binomial")
        if extra:
            kernels.gaussian_pyramid(part, levels=2, kernel="binomial")
        return tuple(y)

    def rival():
        with kernels.use("reference"):
            return tuple(kernels.gaussian_pyramid(x, levels=2, kernel="binomial"))

    def processor_time(function):
        begin = time.process_time()
        for _ in range(8):
            function()
        return (time.process_time() - begin) * 1e3

    def exact():
        return tuple(kernels.gaussian_pyramid(x.double(), levels=2, kernel="binomial"))

    case = Case("pyramid", {"unrain": ours, "rival": rival}, exact, 1, rounds=80)
    found = race(case, list(case.contenders), clock=processor_time)
    assert not any(each.wrong for each in found.values()), found
    rows = [results.row("pyramid", name, each.samples, LIMITS, ours=name == "unrain") for name, each in found.items()]
    return document(rows)


@pytest.mark.slow  # and alone: beside another worker on the other core a fifth drowns
def test_two_real_runs_agree_and_a_planted_fifth_is_flagged():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        first, second, slow = measured(False), measured(False), measured(True)
    finally:
        torch.set_num_threads(before)
    assert [each.verdict for each in compare(first, second)] == ["same"]
    assert [each.verdict for each in compare(first, deepcopy(slow))] == ["slower"]

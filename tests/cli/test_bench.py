"""`unrain bench`: the table, what it refuses, and the picture of it."""

import json

import pytest
import torch

from unrain.engine.benchmark import backends
from unrain.engine.runtime import fidelity

WORDS = ["bench", "srn", "--size", "16x24", "-T", "1", "--rounds", "3", "--device", "cpu"]


@pytest.fixture
def bench(unrain_run, monkeypatch):
    """Rows that need no build, and no seconds spent on the machine's limits."""
    monkeypatch.setattr("unrain.engine.benchmark.limits._SIDE", {"cpu": 64, "cuda": 64})
    monkeypatch.setattr("unrain.engine.benchmark.limits._COPIED", 1 << 20)
    return lambda *words: unrain_run(*WORDS, *words)


def test_json_has_a_row_per_way_with_fidelity_time_and_limit(bench, tmp_path):
    picture, file = tmp_path / "roof.svg", tmp_path / "found.json"
    words = ["--json", "-b", "channels-last", "-b", "fused", "-o", file, "--roofline", picture]
    code, out, _ = bench(*words)
    answer = json.loads(out)
    assert code == 0 and answer == json.loads(file.read_text()) and picture.read_text().startswith("<svg")
    rows = {row["contender"]: row for row in answer["rows"]}
    assert {"eager fp32", "channels-last fp32", "fused fp32", "fused fp16"} <= rows.keys()
    for name, row in rows.items():
        if row["reason"] is None:
            assert row["median_ms"] > 0 and row["rounds"] == 3 and row["limit_share"] > 0, name
        else:
            assert row["median_ms"] is None, name
    assert rows["eager fp32"]["times_eager"] == 1.0
    fused = rows["fused fp32"]
    assert fused["reason"] or fused["fidelity_db"] is None or fused["fidelity_db"] >= 60
    assert "on a CPU" in rows["fused fp16"]["reason"]
    assert answer["facts"]["versions"]["torch"] == torch.__version__ and answer["facts"]["threads"] >= 1


def test_a_row_that_is_not_faithful_is_called_wrong_and_has_no_time(bench, monkeypatch):
    decibels = fidelity.decibels
    monkeypatch.setattr(fidelity, "decibels", lambda out, ref: min(decibels(out, ref), 33.3))
    _, out, err = bench("--json", "-b", "channels-last", "-p", "fp32")
    row = next(row for row in json.loads(out)["rows"] if row["contender"] == "channels-last fp32")
    assert row["reason"] == "wrong: 33.3 dB to the fp32 reference, 60 are needed"
    assert row["median_ms"] is None and row["limit_share"] is None and "wrong" in err
    monkeypatch.setenv("COLUMNS", "200")  # a row on one line
    _, text, _ = bench("-b", "channels-last", "-p", "fp32")
    (line,) = [line for line in text.splitlines() if line.strip().startswith("channels-last")]
    assert "wrong: 33.3 dB" in line and "%" not in line


def test_a_backend_that_computes_something_else_is_never_timed(monkeypatch):
    """An off-by-one in a test double: its picture is one pixel to the side."""
    torch.manual_seed(0)
    model = backends.Engine("srn", "eager", "fp32", stages=1, device="cpu").model
    picture = fidelity.sample(16, 24)
    found = backends.rows(model, picture, None, lambda backend, precision: (backend, precision) == ("fused", "fp32"))
    broken = backends.Row("fused", "bf16", run=lambda x: found[0].run(x).roll(1, dims=3))
    backends.judge(broken, picture, found[0].run(picture).clone())
    backends.time_rows([*found, broken], picture, rounds=3)
    assert broken.reason.startswith("wrong") and not broken.samples and found[0].samples


def test_the_table_says_what_runs_and_names_the_machine(bench):
    code, out, _ = bench("-b", "eager", "-p", "fp32")
    assert code == 0 and "srn (trained weights, 1 stages), 24 x 16, cpu" in out
    assert "reference" in out and "G operations" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--size", "4x4"], "--size must be"),
        (["--size", "big"], "--size must be"),
        (["-b", "magic"], "no row is called 'magic'"),
        (["-p", "fp8"], "no row is called 'fp8'"),
        (["--roofline", "roof.gif"], ".svg or .png"),
    ],
)
def test_wrong_use_is_one_line(bench, words, message):
    code, _, err = bench(*words)
    assert code == 1 and message in err and len(err.strip().splitlines()) == 1

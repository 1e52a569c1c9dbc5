"""The trial's memory on disk: what it depends on, and what a damaged or a missing folder leads to."""

import json
import sys
import time
from types import SimpleNamespace

import pytest
import torch

import unrain
from unrain.engine.errors import UnrainError
from unrain.engine.runtime import cache
from unrain.engine.runtime.backends import Runner
from unrain.engine.runtime.engine import Engine
from unrain.engine.runtime.selection import selection, trial
from unrain.engine.runtime.selection.candidates import Candidate
from unrain.kernels import native

CPU = torch.device("cpu")
KNOWN = [Candidate("eager", "fp32", None), Candidate("fused", "fp32", "there is no compiled part")]
GOOD = {"winner": "eager fp32", "milliseconds": {"eager fp32": 1.5}, "notes": {}, "seconds": 30.0}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("UNRAIN_CACHE", str(tmp_path))
    return tmp_path


def keep(folder, **changes) -> None:
    (folder / "trial-k.json").write_text(json.dumps({**GOOD, **changes}))


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "[" * 100_000,
        '{"a":' * 100_000,
        "\xff",
        '{"winner": "eager fp32"}',
        json.dumps({**GOOD, "winner": "gone fp32"}),
        json.dumps({**GOOD, "winner": None}),
        json.dumps({**GOOD, "winner": ["eager fp32"]}),
        json.dumps({**GOOD, "milliseconds": {}}),
        json.dumps({**GOOD, "milliseconds": {"eager fp32": "fast"}}),
        json.dumps({**GOOD, "milliseconds": {"eager fp32": float("nan")}}),
        json.dumps({**GOOD, "milliseconds": [["eager fp32", 1]]}),
        json.dumps({**GOOD, "notes": None}),
        json.dumps({**GOOD, "notes": {"fused fp32": 3}}),
        json.dumps({**GOOD, "seconds": "long"}),
        json.dumps({**GOOD, "more": 1}),
    ],
    ids=lambda text: text[:12] if len(text) > 200 else text,
)
def test_a_damaged_result_is_measured_again(folder, content):
    (folder / "trial-k.json").write_text(content, encoding="latin-1")
    assert trial.stored("k", KNOWN) is None


def test_an_engine_outlives_a_damaged_result(folder, monkeypatch):
    """The very file that it wrote, without its notes."""
    monkeypatch.setattr(selection, "candidates", lambda *_: KNOWN)
    model = unrain.build("srn", channels=8, blocks=1, stages=1).eval()
    Engine(model, device="cpu", trial_seconds=5)(torch.rand(1, 3, 16, 16))
    (kept,) = folder.glob("trial-*.json")
    kept.write_text(json.dumps({**json.loads(kept.read_text()), "notes": None}))
    engine = Engine(model, device="cpu", trial_seconds=5)
    engine(torch.rand(1, 3, 16, 16))
    assert engine.explain()["backend"] == "eager" and json.loads(kept.read_text())["notes"] is not None


def test_the_trial_depends_on_all_that_decides():
    base = ("hash", 64, CPU, 2, ("auto", "auto"), KNOWN)
    keys = {trial.question(*base)}
    for place, other in enumerate(
        ("other", 128, None, 1, ("auto", "fp32"), KNOWN[:1] + [KNOWN[1]._replace(reason=None)])
    ):
        if other is not None:
            keys.add(trial.question(*(other if place == where else value for where, value in enumerate(base))))
    assert len(keys) == 6


def test_a_first_run_without_the_compiled_part_does_not_decide_for_later_ones(monkeypatch):
    with_it = trial.question("hash", 64, CPU, 2, ("auto", "auto"), KNOWN)
    monkeypatch.setattr(native, "load", lambda: "it is not built")
    assert trial.question("hash", 64, CPU, 2, ("auto", "auto"), KNOWN) != with_it


def test_a_trial_with_more_time_than_the_last_one_had_is_held_again(folder, monkeypatch):
    keep(folder, seconds=1.0)
    assert trial.stored("k", KNOWN, 1.0) == trial.stored("k", KNOWN, 0.0) == trial.Result(**{**GOOD, "seconds": 1.0})
    assert trial.stored("k", KNOWN, 20.0) is None
    monkeypatch.setenv("UNRAIN_TRIAL_SECONDS", "20")
    assert trial.stored("k", KNOWN) is None
    monkeypatch.setenv("UNRAIN_TRIAL_SECONDS", "0.5")
    assert trial.stored("k", KNOWN) is not None
    monkeypatch.setenv("UNRAIN_TRIAL_SECONDS", "soon")
    with pytest.raises(UnrainError, match="UNRAIN_TRIAL_SECONDS must be a number of seconds, got 'soon'"):
        trial.stored("k", KNOWN)


def test_int8_that_takes_all_the_time_to_build_has_our_own_path_to_beat(folder, monkeypatch):
    known = [Candidate(*each, None) for each in (("eager", "fp32"), ("openvino", "int8"), ("fused", "bf16"))]
    made = []

    def make(each: Candidate) -> Sleeper:
        made.append(str(each))
        time.sleep(0.2 if each.precision == "int8" else 0)
        return Sleeper(0.002 if each.backend == "fused" else 0.02)

    monkeypatch.setattr(trial, "backend", lambda name: SimpleNamespace(OUTDONE_BY={}, build_seconds=lambda model: 0.0))
    result = trial.race(known, make, torch.nn.Identity(), torch.rand(1, 3, 8, 8), "k", 0.2)
    assert made == ["fused bf16", "openvino int8"] and result.winner == "fused bf16"


class Sleeper(Runner):
    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def run(self, x: torch.Tensor) -> torch.Tensor:
        time.sleep(self.seconds)
        return x


def test_a_cache_that_cannot_be_written_is_no_error(monkeypatch, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("UNRAIN_CACHE", str(blocked / "below"))
    cache.write("trial", "k", {"a": 1})
    assert cache.read("trial", "k") is None


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="as in a container")
def test_a_user_without_a_home_gets_an_engine_all_the_same(monkeypatch):
    """A number for a user, and no HOME: nothing can be kept, and everything runs."""
    import pwd

    for name in ("HOME", "XDG_CACHE_HOME", "UNRAIN_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", {}.__getitem__)
    with pytest.raises(UnrainError, match="no home folder to keep anything in; UNRAIN_CACHE names a folder"):
        cache.folder()
    monkeypatch.setattr(selection, "candidates", lambda *_: KNOWN)
    engine = Engine(unrain.build("srn", channels=8, blocks=1, stages=1).eval(), device="cpu", trial_seconds=1)
    engine(torch.rand(1, 3, 16, 16))
    assert engine.explain()["backend"] == "eager" and cache.read("trial", "k") is None

"""Engine: what goes in and comes out, what it chooses, what it remembers, what it says."""

import json

import numpy as np
import pytest
import torch
from torch import nn

import unrain
from unrain.engine.errors import UnrainError
from unrain.engine.runtime.backends import BACKENDS, Runner
from unrain.engine.runtime.engine import Engine
from unrain.engine.runtime.fidelity import decibels, sample
from unrain.engine.runtime.selection import known, selection, trial
from unrain.engine.runtime.selection.candidates import Candidate, candidates
from unrain.kernels import native

CPU = torch.device("cpu")


@pytest.fixture
def model():
    network = unrain.build("srn").eval()
    network.stages = 2
    return network


@pytest.fixture
def trials(tmp_path, monkeypatch):
    """A cache of its own, and time for trials."""
    monkeypatch.setenv("UNRAIN_CACHE", str(tmp_path))
    monkeypatch.setenv("UNRAIN_TRIAL_SECONDS", "20")
    return tmp_path


@pytest.fixture
def two_ways(monkeypatch):
    """Only the two backends that need no building."""
    real = candidates

    def some(network, device):
        return [each for each in real(network, device) if each.backend in ("eager", "fused")]

    monkeypatch.setattr(selection, "candidates", some)


@pytest.mark.parametrize("name", ["eager", "fused"])
@pytest.mark.parametrize("size", [(8, 8), (9, 31), (37, 53)])
def test_tensor_in_tensor_out(model, name, size):
    x = torch.rand(2, 3, *size)
    y = Engine(model, name, "fp32", "cpu")(x)
    with torch.inference_mode():
        assert decibels(y, model(x)) > 100
    assert y.dtype == x.dtype and y.min() >= 0 and y.max() <= 1
    assert Engine(model, name, "fp32", "cpu")(x.double()).dtype == torch.float64


def test_frame_in_frame_out(model):
    frame = (sample(37, 53)[0].permute(1, 2, 0).numpy() * 255).astype(np.uint8)
    y = Engine(model, "fused", "fp32", "cpu")(frame)
    with torch.inference_mode():
        x = torch.from_numpy(frame).permute(2, 0, 1)[None] / 255
        expected = (model(x).clamp(0, 1) * 255).round().byte()[0].permute(1, 2, 0).numpy()
    assert y.dtype == np.uint8 and y.shape == frame.shape
    assert np.abs(y.astype(int) - expected).max() <= 1


@pytest.mark.parametrize(
    "x", [np.zeros((8, 8), np.uint8), np.zeros((8, 8, 3), np.float32), torch.zeros(3, 8, 8), torch.zeros(1, 3, 7, 8)]
)
def test_what_is_no_picture_is_refused(model, x):
    with pytest.raises(UnrainError, match=r"expected|at least 8 x 8"):
        Engine(model, "eager", "fp32", "cpu")(x)


def test_a_name_loads_weights_and_stages_can_be_set(model):
    three = Engine(model, "eager", "fp32", "cpu", stages=3)
    x = torch.rand(1, 3, 16, 16)
    assert (three.stages, model.stages) == (3, 2)
    assert len(list(three.steps(x))) == 3
    with torch.inference_mode():
        assert torch.equal(three(x), model(x, T=3).clamp(0, 1))
    with pytest.raises(UnrainError, match="no stages"):
        Engine(unrain.build("timelapse"), stages=3)
    with pytest.raises(UnrainError, match="no-such"):
        Engine("no-such-network")


def test_wrong_choices_name_the_right_ones(model):
    with pytest.raises(UnrainError, match=", ".join(BACKENDS)):
        Engine(model, "fastest")
    with pytest.raises(UnrainError, match="fp32, bf16, fp16, int8"):
        Engine(model, precision="fp8")
    with pytest.raises(UnrainError, match="fp32 or bf16, not in fp16"):
        Engine(model, "fused", "fp16", "cpu")
    with pytest.raises(UnrainError, match=r"grid_sampler.*no such operation"):
        Engine(Warps().eval(), "fused", "fp32", device="cpu")
    with pytest.raises(UnrainError, match="threads must be at least 1"):
        Engine(model, threads=0)


def test_threads_hold_while_it_runs_and_are_given_back(model, monkeypatch):
    from unrain.engine.models.srn_brn import SRN

    before, seen = torch.get_num_threads(), []
    real = SRN.stage
    monkeypatch.setattr(SRN, "stage", lambda self, *args: seen.append(torch.get_num_threads()) or real(self, *args))
    wanted = 1 if before > 1 else 2
    engine = Engine(model, "eager", "fp32", "cpu", threads=wanted)
    engine(torch.rand(1, 3, 16, 16))
    for _ in engine.steps(torch.rand(1, 3, 16, 16)):
        assert torch.get_num_threads() == before
    assert set(seen) == {wanted} and len(seen) == 4
    assert torch.get_num_threads() == before


def test_auto_takes_the_faster_and_keeps_it_on_disk(model, trials, two_ways, monkeypatch):
    slow = {"fused": 0.0, "eager": 0.05}

    def timed(runner: Runner, picture):
        return 1 + 1e3 * slow["fused" if "Fused" in type(runner).__name__ else "eager"]

    monkeypatch.setattr(trial, "timed", timed)
    engine = Engine(model, device="cpu")
    assert engine.explain()["backend"] is None and "first picture decides" in str(engine.explain())
    engine(torch.rand(1, 3, 40, 40))
    assert engine.explain()["backend"] == "fused"
    (kept,) = trials.glob("trial-*.json")
    assert json.loads(kept.read_text())["winner"].startswith("fused")

    slow.update(fused=0.1)  # a second engine asks the disk, not the clock
    again = Engine(model, device="cpu")
    again(torch.rand(1, 3, 40, 40))
    assert again.explain()["backend"] == "fused"
    kept.write_text("{ half a fi")
    third = Engine(model, device="cpu")
    third(torch.rand(1, 3, 40, 40))
    assert third.explain()["backend"] == "eager"
    assert json.loads(kept.read_text())["winner"].startswith("eager")


def test_a_trial_begins_nothing_that_would_outlast_it(model, trials, monkeypatch):
    """A stage with weights of its own is a program to compile; a user was promised half a minute."""
    monkeypatch.setattr(selection, "candidates", lambda *_: [Candidate(b, "fp32", None) for b in ("eager", "compile")])
    engine = Engine(unrain.build("stagewise", channels=2).eval(), device="cpu", trial_seconds=30)
    engine(torch.rand(1, 3, 16, 16))
    told = engine.explain()
    assert told["backend"] == "eager" and told["milliseconds"] > 0
    assert "it takes about 60 s to build" in told["others"]["compile fp32"]


def test_a_trial_says_that_it_begins(model, trials, two_ways, caplog):
    with caplog.at_level("INFO", "unrain.runtime"):
        Engine(model, device="cpu", trial_seconds=0)(torch.rand(1, 3, 16, 16))
        assert not caplog.messages
        for _ in range(2):  # the second finds it on disk
            Engine(model, device="cpu", trial_seconds=7)(torch.rand(1, 3, 16, 16))
    assert caplog.messages == ["finding the fastest way to run this network here: once, for about 7 seconds"]


def test_auto_never_ends_slower_than_the_best_measured(model, trials, two_ways):
    engine = Engine(model, device="cpu")
    engine(torch.rand(1, 3, 64, 64))
    told = engine.explain()
    (kept,) = trials.glob("trial-*.json")
    times = json.loads(kept.read_text())["milliseconds"]
    assert told["milliseconds"] == min(times.values()) and len(times) >= 2
    assert f"{told['backend']} {told['precision']}" == min(times, key=times.get)


def test_what_a_trial_leaves_out_has_a_reason(model, trials, two_ways, monkeypatch):
    monkeypatch.setenv("UNRAIN_TRIAL_SECONDS", "1e-6")
    engine = Engine(model, device="cpu")
    engine(torch.rand(1, 3, 16, 16))
    told = engine.explain()
    everything = {str(each) for each in candidates(model) if each.backend in ("eager", "fused")}
    assert set(told["others"]) == everything - {f"{told['backend']} {told['precision']}"}
    assert any("were up" in reason for reason in told["others"].values())
    assert json.loads(json.dumps(told)) == told


def test_a_precision_that_is_too_far_off_falls_back_with_its_number(model, monkeypatch):
    monkeypatch.setitem(selection.fidelity.LIMITS, "bf16", 400.0)
    engine = Engine(model, "fused", "bf16", "cpu")
    told = engine.explain()
    assert (told["backend"], told["precision"]) == ("fused", "fp32")
    assert " dB to the fp32 reference, 400 are needed" in told["others"]["fused bf16"]
    assert "fp32 is taken" in told["notes"][0] and told["notes"][0] in str(told)


def test_auto_never_takes_what_is_too_far_off(model, trials, two_ways, monkeypatch):
    monkeypatch.setitem(selection.fidelity.LIMITS, "bf16", 400.0)
    engine = Engine(model, device="cpu")
    engine(torch.rand(1, 3, 32, 32))
    assert engine.explain()["precision"] == "fp32"


def test_a_backend_that_breaks_leaves_the_others_to_run(model, trials, two_ways, monkeypatch):
    from unrain.engine.runtime.backends import fused

    monkeypatch.setattr(fused, "make", lambda *_: 1 / 0)
    engine = Engine(model, device="cpu")
    engine(torch.rand(1, 3, 32, 32))
    assert engine.explain()["backend"] == "eager"
    assert "ZeroDivisionError" in engine.explain()["others"]["fused fp32"]


def test_nothing_at_all_is_one_line(model, monkeypatch):
    monkeypatch.setattr(selection, "candidates", lambda *_: [Candidate("eager", "fp32", "it is switched off")])
    with pytest.raises(UnrainError, match="no backend can run"):
        Engine(model, device="cpu")(torch.rand(1, 3, 16, 16))


@pytest.mark.parametrize(
    ("height", "width", "side"), [(8, 8, 64), (64, 64, 64), (100, 100, 128), (256, 256, 256), (2160, 3840, 512)]
)
def test_size_classes(height, width, side):
    assert trial.bucket(height, width) == side


def test_decibels():
    x = torch.full((1, 3, 8, 8), 0.5)
    assert decibels(x, x) == float("inf")
    assert decibels(x + 0.1, x) == pytest.approx(20, abs=1e-3)
    broken = x.clone()
    broken[0, 0, 0, 0] = torch.nan
    assert decibels(broken, x) == 0 and decibels(broken, broken) == float("inf")


def test_without_a_trial_what_needs_no_build_is_taken():
    engine = Engine("srn", device="cpu", trial_seconds=0)
    engine(sample(32, 32))
    assert (engine.explain()["backend"], engine.explain()["precision"]) == ("fused", "bf16")
    engine = Engine(Warps().eval(), device="cpu", trial_seconds=0)
    engine(sample(32, 32))
    assert engine.explain()["backend"] == "eager"
    assert "grid_sampler" in engine.explain()["others"]["fused fp32"]


class Warps(nn.Module):
    """No program has such an operation."""

    def forward(self, x):
        grid = nn.functional.affine_grid(torch.eye(2, 3)[None].to(x), [1, 3, *x.shape[-2:]], align_corners=False)
        return nn.functional.grid_sample(x, grid.expand(len(x), -1, -1, -1), align_corners=False)


def test_where_nothing_is_known_to_be_faster_nothing_is_raced(model, tmp_path, monkeypatch):
    monkeypatch.setenv("UNRAIN_CACHE", str(tmp_path))
    monkeypatch.delenv("UNRAIN_TRIAL_SECONDS", raising=False)
    monkeypatch.setitem(known.UNBEATEN, native.tiers()[0], ("SRN",))
    monkeypatch.setattr(trial, "race", lambda *_: pytest.fail("it was raced"))
    engine = Engine(model, device="cpu")
    engine(torch.rand(1, 3, 16, 16))
    told = engine.explain()
    assert told["backend"] == "fused" and told["milliseconds"] is None
    assert told["others"]["eager fp32"] == "not tried, nothing is known to be faster here"
    assert any("fused into" in note for note in told["notes"])
    assert not list(tmp_path.glob("trial-*"))

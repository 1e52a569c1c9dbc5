"""int8: learnt from pictures, kept only if it is close enough to the reference, and saying so if not."""

import numpy as np
import pytest
import torch

import unrain
from unrain.engine.errors import UnrainError
from unrain.engine.images import write_image
from unrain.engine.runtime.backends import backend
from unrain.engine.runtime.calibration import tensors
from unrain.engine.runtime.engine import Engine
from unrain.engine.runtime.fidelity import sample
from unrain.engine.runtime.selection import selection
from unrain.engine.runtime.selection.candidates import candidates

KEPT = [("openvino", "int8"), ("fused", "fp32")]  # the trial tries these alone


def needs_int8(model):
    module = backend("openvino")
    reason = module.available(torch.device("cpu")) or module.can_run(model, "int8", torch.device("cpu"))
    if reason is not None:
        pytest.skip(reason)


def test_int8_is_calibrated_on_the_folder_and_on_bundled_rain(tmp_path):
    for value in (40, 200):
        write_image(tmp_path / f"{value}.png", np.full((50, 300, 3), value, np.uint8))
    own, bundled = tensors(tmp_path)[:2], tensors(None)
    assert [each.shape for each in own] == 2 * [(1, 3, 50, 128)]
    assert {round(float(each.mean() * 255)) for each in own} == {40, 200}
    assert all(map(torch.equal, tensors(tmp_path)[2:], bundled)) and len({float(each.mean()) for each in bundled}) == 3
    (tmp_path / "empty").mkdir()
    with pytest.raises(UnrainError, match="holds no pictures"):
        tensors(tmp_path / "empty")


def test_int8_that_is_too_far_off_is_refused_with_its_number(monkeypatch, tmp_path):
    model = unrain.build("srn", blocks=1).eval()
    model.stages = 1
    needs_int8(model)
    monkeypatch.setenv("UNRAIN_CACHE", str(tmp_path))
    monkeypatch.setenv("UNRAIN_TRIAL_SECONDS", "100")
    monkeypatch.setattr(
        selection, "candidates", lambda *args: [each for each in candidates(*args) if tuple(each[:2]) in KEPT]
    )
    monkeypatch.setitem(selection.fidelity.LIMITS, "int8", 400.0)
    engine = Engine(model, "auto", "int8", "cpu")
    engine(sample(40, 40))
    told = engine.explain()
    assert told["precision"] == "fp32"
    assert "fp32 is taken in place of int8" in told["notes"][0] and "400 are needed" in told["notes"][0]
    assert "400 are needed" in told["others"]["openvino int8"]


def test_int8_is_a_permission_and_gives_way_to_what_is_faster(monkeypatch, tmp_path):
    from unrain.engine.runtime.selection import trial

    model = unrain.build("srn", blocks=1).eval()
    model.stages = 1
    needs_int8(model)
    monkeypatch.setenv("UNRAIN_CACHE", str(tmp_path))
    monkeypatch.setenv("UNRAIN_TRIAL_SECONDS", "100")
    monkeypatch.setattr(
        selection, "candidates", lambda *args: [each for each in candidates(*args) if tuple(each[:2]) in KEPT]
    )
    for slow, winner in (("Fused", "int8"), ("Graph", "fp32")):
        monkeypatch.setattr(trial, "timed", lambda runner, picture, slow=slow: 1 + (slow in type(runner).__name__))
        monkeypatch.setenv("UNRAIN_CACHE", str(tmp_path / slow))
        engine = Engine(model, "auto", "int8", "cpu")
        engine(sample(40, 40))
        told = engine.explain()
        assert told["precision"] == winner
        assert bool(told["notes"]) == (winner != "int8")


def test_int8_falls_back_on_the_backend_that_was_asked_for(monkeypatch):
    model = unrain.build("srn", blocks=1).eval()
    model.stages = 1
    needs_int8(model)
    monkeypatch.setitem(selection.fidelity.LIMITS, "int8", 400.0)
    told = Engine(model, "openvino", "int8", "cpu").explain()
    assert told["backend"] == "openvino" and told["precision"] in ("bf16", "fp32")
    assert "refused" in told["notes"][0]


@pytest.mark.slow
def test_int8_of_trained_weights_keeps_forty_decibels(shared):
    model = unrain.load(shared("reference_weights/srn_residual_Rain100L.pth"))
    needs_int8(model)
    told = Engine(model, "openvino", "int8", "cpu", calibration=shared("data/eval/Rain100L/input")).explain()
    assert (told["backend"], told["precision"]) == ("openvino", "int8") and told["fidelity_db"] >= 40

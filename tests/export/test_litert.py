"""The export to LiteRT: run by LiteRT's interpreter, within the rule; and what it cannot have is said in one line."""

import json

import pytest

pytest.importorskip("litert_torch", reason="the converter brings JAX along: pip install 'unrain[litert]'")

from unrain.engine.errors import UnrainError
from unrain.engine.models import load
from unrain.engine.runtime.calibration import batches
from unrain.export.litert import to_litert, verify_litert
from unrain.export.pictures import bundled
from unrain.export.targets import Options

SIZE = (64, 96)


@pytest.mark.parametrize(
    "name", ["wiper-s", *(pytest.param(name, marks=pytest.mark.slow) for name in ("wiper", "srn"))]
)
def test_litert_keeps_the_rule(name, tmp_path):
    model = load(name)
    outcome = to_litert(model, tmp_path / "net.tflite", Options("fp32", size=SIZE))
    assert {path.name for path in tmp_path.iterdir()} == {"net.tflite", "net.json"}
    fidelity = verify_litert(outcome.verify, model, batches(bundled(), 64))
    print(name, fidelity)
    assert fidelity.passed, str(fidelity)
    about = json.loads((tmp_path / "net.json").read_text())
    assert (about["model"], about["precision"], about["size"]) == (name, "fp32", list(SIZE))


def test_what_it_cannot_have_is_said_in_one_line(tmp_path):
    with pytest.raises(UnrainError, match="in fp32, not in int8"):
        to_litert(load("wiper-s"), tmp_path / "net.tflite", Options("int8"))
    (tmp_path / "net.tflite").write_text("nobody's")
    with pytest.raises(UnrainError, match="does not say which network it is"):
        verify_litert(tmp_path / "net.tflite", None, batches(bundled(), 64))

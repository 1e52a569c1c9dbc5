"""The export to ncnn: converted by pnnx, run by ncnn, within the rule; and what it cannot have is said in one line."""

import json

import numpy as np
import pytest
import torch

pytest.importorskip("pnnx")
pytest.importorskip("ncnn")

from unrain.engine.errors import UnrainError
from unrain.engine.models import load
from unrain.engine.runtime.calibration import batches
from unrain.engine.runtime.ncnn import Net, convert
from unrain.export.ncnn import to_ncnn, verify_ncnn
from unrain.export.pictures import bundled
from unrain.export.targets import Options

SIZE = (64, 96)


@pytest.mark.parametrize(
    ("name", "precision"),
    [
        ("wiper-s", "fp32"),
        *(pytest.param(name, "fp32", marks=pytest.mark.slow) for name in ("wiper", "srn", "brn")),
        *(pytest.param(name, "fp16", marks=pytest.mark.slow) for name in ("wiper", "srn")),
    ],
)
def test_ncnn_keeps_the_rule(name, precision, tmp_path):
    model = load(name)
    outcome = to_ncnn(model, tmp_path / "net.param", Options(precision, size=SIZE))
    assert [path.name for path in outcome.files] == ["net.param", "net.bin", "net.json"]
    assert {path.name for path in tmp_path.iterdir()} == {"net.param", "net.bin", "net.json"}
    fidelity = verify_ncnn(outcome.verify, model, batches(bundled(), 64))
    print(name, fidelity)
    assert fidelity.passed, str(fidelity)
    about = json.loads((tmp_path / "net.json").read_text())
    assert (about["model"], about["precision"], about["size"]) == (name, precision, list(SIZE))


def test_a_picture_whose_planes_lie_interleaved(tmp_path):
    """As a decoded picture does: its planes are copied first, and the copy has to live while ncnn reads it."""
    files = convert(torch.nn.Conv2d(3, 3, 1), (256, 256), tmp_path)
    interleaved = np.random.default_rng(0).random((1, 256, 256, 3), np.float32).transpose(0, 3, 1, 2)
    expected = Net(*files).run(np.ascontiguousarray(interleaved))
    assert all(np.array_equal(Net(*files).run(interleaved), expected) for _ in range(5))


def test_what_ncnn_has_no_layer_for_is_named(tmp_path):
    with pytest.raises(UnrainError, match=r"^ncnn has no |^pnnx cannot convert it"):
        to_ncnn(load("timelapse"), tmp_path / "net.param", Options("fp32", size=SIZE))
    assert not list(tmp_path.iterdir())


def test_an_int8_file_and_files_of_nobody_are_refused(tmp_path):
    with pytest.raises(UnrainError, match="fp32 or fp16, not int8"):
        to_ncnn(load("wiper-s"), tmp_path / "net.param", Options("int8"))
    (tmp_path / "net.param").write_text("7767517\n")
    with pytest.raises(UnrainError, match="does not say which network it is"):
        verify_ncnn(tmp_path / "net.param", None, batches(bundled(), 64))

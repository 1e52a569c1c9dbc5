"""`unrain export --to program`: verified like every other file, and refused where it is another one."""

import pytest
import torch

from unrain.engine.errors import UnrainError
from unrain.engine.program import Program
from unrain.export.targets import Options, export
from unrain.export.verify import verify


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    return export(model, "program", tmp_path_factory.mktemp("program") / "srn.unrain", Options("fp32")).verify


def test_a_true_file_passes(exported, model, pictures):
    fidelity = verify(exported, model, pictures)
    assert fidelity.passed and fidelity.decibels > 100 and fidelity.pictures == 3


def test_it_runs_without_the_network(exported, model):
    x = torch.rand(1, 3, 24, 33)
    with torch.inference_mode():
        assert (Program.load(exported)(x) - model(x)).abs().max() < 1e-5
    assert Program.load(exported).card["model"] == "srn"


def test_other_weights_and_damage_are_told(exported, network, pictures, tmp_path):
    with pytest.raises(UnrainError, match="other weights"):
        verify(exported, network("srn-x", stages=2), pictures)
    damaged = tmp_path / "x.unrain"
    data = bytearray(exported.read_bytes())
    data[-1] ^= 1
    damaged.write_bytes(data)
    with pytest.raises(UnrainError, match="damaged"):
        verify(damaged, None, pictures)


def test_what_makes_no_sense_is_refused(model, tmp_path):
    with pytest.raises(UnrainError, match="no use for --batch"):
        export(model, "program", tmp_path / "x.unrain", Options("fp32", batch=2))
    with pytest.raises(UnrainError, match="leave out fp16"):
        export(model, "program", tmp_path / "x.unrain", Options("fp16"))

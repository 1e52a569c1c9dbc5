"""An AOTInductor package: made, run, compared with PyTorch; and packages that are not what they say."""

import pytest
import torch

from unrain.engine.errors import UnrainError
from unrain.engine.runtime.backends import sidecar
from unrain.export import package
from unrain.export.targets import Options, export
from unrain.export.verify import verify

NETWORKS = [("srn", 1), *(pytest.param(case, marks=pytest.mark.slow) for case in (("brn", 2), ("timelapse", None)))]


@pytest.fixture(scope="module", params=NETWORKS, ids=lambda case: case[0])
def made(request, network, packaged):
    name, stages = request.param
    outcome = packaged(name, stages)
    return network(name), stages, outcome.files[0], outcome


def test_a_package_computes_what_pytorch_does(made, pictures):
    model, stages, path, outcome = made
    assert outcome.verify == path and outcome.details["size"] == [64, 96] and outcome.details["targets"] == ["cpu"]
    assert sorted(each.name for each in path.parent.iterdir()) == sorted(each.name for each in outcome.files)
    fidelity = verify(path, model, pictures)
    assert fidelity.passed and fidelity.largest_code <= 1, str(fidelity)
    x = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        expected = model(x) if stages is None else model(x, T=stages)
    torch.testing.assert_close(package.load(path)(x), expected, rtol=1e-4, atol=1e-5)


def test_a_spoilt_package_is_one_line(made, tmp_path):
    path = tmp_path / "spoilt.pt2"
    whole = made[2].read_bytes()
    sidecar.sidecar_of(path).write_bytes(sidecar.sidecar_of(made[2]).read_bytes())
    for data, words in ((whole[:-100], "not whole"), (whole[:-1] + bytes([whole[-1] ^ 1]), "SHA-256")):
        path.write_bytes(data)
        with pytest.raises(UnrainError, match=words) as error:
            verify(path, made[0], [])
        assert "\n" not in str(error.value)
    sidecar.sidecar_of(path).unlink()
    with pytest.raises(UnrainError, match=r"spoilt\.pt2\.json cannot be read"):
        verify(path, made[0], [])


def test_what_a_package_cannot_be_is_said_first(network, tmp_path):
    wrong = {
        "computes in fp32, not in fp16": Options("fp16"),
        "for --target cpu or cuda, not for SM89": Options("fp32", target="SM89"),
        "--to package has no use for --max-size, --frames": Options("fp32", frames=True, largest=(64, 64)),
        "at least 8x8, got 4x64": Options("fp32", size=(4, 64)),
        "has no stages": Options("fp32", stages=3),
    }
    for words, options in wrong.items():
        with pytest.raises(UnrainError, match=words):
            export(network("timelapse"), "package", tmp_path / "x.pt2", options)
    assert list(tmp_path.iterdir()) == []

"""The folder for the package `kernels`: loaded as that package does it, and by itself where it is installed."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec

import pytest

from unrain.engine.errors import UnrainError
from unrain.export.kernels.hub import LEFT_OUT, VARIANTS, to_hub_kernels
from unrain.export.targets import Options

COMPARED = """
import torch, unrain.kernels as ours
x, c = torch.rand(1, 8, 6, 5), torch.rand(1, 2, 6, 5)
with ours.use("reference"):
    assert all(torch.equal(*pair) for pair in zip(theirs.lstm_gates(x, c), ours.lstm_gates(x, c)))
    assert torch.equal(theirs.charbonnier(x, 2 * x), ours.charbonnier(x, 2 * x))
x.requires_grad_()
theirs.ssim(x[:, :3], x[:, 3:6]).backward()
assert x.grad.isfinite().all()
reasons = theirs.info()["lstm_gates"]
assert reasons["reference"] == "available" and reasons["native"] != "available", reasons
print("the same")
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("hub")
    to_hub_kernels(None, place, Options("fp32"))
    return place


def run(program: str, **environment: str) -> str:
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_a_variant_is_imported_beside_this_package_and_computes_the_same(folder):
    """By its identity, from the file in the variant's own folder: what `kernels` does."""
    variant = folder / "build" / "torch-cpu"
    identity = json.loads((variant / "metadata.json").read_text())["id"]
    program = f"""
import sys
from importlib.util import module_from_spec, spec_from_file_location
spec = spec_from_file_location({identity!r}, {str(variant / "__init__.py")!r})
sys.modules[{identity!r}] = theirs = module_from_spec(spec)
spec.loader.exec_module(theirs)
import torch
assert hasattr(torch.ops, {identity!r}) and theirs.__name__ == {identity!r}
{COMPARED}"""
    assert run(program).strip() == "the same"


def test_the_package_itself_loads_it(folder):
    if find_spec("huggingface_hub") is None or find_spec("kernels") is None:
        pytest.skip("the package kernels is not installed: pip install kernels")
    program = f"""
from pathlib import Path
from kernels import get_local_kernel
theirs = get_local_kernel(Path({str(folder)!r}), backend="cpu")
{COMPARED}"""
    assert run(program, HF_HUB_OFFLINE="1").strip() == "the same"


def test_the_folder_says_what_it_is(folder):
    for backend in VARIANTS:
        variant = folder / "build" / f"torch-{backend}"
        metadata = json.loads((variant / "metadata.json").read_text())
        assert metadata["backend"] == {"type": backend} and metadata["name"] == "unrain-triton"
        assert metadata["id"].isidentifier()
        names = {path.name for path in variant.rglob("*.py")}
        assert "triton.py" in names and not names & LEFT_OUT
    assert (folder / "README.md").read_text().startswith("---\nlicense: apache-2.0\nlibrary_name: kernels\n")


def test_a_precision_is_refused(tmp_path):
    with pytest.raises(UnrainError, match="leave out fp16"):
        to_hub_kernels(None, tmp_path, Options("fp16"))

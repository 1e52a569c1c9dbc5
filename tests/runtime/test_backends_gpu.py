"""The fused path of a GPU: the same functions unrecorded on a CPU, and recorded where there is a GPU."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import unrain
from unrain.engine.errors import UnrainError
from unrain.engine.runtime.backends import eager
from unrain.engine.runtime.backends.srn_brn_gpu import RecordedRecurrence
from unrain.engine.runtime.fidelity import LIMITS, decibels, sample

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
PLACES = [pytest.param("cpu"), pytest.param("cuda", marks=pytest.mark.gpu)]


def pair(name, precision, device, stages=3):
    torch.manual_seed(0)
    model = unrain.build(name).eval()
    model.stages = stages
    device = torch.device(device)
    return RecordedRecurrence(model, DTYPES[precision], device), eager.make(model, "fp32", device, None)


@pytest.mark.parametrize("device", PLACES)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", ["srn", "srn-direct", "srn-x", "brn", "crn", "brn-r2x", "brn-x2r"])
def test_output_and_stages_keep_to_the_reference(name, precision, device):
    ours, plain = pair(name, precision, device)
    x = sample(29, 43).to(device)
    floor = LIMITS[precision]
    for picture in (x, 1 - x):  # nothing of the frame before may be left
        assert decibels(ours.run(picture), plain.run(picture)) >= floor
        for mine, theirs in zip(ours.steps(picture), plain.steps(picture), strict=True):
            assert decibels(mine.image, theirs.image) >= floor


@pytest.mark.parametrize("device", PLACES)
def test_goes_on_from_a_state_or_from_a_picture(device):
    ours, plain = pair("brn", "fp32", device)
    x, start = sample(24, 40).to(device), sample(24, 40).flip(-1).to(device)

    def last(runner, **how):
        *_, step = runner.steps(x, **how)
        return step

    assert decibels(last(ours, image=start).image, last(plain, image=start).image) >= 60
    state, plain_state = last(ours).state, last(plain).state
    assert decibels(last(ours, state=state).image, last(plain, state=plain_state).image) >= 60
    with pytest.raises(UnrainError, match="overwritten"):
        last(ours, state=state)


IN_THE_INTERPRETER = """
from unrain import kernels
from test_backends_gpu import decibels, pair, sample
ours, plain = pair("srn", "fp32", "cpu", stages=2)
x = sample(8, 8)
with kernels.use("triton"):
    output = ours.run(x)
assert decibels(output, plain.run(x)) >= 60
"""


@pytest.mark.slow
def test_the_triton_cell_in_the_interpreter():
    pytest.importorskip("triton")
    environment = {**os.environ, "TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = str(Path(__file__).parent)
    done = subprocess.run([sys.executable, "-c", IN_THE_INTERPRETER], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["srn", "brn"])
def test_fp16_on_a_gpu_keeps_to_the_reference(name):
    ours, plain = pair(name, "fp16", "cuda")
    x = sample(128, 160).cuda()
    assert decibels(ours.run(x), plain.run(x)) >= LIMITS["fp16"]


@pytest.mark.gpu
def test_nothing_is_allocated_after_the_first_frame():
    ours, _ = pair("srn", "fp16", "cuda")
    x = sample(64, 64).cuda()
    ours.run(x)
    before = torch.cuda.memory_stats()["allocation.all.allocated"]
    for _ in range(5):
        ours.run(x)
    assert torch.cuda.memory_stats()["allocation.all.allocated"] == before

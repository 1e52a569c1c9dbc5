"""How long an export takes, and how long a backend needs until its first picture: `-k export`."""

from __future__ import annotations

import pytest
import torch
from case import Outcome

from unrain import Engine, load
from unrain.engine.benchmark.timing import milliseconds
from unrain.engine.errors import UnrainError
from unrain.engine.runtime import fidelity
from unrain.engine.runtime.candidates import candidates

STAGES = 2  # of a recurrent network that is unrolled: two show what all cost


def onnx_ours(model, path):
    from unrain.export.onnx_export import export_onnx

    export_onnx(model, path, stages=STAGES)


def onnx_by_torch(model, path):
    model.stages = STAGES
    x = fidelity.sample(64, 64)
    dynamic = ({2: torch.export.Dim("height", min=16, max=4096), 3: torch.export.Dim("width", min=16, max=4096)},)
    torch.onnx.export(model, (x,), str(path), dynamo=True, dynamic_shapes=dynamic, verbose=False)


EXPORTS = {"unrain": onnx_ours, "torch.onnx.export": onnx_by_torch}
BACKENDS = ("eager", "fused", "onnxruntime", "openvino")


@pytest.mark.parametrize(("name", "contender"), [(f"export srn to ONNX, {STAGES} stages", each) for each in EXPORTS])
def test_export(name, contender, compete, tmp_path_factory):
    pytest.importorskip("onnx", reason="ONNX export needs: pip install 'unrain[onnx]'")
    pytest.importorskip("onnxscript", reason="ONNX export needs: pip install 'unrain[onnx]'")

    def run_race(names):
        folder = tmp_path_factory.mktemp("export")
        found = {}
        for index, each in enumerate(names):
            path = folder / f"{index}.onnx"
            sample = milliseconds(lambda each=each, path=path: EXPORTS[each](load("srn"), path))
            found[each] = Outcome([sample], wrong=differs(path))
        return found

    compete("export", name, contender, run_race)


def differs(path) -> str | None:
    """What is wrong with the exported file, run on a picture."""
    onnxruntime = pytest.importorskip("onnxruntime", reason="the exported file is run before its time counts")
    model = load("srn")
    x = fidelity.sample(64, 64)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    with torch.inference_mode():
        reference = model(x, STAGES)
    decibels = fidelity.decibels(
        torch.from_numpy(session.run(None, {session.get_inputs()[0].name: x.numpy()})[0]), reference
    )
    return None if decibels >= fidelity.LIMITS["fp32"] else f"{decibels:.1f} dB to the network"


@pytest.mark.parametrize(("name", "contender"), [("first picture, srn 64 x 64", each) for each in BACKENDS])
def test_export_first_picture(name, contender, compete):
    def run_race(names):
        x = fidelity.sample(64, 64)
        reference = Engine("srn", "eager", "fp32", device="cpu")(x)
        known = {each.backend: each.reason for each in candidates(load("srn")) if each.precision == "fp32"}
        return {each: first_picture(each, known[each], x, reference) for each in names}

    compete("export", name, contender, run_race)


def first_picture(backend, reason, x, reference) -> Outcome:
    if reason is not None:
        return Outcome(absent=reason)
    model, results = load("srn"), []
    try:
        sample = milliseconds(lambda: results.append(Engine(model, backend, "fp32", device="cpu")(x)))
    except UnrainError as error:
        return Outcome(absent=str(error))
    decibels = fidelity.decibels(results[0], reference)
    wrong = None if decibels >= fidelity.LIMITS["fp32"] else f"{decibels:.1f} dB to the network"
    return Outcome([sample], wrong=wrong)

"""How long an export takes, and how long a backend needs until its first picture: `-k export`."""

from __future__ import annotations

import pytest
import torch
from case import Outcome

from unrain import Engine, load
from unrain.engine.benchmark.timing import interleaved
from unrain.engine.runtime import fidelity
from unrain.engine.runtime.selection.candidates import candidates

ROUNDS = 3
STAGES = 2  # of a recurrent network that is unrolled: two show what all cost


def onnx_ours(model, path):
    from unrain.export.onnx.export import export_onnx

    export_onnx(model, path, stages=STAGES)


def onnx_by_torch(model, path):
    model.stages = STAGES
    x = fidelity.sample(64, 64)
    dynamic = ({2: torch.export.Dim("height", min=16, max=4096), 3: torch.export.Dim("width", min=16, max=4096)},)
    torch.onnx.export(model, (x,), str(path), dynamo=True, dynamic_shapes=dynamic, verbose=False)


EXPORTS = {"unrain": onnx_ours, "torch.onnx.export": onnx_by_torch}
BACKENDS = ("eager", "fused", "onnxruntime", "openvino")


@pytest.mark.parametrize(("name", "contender"), [(f"export srn to ONNX, {STAGES} stages", each) for each in EXPORTS])
def test_export(name, contender, compete, request, tmp_path_factory):
    pytest.importorskip("onnx", reason="ONNX export needs: pip install 'unrain[onnx]'")
    pytest.importorskip("onnxscript", reason="ONNX export needs: pip install 'unrain[onnx]'")

    def run_race(names):
        folder = tmp_path_factory.mktemp("export")
        found, runs = {}, {}
        for index, each in enumerate(names):
            path = folder / f"{index}.onnx"
            EXPORTS[each](load("srn"), path)
            found[each] = Outcome(wrong=differs(path))
            runs[each] = lambda each=each, path=path: EXPORTS[each](load("srn"), path)
        return timed(found, runs, request.config.getoption("--rounds"))

    compete("export", name, contender, run_race)


def timed(found: dict[str, Outcome], runs, rounds: int | None) -> dict[str, Outcome]:
    """Each has run once, for what it imports and keeps; those that are right take turns."""
    right = {name: run for name, run in runs.items() if not (found[name].wrong or found[name].absent)}
    for name, samples in interleaved(right, rounds or ROUNDS, warmups=1).items():
        found[name].samples = samples
    return found


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
def test_export_first_picture(name, contender, compete, request):
    """From the network in memory to its first result: a new engine each time."""

    def run_race(names):
        model, x = load("srn"), fidelity.sample(64, 64)
        reference = Engine("srn", "eager", "fp32", device="cpu")(x)
        reasons = {each.backend: each.reason for each in candidates(model) if each.precision == "fp32"}
        found, runs = {}, {}
        for each in names:
            found[each] = Outcome(absent=reasons[each])
            runs[each] = lambda each=each: Engine(model, each, "fp32", device="cpu")(x)
            if reasons[each] is None:
                decibels = fidelity.decibels(runs[each](), reference)
                if decibels < fidelity.LIMITS["fp32"]:
                    found[each].wrong = f"{decibels:.1f} dB to the network"
        return timed(found, runs, request.config.getoption("--rounds"))

    compete("export", name, contender, run_race)

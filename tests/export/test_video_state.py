"""Networks made for video with their state as ports: over 30 frames with the state running, in every kind of file."""

import itertools

import numpy as np
import onnx
import pytest
import torch
from onnx import helper

import unrain
from unrain.engine.errors import UnrainError
from unrain.engine.runtime.calibration import batches
from unrain.export import verify as verify_module
from unrain.export.files import read_onnx
from unrain.export.onnx.export import export_onnx
from unrain.export.onnx.run import session
from unrain.export.pictures import FRAMES, bundled, clips
from unrain.export.server.repository import configuration
from unrain.export.targets import Options, export
from unrain.export.verify import verify


@pytest.fixture(scope="module")
def model():
    return unrain.load("wiper-s")


@pytest.fixture(scope="module", autouse=True)
def one_clip():
    """Drawing rain takes longer than all that is done with it."""
    made = clips(batches(bundled(), 64)[:1])
    patch = pytest.MonkeyPatch()
    for module in (verify_module, "unrain.export.onnx.export", "unrain.export.program"):
        where = f"{module}.clips" if isinstance(module, str) else (module, "clips")
        patch.setattr(*([where] if isinstance(where, str) else where), lambda _: made)
    yield made[0]
    patch.undo()


@pytest.fixture(scope="module")
def single(model, tmp_path_factory):
    return export_onnx(model, tmp_path_factory.mktemp("state") / "wiper.onnx", state=True).path


def ports(path):
    graph = onnx.load(path).graph
    return {
        port.name: [dim.dim_value or dim.dim_param for dim in port.type.tensor_type.shape.dim]
        for port in (*graph.input, *graph.output)
    }


def test_the_clip_moves_and_its_rain_falls_on(one_clip):
    assert one_clip.shape == (FRAMES, 3, 48, 48) and one_clip.dtype == np.float32
    assert (np.rint(one_clip * 255) / np.float32(255) == one_clip).all()
    assert all(np.abs(after - before).mean() > 0.004 for before, after in itertools.pairwise(one_clip))


def test_the_hidden_map_has_sides_of_its_own(single, model, tmp_path):
    hidden = ["batch", 16, "hidden_height", "hidden_width"]
    picture = ["batch", 3, "height", "width"]
    assert ports(single) == {
        "image": picture,
        "picture_in": picture,
        "hidden_in": hidden,
        "start": ["batch", 1],
        "derained": picture,
        "picture_out": picture,
        "hidden_out": hidden,
    }
    fixed = export_onnx(model, tmp_path / "x.onnx", state=True, size=(37, 53), batch=2).path
    assert ports(fixed)["hidden_in"] == ports(fixed)["hidden_out"] == [2, 16, 10, 14]
    assert ports(fixed)["picture_out"] == [2, 3, 37, 53]


@pytest.mark.parametrize("size", [(37, 53), (8, 64)])
def test_any_size_from_nothing_and_onwards(single, model, size):
    rng = np.random.default_rng(0)
    frames = rng.random((4, 1, 3, *size), dtype=np.float32)
    run = session(single.read_bytes())
    state, start = None, np.ones((1, 1), np.float32)
    # Nothing in the state that comes in may matter at the start, not even NaN.
    like = model.initial_state(torch.from_numpy(frames[0]))
    carried = {f"{name}_in": np.full(value.shape, np.nan, np.float32) for name, value in like._asdict().items()}
    with torch.inference_mode():
        for frame in frames:
            derained, *after = run.run(None, {"image": frame, "start": start, **carried})
            x = torch.from_numpy(frame)
            picture, state = model.step(x, like if state is None else state)
            assert np.abs(derained - picture.clamp(0, 1).numpy()).max() < 1e-5
            for found, true in zip(after, state, strict=True):
                assert np.abs(found - true.numpy()).max() < 1e-4
            carried = dict(zip(("picture_in", "hidden_in"), after, strict=True))
            start = np.zeros((1, 1), np.float32)


@pytest.mark.parametrize(
    ("precision", "others", "frames"), [("fp32", "fp16", False), ("fp16", "fp16", True), ("int8", "fp32", False)]
)
def test_every_frame_of_a_clip_is_held_to_the_rule(model, tmp_path, precision, others, frames):
    exported = export_onnx(model, tmp_path / "x.onnx", precision, state=True, others=others, frames=frames)
    fidelity = verify(exported.path, model, batches(bundled(), 64))
    assert fidelity.passed and fidelity.pictures == FRAMES, str(fidelity)
    kinds = {port.name: port.type.tensor_type.elem_type for port in read_onnx(exported.path).graph.input}
    half = precision == "fp16"
    assert kinds["hidden_in"] == (onnx.TensorProto.FLOAT16 if half else onnx.TensorProto.FLOAT)
    assert kinds["picture_in"] == onnx.TensorProto.FLOAT
    if precision == "int8":
        assert len(exported.int8.int8) >= 12


def test_a_state_that_is_lost_on_the_way_is_found(single, model, tmp_path):
    """One frame alone would not show it."""
    graph = onnx.load(single)
    for node in graph.graph.node:
        node.output[:] = ["hidden_out/true" if name == "hidden_out" else name for name in node.output]
    graph.graph.node.append(helper.make_node("Sub", ["hidden_out/true", "hidden_out/true"], ["hidden_out"], "lost"))
    onnx.save(graph, tmp_path / "lost.onnx")
    fidelity = verify(tmp_path / "lost.onnx", model, batches(bundled(), 64))
    assert not fidelity.passed and 20 < fidelity.decibels < 60


def test_the_servers_folder_keeps_the_state(model, tmp_path):
    made = export(model, "server", tmp_path, Options("fp16", state=True, size=(44, 60)))
    text = (tmp_path / "wiper-s" / "config.pbtxt").read_text()
    assert text == configuration(read_onnx(made.files[0]), "wiper-s", 8)
    assert 'output_name: "hidden_out" data_type: TYPE_FP16 dims: [ 16, 12, 16 ]' in text
    assert 'output_name: "picture_out" data_type: TYPE_FP32 dims: [ 3, 44, 60 ]' in text
    fidelity = verify(tmp_path, model, batches(bundled(), 64))
    assert fidelity.passed and fidelity.pictures == FRAMES, str(fidelity)


def test_a_program_runs_its_state_too(model, tmp_path):
    fidelity = verify(export(model, "program", tmp_path / "x.unrain", Options("fp32")).verify, model, [])
    assert fidelity.passed and fidelity.pictures == FRAMES and fidelity.decibels > 100


def test_an_engine_gets_profiles_for_its_state(model, tmp_path):
    pytest.importorskip("tensorrt_rtx")
    options = Options("fp16", state=True, target="SM89", smallest=(32, 32), largest=(96, 84))
    said = export(model, "tensorrt-rtx", tmp_path / "x.engine", options).details
    assert said["profile"]["hidden_in"] == [[1, 16, 8, 8], [1, 16, 24, 22], [1, 16, 24, 22]]
    assert said["profile"]["picture_in"] == [[1, 3, 32, 32], [1, 3, 96, 84], [1, 3, 96, 84]]
    assert said["convolutions"] == {"half": 16, "single": []}


def test_a_number_of_stages_is_refused(model, tmp_path):
    with pytest.raises(UnrainError, match="wiper-s has no stages"):
        export_onnx(model, tmp_path / "x.onnx", state=True, stages=2)


@pytest.mark.slow
def test_stages_with_their_state_in_int8(network, tmp_path):
    small = network("srn", channels=8, blocks=1, stages=2)
    exported = export_onnx(small, tmp_path / "x.onnx", "int8", state=True, others="fp32")
    fidelity = verify(exported.path, small, batches(bundled(), 64))
    assert fidelity.passed and fidelity.pictures == FRAMES and exported.int8.int8, str(fidelity)

"""The ends of an exported graph: sizes, frames, carried state, and what the file says about itself."""

import json
import os

import numpy as np
import onnx
import pytest
import torch

from unrain.engine.errors import UnrainError
from unrain.export.metadata import weights_hash
from unrain.export.onnx.export import describe_onnx, export_onnx
from unrain.export.onnx.run import session
from unrain.kernels import frame_to_tensor, tensor_to_frame


def shapes(path):
    model = onnx.load(path)
    return {
        port.name: [dim.dim_value or dim.dim_param for dim in port.type.tensor_type.shape.dim]
        for port in (*model.graph.input, *model.graph.output)
    }


def test_open_and_fixed_sizes(model, tmp_path):
    path = export_onnx(model, tmp_path / "open.onnx").path
    assert shapes(path) == {
        "image": ["batch", 3, "height", "width"],
        "derained": ["batch", 3, "height", "width"],
    }
    path = export_onnx(model, tmp_path / "fixed.onnx", size=(24, 40), batch=2).path
    assert shapes(path) == {"image": [2, 3, 24, 40], "derained": [2, 3, 24, 40]}
    with pytest.raises(Exception, match="Got invalid dimensions"):
        session(path.read_bytes()).run(None, {"image": np.zeros((1, 3, 24, 40), np.float32)})


def test_a_fixed_size_pads_as_an_open_one(network, tmp_path, pictures):
    model = network("timelapse")
    picture = np.ascontiguousarray(pictures[0][:, :, :21, :37])
    found = [
        session(export_onnx(model, tmp_path / "x.onnx", size=size).path.read_bytes()).run(None, {"image": picture})[0]
        for size in (None, (21, 37))
    ]
    np.testing.assert_allclose(*found, atol=1e-6)


def test_pictures_come_out_clamped(model, tmp_path):
    run = session(export_onnx(model, tmp_path / "x.onnx").path.read_bytes())
    wild = np.random.default_rng(0).uniform(-3, 4, (1, 3, 16, 16)).astype(np.float32)
    (found,) = run.run(None, {"image": wild})
    with torch.no_grad():
        expected = model(torch.from_numpy(wild))
    assert expected.min() < 0 and expected.max() > 1
    np.testing.assert_allclose(found, expected.clamp(0, 1).numpy(), atol=1e-5)


def test_frames_are_bytes_in_and_out(model, tmp_path, pictures):
    run = session(export_onnx(model, tmp_path / "x.onnx", frames=True).path.read_bytes())
    frame = np.rint(pictures[0].transpose(0, 2, 3, 1) * 255).astype(np.uint8)
    (found,) = run.run(None, {"frame": frame})
    with torch.no_grad():
        expected = tensor_to_frame(model(frame_to_tensor(torch.from_numpy(frame)))).numpy()
    assert found.dtype == np.uint8 and found.shape == frame.shape
    # A value that falls on half a code may round either way.
    difference = np.abs(found.astype(int) - expected.reshape(found.shape))
    assert difference.max() <= 1 and (difference > 0).mean() < 1e-3


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize(("name", "fields"), [("srn", "image h c"), ("brn", "image rain h_x c_x h_r c_r")])
def test_the_state_is_carried_from_frame_to_frame(network, tmp_path, pictures, name, fields, precision):
    model, fields = network(name, stages=2), fields.split()
    path = export_onnx(model, tmp_path / "x.onnx", precision, state=True).path
    ports = shapes(path)
    assert list(ports) == [
        "image",
        *(f"{field}_in" for field in fields),
        "start",
        "derained",
        *(f"{field}_out" for field in fields),
    ]
    run = session(path.read_bytes())
    kinds = {port.name: np.float16 if "float16" in port.type else np.float32 for port in run.get_inputs()}
    assert {name for name, kind in kinds.items() if kind is np.float16} == (
        {f"{field}_in" for field in fields if field[0] == "h"} if precision == "fp16" else set()
    )
    # Nothing in the state that comes in may matter at the start, not even NaN.
    carried = {f"{field}_in": np.full((1, ports[f"{field}_in"][1], 64, 64), np.nan) for field in fields}
    state = None
    for number, picture in enumerate(pictures):
        start = np.full((1, 1), float(number == 0), np.float32)
        inputs = {name: value.astype(kinds[name]) for name, value in carried.items()}
        derained, *outputs = run.run(None, {"image": picture, "start": start, **inputs})
        with torch.no_grad():
            images, state = model.run(torch.from_numpy(picture), state=state)
        expected = images[-1].clamp(0, 1).numpy()
        assert np.abs(derained - expected).max() < (1e-5 if precision == "fp32" else 3e-3)
        for field, value, true in zip(fields, outputs, state, strict=True):
            assert np.abs(value - true.numpy()).max() < (1e-4 if precision == "fp32" else 1e-2), field
        carried = {f"{field}_in": value for field, value in zip(fields, outputs, strict=True)}


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("stagewise", {"state": True}, "stagewise does not repeat one stage"),
        ("timelapse", {"stages": 3}, "timelapse has no stages"),
        ("srn", {"precision": "int4"}, "precision must be one of fp32, fp16, int8, got 'int4'"),
        ("srn", {"size": (4, 90)}, "size must be height and width of at least 8 each"),
        ("srn", {"batch": 0}, "batch must be at least 1"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(network, tmp_path, name, options, message):
    with pytest.raises(UnrainError, match=message):
        export_onnx(network(name), tmp_path / "x.onnx", **options)
    assert list(tmp_path.iterdir()) == []


def test_the_file_says_what_it_is(model, network, tmp_path):
    exported = export_onnx(model, tmp_path / "x.onnx", "fp16", stages=3, size=(16, 24), frames=True)
    file = onnx.load(exported.path)
    said = describe_onnx(file, exported.path)
    assert said == json.loads(json.dumps(exported.description))
    expected = {
        "model": "srn",
        "weights": weights_hash(model),
        "stages": 3,
        "size": [16, 24],
        "colour": "RGB",
        "precision": "fp16",
        "pads_to": 1,
        "licence": "not stated",
        "layout": "uint8 [batch, height, width, 3]",
    }
    assert {key: said[key] for key in expected} == expected
    assert any(name.startswith("stage3/") for name in said["fp32_islands"]["cell_state"])
    assert (file.producer_name, file.graph.name) == ("unrain", "srn")
    for name, multiple in (("timelapse", 16), ("wiper-s", 8)):
        assert export_onnx(network(name), tmp_path / "y.onnx").description["pads_to"] == multiple
    # No trace of the machine it was made on.
    assert os.getcwd().encode() not in exported.path.read_bytes()


def test_the_licence_of_the_weights_is_carried(network, tmp_path):
    model = network("srn", stages=2)
    model.card = {"licence": "CC-BY-4.0"}
    try:
        assert export_onnx(model, tmp_path / "x.onnx").description["licence"] == "CC-BY-4.0"
    finally:
        del model.card

"""The inference server's folder: what its configuration says is the published schema's, and the graph's."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from google.protobuf import text_format

from unrain.engine.errors import UnrainError
from unrain.export.files import read_onnx
from unrain.export.onnx.run import session
from unrain.export.server.repository import check, export_server
from unrain.export.server.schema import MESSAGES, parse
from unrain.export.verify import verify

SIZE = (40, 56)


@pytest.fixture(scope="module")
def stateless(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("repository")
    return export_server(model, folder, "wiper", precision="fp16", frames=True).path.parent.parent


@pytest.fixture(scope="module")
def stateful(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("repository")
    return export_server(model, folder, "wiper", 4, precision="fp16", state=True, size=SIZE).path.parent.parent


def config(entry):
    text = (entry / "config.pbtxt").read_text()
    return parse(text, "config.pbtxt"), text


def test_the_folder_is_a_model_repository(stateless, model, pictures):
    files = sorted(str(path.relative_to(stateless.parent)) for path in stateless.rglob("*") if path.is_file())
    assert files == ["wiper/1/model.onnx", "wiper/config.pbtxt"]
    assert verify(stateless.parent, model, pictures).passed


def test_requests_are_batched(stateless):
    said, _ = config(stateless)
    assert (said.name, said.backend, said.max_batch_size) == ("wiper", "onnxruntime", 8)
    assert said.HasField("dynamic_batching") and not said.HasField("sequence_batching")
    (frame,) = said.input
    # TYPE_UINT8 is 2 and FORMAT_NHWC is 1; the batch is not said.
    assert (frame.name, frame.data_type, frame.format, list(frame.dims)) == ("frame", 2, 1, [-1, -1, 3])
    assert [(item.name, item.data_type, list(item.dims)) for item in said.output] == [("derained", 2, [-1, -1, 3])]


def test_sequences_keep_their_state_in_the_server(stateful):
    said, _ = config(stateful)
    assert said.HasField("sequence_batching") and not said.HasField("dynamic_batching")
    assert [item.name for item in said.input] == ["image"] and [item.name for item in said.output] == ["derained"]
    (start,) = said.sequence_batching.control_input
    assert start.name == "start" and list(start.control[0].fp32_false_true) == [0, 1] and start.control[0].kind == 0
    states = {item.input_name: item for item in said.sequence_batching.state}
    assert set(states) == {"image_in", "h_in", "c_in"}
    assert states["h_in"].output_name == "h_out" and list(states["h_in"].dims) == [32, *SIZE]
    assert (states["h_in"].data_type, states["c_in"].data_type) == (10, 11)  # TYPE_FP16, TYPE_FP32
    assert all(item.initial_state[0].zero_data for item in states.values())


def test_two_cameras_in_one_batch_do_not_mix(stateful, model, pictures):
    """What the server does: states of two sequences in one batch, the second of which begins a frame later."""
    run = session((stateful / "1" / "model.onnx").read_bytes())
    first, second = (
        [np.ascontiguousarray(p[:, :, : SIZE[0], : SIZE[1]]) for p in some] for some in (pictures, pictures[::-1])
    )
    kinds = {port.name: np.float16 if "float16" in port.type else np.float32 for port in run.get_inputs()}
    fields = ("image", "h", "c")
    zeros = {field: np.zeros((1, 3 if field == "image" else 32, *SIZE), kinds[f"{field}_in"]) for field in fields}
    cameras = [dict(zeros), dict(zeros)]
    states = [None, None]
    for number in range(3):
        serving = [0] if number == 0 else [0, 1]
        frames = [(first, second)[camera][number if camera == 0 else number - 1] for camera in serving]
        begins = [number == 0 if camera == 0 else number == 1 for camera in serving]
        inputs = {f"{field}_in": np.concatenate([cameras[camera][field] for camera in serving]) for field in fields}
        inputs |= {"image": np.concatenate(frames), "start": np.array(begins, np.float32)[:, None]}
        derained, *out = run.run(None, inputs)
        for place, camera in enumerate(serving):
            cameras[camera] = {field: value[place : place + 1] for field, value in zip(fields, out, strict=True)}
            with torch.no_grad():
                images, states[camera] = model.run(torch.from_numpy(frames[place]), state=states[camera])
            assert np.abs(derained[place] - images[-1].clamp(0, 1).numpy()[0]).max() < 3e-3


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("max_batch_size", "max_batch", 'no field named "max_batch"'),
        ("TYPE_UINT8", "UINT8", "UINT8"),
        ("max_batch_size: 8", 'max_batch_size: "8"', "config.pbtxt is no model configuration"),
        ("dims: [ -1, -1, 3 ]", "dims: [ 3, -1, -1 ]", r"'frame' is TYPE_UINT8 \[3, -1, -1\], the graph has"),
        ("TYPE_UINT8", "TYPE_FP32", "'frame' is TYPE_FP32"),
        ('name: "frame"', 'name: "image"', "speaks of 'image', which the graph does not have"),
        ("output [", "input [", "speaks of 'derained'"),
    ],
)
def test_a_wrong_configuration_is_refused(stateless, old, new, message):
    _, text = config(stateless)
    graph = read_onnx(stateless / "1" / "model.onnx")
    check(text, graph, "config.pbtxt")
    with pytest.raises(UnrainError, match=message):
        check(text.replace(old, new), graph, "config.pbtxt")


def test_a_port_that_is_not_spoken_of_is_refused(stateful):
    _, text = config(stateful)
    lines = [line for line in text.splitlines() if '"c_in"' not in line]
    with pytest.raises(UnrainError, match="says nothing of c_in, c_out"):
        check("\n".join(lines), read_onnx(stateful / "1" / "model.onnx"), "config.pbtxt")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"state": True}, "--size HEIGHTxWIDTH"),
        ({"batch": 2}, "--largest-batch is their limit"),
        ({"name": "../evil"}, "cannot be the name of a model folder"),
        ({"largest_batch": 0}, "at least 1"),
    ],
)
def test_what_the_server_cannot_do_is_said(model, tmp_path, options, message):
    with pytest.raises(UnrainError, match=message):
        export_server(model, tmp_path, **options)
    assert list(tmp_path.iterdir()) == []


def test_the_schema_is_the_published_one(stateful):
    """Field by field against the message classes that NVIDIA's own client brings along (package tritonclient)."""
    client = importlib.util.find_spec("tritonclient")
    if client is None:
        pytest.skip("needs the package tritonclient: pip install --no-deps tritonclient")
    path = Path(client.submodule_search_locations[0]) / "grpc" / "model_config_pb2.py"
    spec = importlib.util.spec_from_file_location("published_model_config", path)
    published = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(published)  # by its path: importing the package would ask for gRPC
    said, text = config(stateful)
    todo, seen = [(said.DESCRIPTOR, published.ModelConfig.DESCRIPTOR)], set()
    while todo:
        ours, theirs = todo.pop()
        seen.add(ours.full_name)
        for field in ours.fields:
            other = theirs.fields_by_name[field.name]
            assert (field.number, field.type, field.is_repeated) == (other.number, other.type, other.is_repeated)
            if field.message_type is not None:
                todo.append((field.message_type, other.message_type))
            for value in field.enum_type.values if field.enum_type is not None else ():
                assert other.enum_type.values_by_name[value.name].number == value.number
    assert {name.rpartition(".")[2] for name in seen} == set(MESSAGES)
    assert text_format.Parse(text, published.ModelConfig()).sequence_batching.WhichOneof("strategy_choice") == "oldest"

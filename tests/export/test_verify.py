"""Verification says no when it should, and files that nobody vouches for end in one clear line."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from unrain.engine.errors import UnrainError
from unrain.engine.files import replacing, write
from unrain.engine.runtime.calibration import pictures_in
from unrain.export.fidelity import Fidelity, compare
from unrain.export.files import read_onnx
from unrain.export.metadata import weights_hash
from unrain.export.onnx.export import export_onnx
from unrain.export.verify import verify


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    return {
        precision: export_onnx(model, folder / f"{precision}.onnx", precision).path for precision in ("fp32", "fp16")
    }


def edited(path, target, edit):
    graph = onnx.load(path)
    edit(graph)
    target.write_bytes(graph.SerializeToString())
    return target


def change_weight(name, change):
    def edit(graph):
        tensor = next(tensor for tensor in graph.graph.initializer if tensor.name.startswith(name))
        tensor.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(tensor).copy()), tensor.name))

    return edit


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_true_file_passes(exported, model, pictures, precision):
    fidelity = verify(exported[precision], model, pictures)
    assert fidelity.passed and fidelity.largest_code <= 1 and fidelity.pictures == 3
    assert f"{precision} passed" in str(fidelity)


def test_an_edited_weight_fails(exported, model, pictures, tmp_path):
    path = edited(exported["fp32"], tmp_path / "x.onnx", change_weight("model.branch.f_out.bias", lambda b: b + 0.01))
    fidelity = verify(path, model, pictures)
    assert not fidelity.passed and fidelity.not_finite == 0 and 30 < fidelity.decibels < 60
    assert "FAILED" in str(fidelity)


def test_values_that_are_no_numbers_fail(exported, model, pictures, tmp_path):
    path = edited(exported["fp32"], tmp_path / "x.onnx", change_weight("model.branch.f_out.bias", lambda b: b * np.nan))
    fidelity = verify(path, model, pictures)
    assert fidelity.not_finite == sum(picture.size for picture in pictures) and not fidelity.passed


def test_half_values_that_overflow_fail_and_are_named(exported, model, pictures, tmp_path):
    def louder(weight):
        return (weight.astype(np.float32) * 0 + 60000).astype(weight.dtype)

    path = edited(exported["fp16"], tmp_path / "x.onnx", change_weight("model.branch.f_in.weight", louder))
    fidelity = verify(path, model, pictures)
    assert not fidelity.passed and fidelity.first_broken == "stage1/branch.f_in/Conv"


def test_the_comparison_counts_what_it_says():
    picture = np.full((1, 3, 10, 10), 0.5, np.float32)
    off = picture.copy()
    off[0, 0, 0, 0] += 0.1
    one = compare(lambda _: off, lambda _: picture, [picture], "fp32")
    assert one.decibels == pytest.approx(10 * np.log10(300 / 0.01), abs=0.01)
    assert one.largest_code == 153 - 128 and not one.passed
    assert compare(lambda x: x, lambda x: x, [picture], "fp32") == Fidelity("fp32", np.inf, 0, 0, 1)
    # Beyond [0, 1] nobody sees a difference.
    assert compare(lambda _: picture * 4, lambda _: picture * 9, [picture], "fp32").passed
    with pytest.raises(UnrainError, match=r"gives \[1, 3, 5, 10\] where \[1, 3, 10, 10\] is due"):
        compare(lambda _: off[:, :, :5], lambda _: picture, [picture], "fp32")
    with pytest.raises(UnrainError, match="no picture to verify on"):
        compare(lambda x: x, lambda x: x, [], "fp32")


def test_another_networks_weights_are_named(exported, network, pictures):
    other = network("srn", stages=3)
    assert weights_hash(other) == weights_hash(network("srn", stages=2))  # the same seed; stages are no weights
    with pytest.raises(UnrainError, match=r"fp32\.onnx was exported from other weights \(.{12}\) than these of brn"):
        verify(exported["fp32"], network("brn", stages=2), pictures)


def test_a_truncated_file_is_one_line(exported, model, pictures, tmp_path):
    data = exported["fp32"].read_bytes()
    for length in (0, 1, 100, len(data) // 2, len(data) - 1):
        path = tmp_path / "x.onnx"
        path.write_bytes(data[:length])
        with pytest.raises(UnrainError) as caught:
            verify(path, model, pictures)
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_files_of_others_are_refused(tmp_path, model, pictures):
    path = tmp_path / "x.onnx"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    with pytest.raises(UnrainError, match="is no ONNX file, or only a part of one"):
        verify(path, model, pictures)
    port = onnx.helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 8, 8])
    out = onnx.helper.make_tensor_value_info("derained", TensorProto.FLOAT, [1, 3, 8, 8])
    node = onnx.helper.make_node("Identity", ["image"], ["derained"])
    foreign = onnx.helper.make_model(onnx.helper.make_graph([node], "g", [port], [out]))
    path.write_bytes(foreign.SerializeToString())
    with pytest.raises(UnrainError, match="was not exported by unrain"):
        verify(path, model, pictures)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 1}', '{"format": 9, "model": "srn", "weights": "0"}'])
def test_a_broken_description_is_one_line(exported, model, pictures, tmp_path, text):
    def edit(graph):
        for note in graph.metadata_props:
            note.value = text if note.key == "unrain" else note.value

    with pytest.raises(UnrainError, match=r"not exported by unrain|has format 9, this version reads 1"):
        verify(edited(exported["fp32"], tmp_path / "x.onnx", edit), model, pictures)


@pytest.mark.parametrize("where", ["../secret", "/etc/hostname", "sub/../../secret", ""])
def test_weights_outside_the_folder_are_not_read(exported, model, pictures, tmp_path, where):
    (tmp_path / "secret").write_bytes(bytes(1 << 20))
    folder = tmp_path / "folder"
    folder.mkdir()
    path = edited(exported["fp32"], folder / "x.onnx", lambda graph: point_at(graph, where))
    with pytest.raises(UnrainError, match="outside its folder; it is not read"):
        verify(path, model, pictures)


def test_weights_behind_a_link_are_not_read(exported, model, pictures, tmp_path):
    (tmp_path / "secret").write_bytes(bytes(1 << 20))
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "weights").symlink_to(tmp_path / "secret")
    path = edited(exported["fp32"], folder / "x.onnx", lambda graph: point_at(graph, "weights"))
    with pytest.raises(UnrainError, match="outside its folder; it is not read"):
        verify(path, model, pictures)


def test_weights_in_a_constant_node_are_looked_at_too(exported, model, pictures, tmp_path):
    def edit(graph):
        tensor = TensorProto(name="t", data_type=TensorProto.FLOAT, dims=[4])
        point(tensor, "../secret")
        graph.graph.node.append(onnx.helper.make_node("Constant", [], ["unused"], value=tensor))

    path = edited(exported["fp32"], tmp_path / "x.onnx", edit)
    with pytest.raises(UnrainError, match="outside its folder; it is not read"):
        verify(path, model, pictures)


def test_weights_beside_the_file_are_read(exported, model, pictures, tmp_path):
    graph = onnx.load(exported["fp32"])
    onnx.save_model(graph, tmp_path / "x.onnx", save_as_external_data=True, location="x.weights", size_threshold=0)
    assert (tmp_path / "x.weights").stat().st_size > 100_000
    assert verify(tmp_path / "x.onnx", model, pictures).passed
    (tmp_path / "x.weights").write_bytes(b"short")
    with pytest.raises(UnrainError, match="is not a valid ONNX file"):
        read_onnx(tmp_path / "x.onnx")


def point_at(graph, where):
    tensor = next(tensor for tensor in graph.graph.initializer if tensor.name.startswith("model.branch.f_in.weight"))
    tensor.ClearField("raw_data")
    point(tensor, where)


def point(tensor, where):
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=where)


def test_what_cannot_be_verified_is_said(tmp_path, model, pictures):
    for name, message in (("x.onnx", "does not exist"), ("x.txt", "is nothing that can be verified")):
        if name == "x.txt":
            (tmp_path / name).write_text("hello")
        with pytest.raises(UnrainError, match=message):
            verify(tmp_path / name, model, pictures)
    with pytest.raises(UnrainError, match="holds 0 exported models"):
        verify(tmp_path, model, pictures)
    with pytest.raises(UnrainError, match="holds no pictures"):
        pictures_in(tmp_path)
    with pytest.raises(UnrainError, match="is no folder of pictures"):
        pictures_in(tmp_path / "nowhere")


def test_a_file_appears_only_when_it_is_whole(tmp_path):
    path = tmp_path / "x.onnx"
    path.write_bytes(b"before")
    with pytest.raises(RuntimeError), replacing(path) as part:
        part.write_bytes(b"half of ")
        assert path.read_bytes() == b"before"
        raise RuntimeError
    assert path.read_bytes() == b"before" and list(tmp_path.iterdir()) == [path]
    write(path, b"after")
    assert path.read_bytes() == b"after" and list(tmp_path.iterdir()) == [path]
    (tmp_path / "file").write_text("")
    with pytest.raises(UnrainError, match="cannot be written"):
        write(tmp_path / "file" / "x.onnx", b"")

"""`unrain export` as a user meets it."""

import json

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

import unrain
from unrain.cli.main import main
from unrain.engine.errors import UnrainError
from unrain.engine.images import write_image
from unrain.engine.models.checkpoint import save
from unrain.engine.runtime.backends import sidecar
from unrain.export import targets


@pytest.fixture(scope="module")
def weights(saved):
    torch.manual_seed(0)
    return saved(unrain.build("srn", channels=8, blocks=1, stages=2), licence="CC0-1.0")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    write_image(folder / "a.png", np.random.default_rng(0).integers(0, 256, (40, 48, 3), dtype=np.uint8))
    return str(folder)


@pytest.fixture
def run(unrain_run):
    return lambda *words: unrain_run("export", *words)


@pytest.fixture(scope="module")
def exported(weights, images, tmp_path_factory):
    path = tmp_path_factory.mktemp("exported") / "srn.onnx"
    assert main(["export", weights, "--precision", "fp16", "--images", images, "-o", str(path)]) == 0
    return path


def test_an_export_is_verified_by_default(run, weights, images, tmp_path):
    code, out, err = run(weights, "--images", images, "-o", tmp_path / "x.onnx")
    assert (code, err) == (0, "")
    assert f"{tmp_path / 'x.onnx'}, " in out and "fp32 passed: " in out and "of 1 pictures" in out
    assert [path.name for path in tmp_path.iterdir()] == ["x.onnx"]


def test_json_holds_it_all(run, weights, images, tmp_path):
    code, out, _ = run(weights, "--to", "int8", "--images", images, "-o", tmp_path / "x.onnx", "--json")
    answer = json.loads(out)
    assert code == 0 and answer["verified"]["passed"] and answer["verified"]["required"] == 40
    details = answer["details"]
    assert (details["model"], details["precision"], details["licence"]) == ("srn", "int8", "CC0-1.0")
    assert details["int8_layers"] and answer["files"] == [str(tmp_path / "x.onnx")]


def test_a_server_folder(run, weights, images, tmp_path):
    words = ("--to", "server", "--name", "wiper", "--state", "--size", "40x48", "--frames")
    code, out, _ = run(weights, *words, "--images", images, "-o", tmp_path / "models")
    assert code == 0 and "fp16 passed" in out
    assert (tmp_path / "models" / "wiper" / "config.pbtxt").is_file()


def test_an_exported_file_is_verified_again(run, exported, weights, images, tmp_path):
    code, out, _ = run("--verify", exported, "--weights", weights, "--images", images)
    assert code == 0 and "fp16 passed" in out
    model = onnx.load(exported)
    tensor = next(tensor for tensor in model.graph.initializer if "f_out.bias" in tensor.name)
    off = numpy_helper.to_array(tensor) + np.float16(0.1)
    tensor.CopyFrom(numpy_helper.from_array(off, tensor.name))
    bad = tmp_path / "bad.onnx"
    bad.write_bytes(model.SerializeToString())
    code, out, _ = run("--verify", bad, "--weights", weights, "--images", images, "--json")
    assert code == 1 and json.loads(out)["verified"]["passed"] is False


def test_what_does_not_compute_the_same_is_put_aside(run, weights, images, tmp_path, monkeypatch):
    monkeypatch.setitem(unrain.export.fidelity.RULE, "fp32", 500.0)
    (tmp_path / "x.onnx").write_text("what served until now")
    code, out, err = run(weights, "--images", images, "-o", tmp_path / "x.onnx")
    assert code == 1 and "fp32 FAILED" in out and f"put aside as {tmp_path / 'x.onnx.rejected'}" in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.onnx", "x.onnx.rejected"]
    assert (tmp_path / "x.onnx").read_text() == "what served until now"


@pytest.mark.parametrize(("error", "code"), [(UnrainError("no"), 1), (KeyboardInterrupt(), 130)])
def test_breaking_off_during_verification_leaves_nothing(run, weights, images, tmp_path, monkeypatch, error, code):
    def breaks(path, *_):
        assert path.is_file() and path.parent.parent == tmp_path
        raise error

    monkeypatch.setattr("unrain.export.verify.verify", breaks)
    found, _, err = run(weights, "--images", images, "-o", tmp_path / "x.onnx")
    assert found == code and err.count("\n") == 1 and list(tmp_path.iterdir()) == []


def test_a_folder_that_does_not_compute_the_same_is_put_aside(run, weights, images, tmp_path, monkeypatch):
    monkeypatch.setitem(unrain.export.fidelity.RULE, "fp16", 500.0)
    code, _, err = run(weights, "--to", "server", "--images", images, "-o", tmp_path)
    assert code == 1 and "put aside as" in err
    files = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert files == {"srn/1/model.onnx.rejected", "srn/config.pbtxt.rejected"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--to", "coreml", "-o", "x"], "--to must be one of onnx, int8, server"),
        (["WEIGHTS"], "say where to write: -o FILE.onnx"),
        (["WEIGHTS", "-o", "x.txt"], "x.txt must end in .onnx"),
        (["WEIGHTS", "-o", "x.engine"], "x.engine must end in .onnx, or say --to tensorrt or --to tensorrt-rtx"),
        (["WEIGHTS", "-o", "x.onnx", "--arch", "sm_87"], "--to onnx has no use for --arch; leave that out"),
        (["WEIGHTS", "-o", "x.onnx", "--max-size", "64x64"], "--to onnx has no use for --max-size; leave that out"),
        (["WEIGHTS", "-o", "x.onnx", "--others", "fp32"], "--others is for what an int8 graph has besides int8"),
        (["WEIGHTS", "-o", "x.onnx", "--size", "480"], "--size must be HEIGHTxWIDTH, such as 480x640; got '480'"),
        (["WEIGHTS", "-o", "x.onnx", "--size", "4x480"], "size must be height and width of at least 8 each"),
        (["WEIGHTS", "-o", "x.onnx", "--precision", "int4"], "precision must be one of fp32, fp16, int8"),
        (["WEIGHTS", "-o", "x.onnx", "--to", "int8", "--precision", "fp16"], "--to int8 is int8, not fp16"),
        (["WEIGHTS", "-o", "x.onnx", "--images", "nowhere"], "nowhere is no folder of pictures"),
        (["nonsense", "-o", "x.onnx"], "no model is called 'nonsense'"),
        (["--verify", "nowhere.onnx"], "nowhere.onnx does not exist"),
    ],
)
def test_mistakes_are_one_line(run, weights, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    code, out, err = run(*(weights if word == "WEIGHTS" else word for word in words))
    assert code == 1 and out == "" and message in err and err.count("\n") == 1 and err.startswith("unrain: ")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_package_is_one_line(run, weights, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    code, _, err = run(weights, "-o", tmp_path / "x.onnx")
    assert code == 1 and "pip install unrain[onnx]" in err and err.count("\n") == 1


def test_a_layer_beyond_half_precision_is_printed_and_kept(run, images, tmp_path):
    torch.manual_seed(0)
    model = unrain.build("srn", channels=8, blocks=2, stages=1)
    block = model.branch.f_res[1]
    with torch.no_grad():
        block.conv1.weight *= 1e6
        block.conv1.bias *= 1e6
        block.conv2.weight /= 1e6
    save(model, tmp_path / "loud.safetensors")
    words = (tmp_path / "loud.safetensors", "--precision", "fp16", "--images", images, "-o", tmp_path / "x.onnx")
    code, out, err = run(*words)
    assert (code, err) == (0, "") and "fp16 passed: " in out
    said = [line for line in out.splitlines() if "beyond half precision: fp32" in line]
    assert said and said[0].startswith("stage1/branch.f_res.1.conv1/Conv meets ")


def test_hostile_files_are_one_line(run, exported, weights, images, tmp_path):
    whole = exported.read_bytes()
    (tmp_path / "short.onnx").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "secret").write_bytes(bytes(1 << 20))
    model = onnx.load(exported)
    tensor = next(tensor for tensor in model.graph.initializer if "f_in.weight" in tensor.name)
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../secret")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "outside.onnx").write_bytes(model.SerializeToString())
    engine = tmp_path / "srn.engine"
    about = {"model": "srn", "weights": "0" * 64, "precision": "fp16", "library": "tensorrt_rtx", "version": "1.7"}
    engine.write_bytes(b"an engine")
    sidecar.sidecar_of(engine).write_text(sidecar.complete({**about, "targets": ["SM89"]}, b"an engine"))
    for name, data in (("edited", b"an Engine"), ("cut", b"an eng")):
        (tmp_path / f"{name}.engine").write_bytes(data)
        sidecar.sidecar_of(tmp_path / f"{name}.engine").write_bytes(sidecar.sidecar_of(engine).read_bytes())
    (tmp_path / "alone.engine").write_bytes(b"an engine")
    wrong = {
        "short.onnx": "is no ONNX file, or only a part of one; export it again",
        "folder/outside.onnx": "in '../secret', outside its folder; it is not read",
        "edited.engine": "is not the file that its sidecar describes (SHA-256); export it again",
        "cut.engine": "has 6 bytes, its sidecar says 9: it is not whole; export it again",
        "alone.engine": "its sidecar alone.engine.json cannot be read",
    }
    for name, message in wrong.items():
        code, out, err = run("--verify", tmp_path / name, "--weights", weights, "--images", images)
        assert (code, out) == (1, "") and message in err and err.count("\n") == 1, (name, err)


def test_an_engine_for_another_gpu_is_one_line(run, images, tmp_path, monkeypatch):
    monkeypatch.setattr("unrain.export.tensorrt.engines.gpu_here", lambda: "SM120")
    engine = tmp_path / "srn.engine"
    about = {"model": "srn", "weights": "0" * 64, "precision": "fp16", "library": "tensorrt_rtx", "version": "1.7"}
    engine.write_bytes(b"an engine")
    sidecar.sidecar_of(engine).write_text(sidecar.complete({**about, "targets": ["SM89"]}, b"an engine"))
    code, out, err = run("--verify", engine, "--images", images)
    assert (code, out) == (1, "") and err.count("\n") == 1
    assert "was built for target SM89, this is SM120; export it again for it" in err


def test_every_target_is_in_the_help(run):
    code, out, _ = run("--help")
    assert code == 0 and all(name in out for name in targets.TARGETS)

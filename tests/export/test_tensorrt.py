"""Engines of TensorRT-RTX for GPUs that are not here, what is in them, and files that are not what they say."""

import json
import re
import signal
import sys
import time
from functools import cache
from types import SimpleNamespace

import pytest
from onnx import TensorProto

import unrain
from unrain.engine.errors import UnrainError
from unrain.engine.runtime.backends import sidecar
from unrain.engine.runtime.identity import model_hash
from unrain.export.adapter import TENSORRT, TENSORRT_RTX
from unrain.export.metadata import weights_hash
from unrain.export.onnx.export import build_onnx
from unrain.export.targets import Options, export
from unrain.export.tensorrt import engines as tensorrt
from unrain.export.tensorrt.build import Profile, build, read_back
from unrain.export.verify import verify

rtx = pytest.importorskip("tensorrt_rtx")

QUICK = ("srn", "brn", "stagewise", "timelapse")
EACH = ("SM86", "SM89", "SM120")
slow = pytest.mark.slow
# One engine may serve several GPUs, and takes no longer to build.
CASES = [pytest.param(name, EACH, id=name, marks=() if name in QUICK else slow) for name in unrain.models()]
CASES += [pytest.param(name, (target,), id=f"{name}-{target}", marks=slow) for name in QUICK for target in EACH]


def graph_of(model, precision="fp16"):
    return build_onnx(model, precision, None, None, 1, False, False, None, "fp16")


@pytest.fixture(scope="module")
def half(network):
    """`half(name)`: the half-precision graph of a network, and what there is to say about it."""
    return cache(lambda name: graph_of(network(name)))


@pytest.mark.parametrize(("name", "targets"), CASES)
def test_every_network_builds_in_half_precision_without_a_gpu(name, targets, half, network, tmp_path, capsys):
    model, exported = half(name)
    started = time.process_time()  # of this process: other work on the machine does not count
    made = tensorrt.write_engine(
        model, exported.description, tmp_path / f"{name}.engine", TENSORRT_RTX, targets, Profile()
    )
    said = sidecar.read(made.path)
    written = sum(node.op_type in ("Conv", "ConvTranspose") for node in model.graph.node)
    assert (said["convolutions"]["half"], said["convolutions"]["single"]) == (written, [])
    assert said["weights"] == weights_hash(network(name)) and said["targets"] == list(targets)
    assert said["profile"]["image"] == [[1, 3, 64, 64], [1, 3, 720, 1280], [1, 3, 1088, 1920]]
    for target in targets:
        assert sidecar.read_engine(made.path, target=target) == made.built.engine
    assert list(tmp_path.glob("*.part")) == []
    with capsys.disabled():
        print(f"\n{name} {'+'.join(targets)}: {said['bytes']:,} bytes, {made.built.seconds:.1f} s", end=" ")
    assert time.process_time() - started < 30


def test_an_interrupt_ends_the_build(half, monkeypatch):
    """Ctrl-C comes while the library is at work, in one of its calls back to Python."""
    done = []
    bar = SimpleNamespace(start=lambda: None, stop=lambda: None, remove_task=done.append, update=lambda *_, **__: None)
    bar.add_task = lambda *_, **__: signal.raise_signal(signal.SIGINT)
    monkeypatch.setattr("unrain.engine.console.progress_bar", lambda: bar)
    graph = half("srn")[0]
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a program in the background ignores it
    try:
        with pytest.raises(KeyboardInterrupt):
            build(graph, TENSORRT_RTX, ["SM89"], Profile())
        assert done and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="module")
def srn(half):
    return half("srn")


@pytest.fixture(scope="module")
def engine(srn, network, tmp_path_factory):
    """One engine that the tests below copy and spoil."""
    path = tmp_path_factory.mktemp("engine") / "srn.engine"
    about = {**srn[1].description, "network": model_hash(network("srn"))}
    return tensorrt.write_engine(srn[0], about, path, TENSORRT_RTX, ["SM89"], Profile())


@pytest.fixture
def copy(engine, tmp_path):
    for path in (engine.path, sidecar.sidecar_of(engine.path)):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path / engine.path.name


def one_line(error, *words):
    text = str(error.value)
    assert "\n" not in text and all(word in text for word in words), text


def test_half_precision_is_in_the_engine_itself(network, srn, engine):
    single = build(graph_of(network("srn"), "fp32")[0], TENSORRT_RTX, ["SM89"], Profile())
    weights = [tensor for tensor in srn[0].graph.initializer if len(tensor.dims) == 4]
    assert sum(tensor.data_type == TensorProto.FLOAT16 for tensor in weights) == len(weights) == 13
    half_bytes = sum(len(tensor.raw_data) for tensor in weights)
    assert len(engine.built.engine) + half_bytes <= len(single.engine)
    assert single.half == [] and len(single.single) == len(engine.built.half)


def test_a_graph_that_lost_its_half_precision_is_not_built(network):
    graph = graph_of(network("srn"), "fp32")[0]
    with pytest.raises(UnrainError, match=r"78 of 78 convolutions would not compute in half precision, stage1/"):
        build(graph, TENSORRT_RTX, ["SM89"], Profile(), single=())


def test_convolutions_in_named_islands_may_be_single(network):
    graph = graph_of(network("srn"), "fp32")[0]
    names = [node.name for node in graph.graph.node if node.op_type == "Conv"]
    logger = rtx.Logger(rtx.Logger.ERROR)
    parsed = rtx.Builder(logger).create_network(1 << int(rtx.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    assert rtx.OnnxParser(parsed, logger).parse(graph.SerializeToString())
    assert read_back(rtx, parsed, graph, names) == ([], names)
    with pytest.raises(UnrainError, match=re.escape(f"1 of {len(names)} convolutions")):
        read_back(rtx, parsed, graph, names[1:])


def test_the_target_writes_engine_and_sidecar_and_says_what_it_did(network, tmp_path):
    path = tmp_path / "srn.engine"
    options = Options("fp16", size=(48, 64), target="sm_86,SM120", stages=2)
    outcome = export(network("srn"), "tensorrt-rtx", path, options)
    assert outcome.files == [path, sidecar.sidecar_of(path)] and all(each.is_file() for each in outcome.files)
    assert outcome.details["targets"] == ["SM86", "SM120"] and outcome.details["stages"] == 2
    assert outcome.details["profile"] == {} and outcome.details["size"] == [48, 64]
    assert "26 of 26 convolutions in half precision" in " ".join(outcome.notes)
    json.dumps(outcome.details, allow_nan=False)


def test_frames_and_a_carried_state_get_profiles_of_their_own(network, tmp_path):
    options = Options("fp16", frames=True, state=True, stages=1, target="SM89", smallest=(32, 32), largest=(96, 80))
    made = tensorrt.export_engine(network("srn"), tmp_path / "video.engine", TENSORRT_RTX, options)
    profile = made.description["profile"]
    assert profile["frame"] == [[1, 32, 32, 3], [1, 96, 80, 3], [1, 96, 80, 3]]
    assert profile["h_in"] == [[1, 32, 32, 32], [1, 32, 96, 80], [1, 32, 96, 80]]


def test_too_little_workspace_is_one_line(srn):
    with pytest.raises(UnrainError) as error:
        build(srn[0], TENSORRT_RTX, ["SM89"], Profile(), workspace=2**20)
    one_line(error, "1,048,576 bytes of workspace")


def test_a_truncated_engine_is_one_line(copy):
    copy.write_bytes(copy.read_bytes()[:-1000])
    with pytest.raises(UnrainError) as error:
        sidecar.read_engine(copy)
    one_line(error, str(copy), "not whole")


def test_an_edited_engine_is_one_line(copy):
    data = bytearray(copy.read_bytes())
    data[len(data) // 2] ^= 1
    copy.write_bytes(data)
    with pytest.raises(UnrainError) as error:
        sidecar.read_engine(copy)
    one_line(error, str(copy), "SHA-256")


def test_an_engine_for_another_gpu_or_version_or_network_is_one_line(copy):
    for name, value in (("target", "SM120"), ("version", "1.0"), ("weights", "f" * 64), ("library", "tensorrt")):
        with pytest.raises(UnrainError) as error:
            sidecar.read_engine(copy, **{name: value})
        one_line(error, f"was built for {name}", value[:12])
    assert sidecar.read_engine(copy, target="SM89", weights=None)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"[]",
        b"[" * 100_000,
        b'{"format": 2}',
        b'{"format": 1, "targets": "SM89"}',
        b"\xff\xfe\x00",
        b'{"format": 1, "model": 3, "bytes": true}',
    ],
)
def test_a_sidecar_that_is_none_is_one_line(copy, text):
    sidecar.sidecar_of(copy).write_bytes(text)
    with pytest.raises(UnrainError) as error:
        sidecar.read_engine(copy)
    one_line(error, "export the engine again")


def test_an_engine_without_a_sidecar_is_not_loaded(copy):
    sidecar.sidecar_of(copy).unlink()
    with pytest.raises(UnrainError) as error:
        verify(copy, None, [])
    one_line(error, "srn.engine.json", "export the engine again")


def test_a_wrong_engine_is_rebuilt_where_asked(network, copy):
    options = Options("fp16", target="SM89")
    before = copy.read_bytes()
    assert tensorrt.engine(network("srn"), copy, TENSORRT_RTX, options) == copy
    other = network("srn-direct")
    with pytest.raises(UnrainError) as error:
        tensorrt.engine(other, copy, TENSORRT_RTX, options)
    one_line(error, "built for network", "export it again")
    with pytest.raises(UnrainError, match="built for precision fp16, this is fp32"):
        tensorrt.engine(network("srn"), copy, TENSORRT_RTX, Options("fp32", target="SM89"))
    with pytest.raises(UnrainError, match="built for target SM89, this is SM120"):
        tensorrt.engine(network("srn"), copy, TENSORRT_RTX, Options("fp16", target="SM89,SM120"))
    rebuilt = Options("fp16", target="SM89", stages=1)
    tensorrt.engine(other, copy, TENSORRT_RTX, rebuilt, rebuild=True)
    assert sidecar.read(copy)["config"]["residual"] is False and copy.read_bytes() != before
    assert tensorrt.engine(other, copy, TENSORRT_RTX, rebuilt) == copy


def test_a_missing_tensorrt_is_one_line_that_names_the_package(network, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    monkeypatch.setattr("unrain.engine.runtime.backends.packages.find_spec", lambda name: None)
    with pytest.raises(UnrainError) as error:
        export(network("srn"), "tensorrt", tmp_path / "srn.engine", Options("fp16"))
    one_line(error, "(tensorrt)", "pip install 'unrain[tensorrt]'")
    assert list(tmp_path.iterdir()) == []


def test_targets_that_cannot_be_are_one_line(monkeypatch):
    monkeypatch.setattr("unrain.export.adapter.gpu_here", lambda: None)
    with pytest.raises(UnrainError, match=r"--target with SM75, .*SM120"):
        TENSORRT_RTX.targets(None)
    with pytest.raises(UnrainError, match="not SM87"):
        TENSORRT_RTX.targets("SM87")
    with pytest.raises(UnrainError, match="there is none here"):
        TENSORRT.targets(None)
    monkeypatch.setattr("unrain.export.adapter.gpu_here", lambda: "SM89")
    assert TENSORRT_RTX.targets(None) == ["SM89"] == TENSORRT.targets(None)
    with pytest.raises(UnrainError, match="leave out --target SM120"):
        TENSORRT.targets("SM120")


@pytest.mark.skipif("__import__('torch').cuda.is_available()", reason="a machine without a GPU says so")
def test_verifying_where_no_gpu_is_says_where_it_runs(copy):
    with pytest.raises(UnrainError) as error:
        verify(copy, None, [])
    one_line(error, "is whole, and runs on SM89", "no GPU here")


def test_sizes_the_wrong_way_round_are_refused():
    with pytest.raises(UnrainError, match="got 64x64 to 32x32"):
        Profile.of((64, 64), (32, 32))
    assert Profile.of((8, 8), (480, 640)).best == (480, 640)

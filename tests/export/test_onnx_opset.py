"""ONNX files of older opsets: the same network, run by ONNX Runtime."""

import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

import numpy as np  # noqa: E402
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from unrain.engine.errors import UnrainError  # noqa: E402
from unrain.engine.models import WEIGHTS, load  # noqa: E402
from unrain.engine.runtime.calibration import batches  # noqa: E402
from unrain.export.onnx.export import export_onnx  # noqa: E402
from unrain.export.onnx.opset import lowered  # noqa: E402
from unrain.export.onnx.run import session  # noqa: E402
from unrain.export.pictures import bundled  # noqa: E402
from unrain.export.verify import verify_onnx  # noqa: E402

FLOAT = TensorProto.FLOAT
SHIPPED = sorted(path.stem for path in WEIGHTS.glob("*.safetensors"))


@pytest.mark.parametrize(
    "name", ["wiper-s", *(pytest.param(each, marks=pytest.mark.slow) for each in SHIPPED if each != "wiper-s")]
)
@pytest.mark.parametrize("precision", ["fp32", pytest.param("fp16", marks=pytest.mark.slow)])
def test_opset_17_keeps_the_rule(name, precision, tmp_path):
    model = load(name)
    exported = export_onnx(model, tmp_path / "net.onnx", precision, opset=17)
    graph = onnx.load(exported.path)
    assert [each.version for each in graph.opset_import] == [17] and graph.ir_version == 8
    fidelity = verify_onnx(exported.path, model, batches(bundled(), 64))
    assert fidelity.passed, str(fidelity)


def made_of(*nodes, opset=20):
    ports = [helper.make_tensor_value_info(*port) for port in (("x", FLOAT, [2, 3, 4]), ("y", FLOAT, [2]))]
    graph = helper.make_graph(
        nodes, "few", ports[:1], ports[1:], [numpy_helper.from_array(np.array([1, 2], np.int64), "axes")]
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def test_the_axes_of_a_reduction_become_its_attribute():
    model = made_of(helper.make_node("ReduceMean", ["x", "axes"], ["y"], keepdims=0))
    old = lowered(model, 17)
    onnx.checker.check_model(old, full_check=True)
    x = np.random.default_rng(0).random((2, 3, 4), np.float32)
    assert np.array_equal(*(session(each).run(None, {"x": x})[0] for each in (model, old)))
    assert len(model.graph.node[0].input) == 2, "the graph that was given stays as it is"


def test_what_18_added_to_split_and_to_reductions_goes():
    model = made_of(
        helper.make_node("Split", ["x"], ["a", "b"], axis=2, num_outputs=2),
        helper.make_node("Add", ["a", "b"], ["sum"]),
        helper.make_node("ReduceL2", ["sum", "axes"], ["y"], keepdims=0, noop_with_empty_axes=0),
    )
    old = lowered(model, 17)
    onnx.checker.check_model(old, full_check=True)
    x = np.random.default_rng(0).random((2, 3, 4), np.float32)
    assert np.array_equal(*(session(each).run(None, {"x": x})[0] for each in (model, old)))


def test_what_an_older_opset_lacks_is_refused_by_name():
    with pytest.raises(UnrainError, match=r"smooth: Gelu of opset 20 has no known counterpart in opset 17"):
        lowered(made_of(helper.make_node("Gelu", ["x"], ["y"], name="smooth")), 17)
    with pytest.raises(UnrainError, match="--opset must be 17 to 20, got 12"):
        lowered(made_of(helper.make_node("Relu", ["x"], ["y"])), 12)

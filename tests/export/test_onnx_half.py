"""Half precision: what stays in fp32, and networks whose numbers do not fit."""

from copy import deepcopy

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from unrain.engine.errors import UnrainError
from unrain.engine.runtime.backends.graph import network_graph
from unrain.export.fidelity import compare, reference
from unrain.export.onnx.export import export_onnx
from unrain.export.onnx.half import to_half
from unrain.export.onnx.ranges import first_overflow, layers_beyond, magnitudes
from unrain.export.onnx.run import session


@pytest.fixture(scope="module")
def loud(network):
    """An SRN whose third residual block passes on numbers around 10^5, and takes them back after."""
    model = deepcopy(network("srn", stages=1))
    block = model.branch.f_res[2]
    with torch.no_grad():
        block.conv1.weight *= 1e6
        block.conv1.bias *= 1e6
        block.conv2.weight /= 1e6
    return model


def kinds(graph):
    graph = onnx.shape_inference.infer_shapes(graph)
    types = {value.name: value.type.tensor_type.elem_type for value in (*graph.graph.value_info, *graph.graph.output)}
    return {node.name: types[node.output[0]] for node in graph.graph.node if node.output[0] in types}


def run_as_written(graph, picture):
    return session(graph, optimise=False).run(["derained"], {"image": picture})[0]


def test_cell_state_pictures_and_norms_stay_in_fp32(network):
    half, islands = to_half(network_graph(network("srn", stages=2)))
    found = kinds(half)
    for stage in (1, 2):
        cell = f"stage{stage}/branch.f_recurrent"
        assert found[f"{cell}/Tanh"] == found[f"{cell}/Add"] == found[f"{cell}/Mul.2"] == TensorProto.FLOAT
        assert found[f"{cell}.gates/Conv"] == found[f"stage{stage}/branch.f_res.0/Add"] == TensorProto.FLOAT16
        assert found[f"stage{stage}/Add"] == TensorProto.FLOAT  # the residual
        assert f"{cell}/Tanh" in islands.cell_state and f"stage{stage}/Add" in islands.pictures
    half, islands = to_half(network_graph(network("timelapse")))
    found = kinds(half)
    assert {"Softmax", "InstanceNormalization", "ReduceL2", "Clip"} <= set(islands.norms)
    assert all(found[name] == TensorProto.FLOAT for name in islands.norms)


def test_a_layer_beyond_half_precision_is_named_and_stays_in_fp32(loud, pictures, tmp_path):
    graph = network_graph(loud)
    expected = reference(loud)
    careless, _ = to_half(graph)
    assert first_overflow(careless, {"image": pictures[0]}) == "stage1/branch.f_res.2.conv1/Conv"

    exported = export_onnx(loud, tmp_path / "x.onnx", "fp16")
    named = [layer.node for layer in exported.beyond]
    assert named[0] == "stage1/branch.f_res.2.conv1/Conv"
    assert exported.beyond[0].largest > 65504
    assert all(name.startswith("stage1/branch.f_res.2") for name in named)
    # The ReLU behind such a layer has its numbers in fp32 already, and stays there.
    kept = exported.description["fp32_islands"]["range"]
    assert set(named) <= set(kept) and all(name.startswith("stage1/branch.f_res.2") for name in kept)
    written = onnx.load(exported.path)
    fidelity = compare(lambda picture: run_as_written(written, picture), expected, pictures, "fp16")
    assert fidelity.passed, str(fidelity)
    assert first_overflow(written, {"image": pictures[0]}) is None
    # Only what has to be in fp32 is: the other blocks are half.
    assert kinds(written)["stage1/branch.f_res.1.conv1/Conv"] == TensorProto.FLOAT16


def test_weights_beyond_half_precision_stay_in_fp32():
    weight = np.zeros((3, 3, 1, 1), np.float32)
    weight[0, 0] = 1e5
    nodes = [helper.make_node("Conv", ["image", "weight"], ["derained"], "loud")]
    shape = [1, 3, 8, 8]
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("image", "derained")]
    graph = helper.make_graph(nodes, "g", ports[:1], ports[1:], [numpy_helper.from_array(weight, "weight")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    half, islands = to_half(model)
    assert islands.range == ["loud"]
    picture = np.full(shape, 1e-3, np.float32)
    np.testing.assert_allclose(run_as_written(half, picture), run_as_written(model, picture))


def test_magnitudes_are_those_of_the_fp32_network(network, pictures):
    model = network("srn", stages=1)
    seen = {}
    hook = model.branch.f_in.register_forward_hook(lambda _, __, y: seen.update(f_in=float(y.abs().max())))
    with torch.no_grad():
        model(torch.from_numpy(pictures[0]))
    hook.remove()
    graph = network_graph(model)
    value = next(node.output[0] for node in graph.graph.node if node.name == "stage1/branch.f_in/Conv")
    assert magnitudes(graph, pictures[:1])[value] == pytest.approx(seen["f_in"], rel=1e-4)
    assert layers_beyond(graph, pictures) == []


def test_a_network_broken_in_fp32_too_is_refused(network, pictures):
    model = deepcopy(network("srn", stages=1))
    with torch.no_grad():
        model.branch.f_res[1].conv2.bias[3] = float("nan")
    with pytest.raises(UnrainError, match=r"not finite in fp32 either, from stage1/branch\.f_res\.1\.conv2/Conv on"):
        layers_beyond(network_graph(model), pictures[:1])

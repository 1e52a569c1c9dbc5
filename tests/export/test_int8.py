"""INT8: explicit Q/DQ with scales from pictures, and the rule that decides which layers may have it."""

from copy import deepcopy

import numpy as np
import onnx
import pytest
import torch

import unrain
from unrain.engine.errors import UnrainError
from unrain.engine.models import WEIGHTS
from unrain.engine.psnr import psnr
from unrain.engine.runtime.backends.graph import network_graph
from unrain.engine.runtime.calibration import batches, pictures_in
from unrain.export.fidelity import Fidelity, compare, reference
from unrain.export.onnx.export import export_onnx
from unrain.export.onnx.quantise import BINS, best_scale, calibrate, convolutions, quantised
from unrain.export.onnx.quantise_search import _fewest_kept, quantise
from unrain.export.onnx.run import session
from unrain.export.pictures import bundled
from unrain.export.verify import verify


@pytest.fixture(scope="module")
def graph(network):
    return network_graph(network("srn", stages=2))


@pytest.fixture(scope="module")
def scales(graph, pictures):
    return calibrate(graph, pictures)


def test_every_convolution_reads_int8_activations_and_weights(graph, scales):
    layers = convolutions(graph)
    result = quantised(graph, scales, layers)
    onnx.checker.check_model(result, full_check=True)
    makers = {output: node for node in result.graph.node for output in node.output}
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in result.graph.initializer}
    count = 0
    for node in result.graph.node:
        if node.op_type != "Conv":
            continue
        count += 1
        activation, weight = (makers[name] for name in node.input[:2])
        assert (activation.op_type, weight.op_type) == ("DequantizeLinear", "DequantizeLinear")
        assert makers[activation.input[0]].op_type == "QuantizeLinear"
        codes, scale, zero = (constants[name] for name in weight.input)
        assert codes.dtype == np.int8 and codes.min() >= -127
        assert scale.shape == (codes.shape[0],) and not zero.any()
        assert constants[activation.input[1]].shape == () and not constants[activation.input[2]].any()
    assert count == sum(map(len, layers.values())) == 2 * 13
    # Stages share their weights, stored once, but not their scales.
    assert sum(value.dtype == np.int8 and value.ndim == 4 for value in constants.values()) == 13
    first, second = (scales[f"stage{stage}/{tail}"] for stage, tail in _inputs_of(graph, "branch.f_out"))
    assert first != second


def _inputs_of(graph, layer):
    return [node.input[0].removeprefix("stage").split("/", 1) for node in convolutions(graph)[layer]]


def test_weights_are_rounded_to_the_nearest_step(graph, scales):
    result = quantised(graph, scales, ["branch.f_in"])
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in result.graph.initializer}
    (name,) = {node.input[1] for node in convolutions(graph)["branch.f_in"]}
    original = next(onnx.numpy_helper.to_array(t) for t in graph.graph.initializer if t.name == name)
    scale = constants[f"{name}/scale"].reshape(-1, 1, 1, 1)
    assert (np.abs(constants[f"{name}/int8"] * scale - original) <= scale * 0.501).all()
    assert set(scale.ravel()) == set(scale.astype(np.float16).astype(np.float32).ravel())


def test_the_scale_has_the_least_squared_error():
    rng = np.random.default_rng(0)
    values = np.abs(rng.standard_normal(100_000)).astype(np.float32)
    values[0] = 40.0  # one outlier that must not cost everybody's precision
    counts, _ = np.histogram(values, BINS, (0, 40.0))
    scale = best_scale(counts, 40.0)

    def error(step):
        return float(((np.minimum(np.rint(values / step), 127) * step - values) ** 2).sum())

    assert error(scale) < 0.7 * error(40.0 / 127)
    assert error(scale) <= 1.05 * min(error(limit / 127) for limit in np.linspace(8, 40, 200))
    assert best_scale(np.zeros(BINS, np.int64), 0.0) == 1.0


@pytest.mark.parametrize("others", ["fp16", "fp32"])
def test_the_exported_file_keeps_40_decibels(network, tmp_path, pictures, others):
    model = network("srn", stages=2)
    exported = export_onnx(model, tmp_path / "x.onnx", "int8", others=others)
    run = session(exported.path.read_bytes())
    fidelity = compare(lambda x: run.run(None, {"image": x})[0], reference(model), pictures, "int8")
    assert fidelity.passed, str(fidelity)
    assert exported.description["int8_layers"] == exported.int8.int8 != []
    assert bool(exported.islands) == (others == "fp16")


def test_optimising_a_half_int8_graph_changes_nothing(network, tmp_path):
    """A bias inside an INT8 convolution would be quantised with a scale that half precision does not hold."""
    model = network("srn", channels=8, blocks=1, stages=2)
    graph = onnx.load(export_onnx(model, tmp_path / "x.onnx", "int8").path)
    noise = np.random.default_rng(0).random((1, 3, 40, 48), dtype=np.float32)
    found = [session(graph, optimise=optimise).run(None, {"image": noise})[0] for optimise in (True, False)]
    assert np.abs(found[0] - found[1]).max() < 0.01
    biased = [node.name for node in graph.graph.node if node.op_type == "Conv" and len(node.input) > 2]
    assert biased == []


def test_a_fragile_layer_is_found_and_kept(network, pictures):
    """One channel a thousand times louder than the others, made good by the next convolution: no scale suits both."""
    model = deepcopy(network("srn", stages=1))
    block = model.branch.f_res[0]
    with torch.no_grad():
        model.branch.f_out.weight *= 8
        block.conv1.weight[0] *= 3000
        block.conv1.bias[0] *= 3000
        block.conv2.weight[:, 0] /= 3000
        block.conv2.weight *= 4
    graph = network_graph(model)
    result = quantise(graph, pictures)
    assert next(iter(result.kept)) == "branch.f_res.0.conv2"
    assert len(result.kept) <= 3 and len(result.int8) + len(result.kept) == 13
    assert result.kept["branch.f_res.0.conv2"] < 41 <= result.fidelity.decibels
    left = {node.input[1] for node in result.graph.graph.node if node.name.endswith("f_res.0.conv2/Conv")}
    assert left and not any("int8" in name for name in left)


def test_the_fewest_layers_are_kept():
    harm = {"a": 2e-5, "b": 3e-6, "c": 5e-5, "d": 1e-6}

    def fidelity(layers):
        total = sum(harm[layer] for layer in layers)
        return Fidelity("int8", psnr(total), 0, 0, 1)

    assert _fewest_kept(list(harm), fidelity) == {}
    harm = {layer: 10 * value for layer, value in harm.items()}
    assert list(_fewest_kept(list(harm), fidelity)) == ["c", "a"]


def test_a_network_that_no_layer_of_can_be_int8_is_said_so(network, pictures, monkeypatch):
    monkeypatch.setattr("unrain.export.onnx.quantise_search.compare", lambda *_: Fidelity("int8", 10.0, 99, 0, 1))
    with pytest.raises(UnrainError, match="no layer of this network can be INT8 and keep 40 dB"):
        quantise(network_graph(network("srn", stages=1)), pictures[:1])


@pytest.mark.slow
@pytest.mark.parametrize("file", ["srn_residual_Rain100L.pth", "brn_Rain100L.pth"])
def test_published_weights_keep_40_decibels(shared, tmp_path, file):
    model = unrain.load(shared(f"reference_weights/{file}"))
    exported = export_onnx(model, tmp_path / "x.onnx", "int8")
    run = session(exported.path.read_bytes())
    fidelity = compare(lambda x: run.run(None, {"image": x})[0], reference(model), batches(bundled()), "int8")
    print(file, fidelity, exported.int8.kept)
    assert fidelity.passed, str(fidelity)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["srn", "stagewise", "brn", "mspfn-light"])
def test_calibrated_on_photographs_it_keeps_40_decibels_on_others(shared, network, tmp_path, name):
    """8-bit ports, as a camera has them; the shipped weights where there are some; dry pictures to learn from, and then
    real rain, which it has not seen.
    """
    model = unrain.load(name) if (WEIGHTS / f"{name}.safetensors").is_file() else network(name)
    photographs = pictures_in(shared("data/train"))
    exported = export_onnx(model, tmp_path / "x.onnx", "int8", frames=True, pictures=photographs)
    fidelity = verify(exported.path, model, batches(pictures_in(shared("data/real_rain_photos"))))
    print(f"{name}: {fidelity}; {len(exported.int8.int8)} layers in int8, kept: {exported.int8.kept}")
    assert fidelity.passed, str(fidelity)
    assert exported.int8.int8

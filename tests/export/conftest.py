"""Translating a network to ONNX takes seconds; the tests here share one translation per network."""

from collections.abc import Callable

import pytest
import torch

import unrain
from unrain.engine.runtime.backends import graph as graph_module
from unrain.engine.runtime.calibration import batches
from unrain.export.metadata import weights_hash
from unrain.export.pictures import bundled
from unrain.export.targets import Options, Outcome, export


@pytest.fixture(scope="session", autouse=True)
def one_translation_each():
    """What translates a network remembers what it gave; callers get copies."""
    patch = pytest.MonkeyPatch()
    for function in ("network_graph", "carried_graph", "stage_graph"):
        patch.setattr(graph_module, function, _remembering(getattr(graph_module, function)))
    yield
    patch.undo()


def _remembering(translate: Callable) -> Callable:
    known: dict = {}

    def remembered(model):
        key = (_content(model), getattr(model, "stages", None))
        if translate.__name__ == "stage_graph":  # the same stage, however often it is to run
            key = key[:1]
        if key not in known:
            known[key] = translate(model)
        copy = type(known[key])()
        copy.CopyFrom(known[key])
        return copy

    return remembered


def _content(model) -> tuple:
    """What a network is, but for its number of stages: class, configuration and weights."""
    config = {name: value for name, value in vars(model.config).items() if name != "stages"}
    return type(model), repr(config), weights_hash(model)


@pytest.fixture(scope="session")
def network():
    """`network(name, **overrides)`: the network with random weights, the same object every time."""
    known: dict = {}

    def get(name, **overrides):
        key = (name, *sorted(overrides.items()))
        if key not in known:
            with torch.random.fork_rng():
                torch.manual_seed(0)
                known[key] = unrain.build(name, **overrides).eval()
        return known[key]

    return get


@pytest.fixture(scope="session")
def model(network):
    """What most of the tests export."""
    return network("srn", stages=2)


@pytest.fixture(scope="session")
def pictures():
    """Rainy pictures as the networks take them, float32 [1, 3, 64, 64]."""
    return batches(bundled(), 64)


@pytest.fixture(scope="session")
def packaged(network, tmp_path_factory):
    """`packaged(name, stages)`: what exporting the package of a network for 64 x 96 gave; compiling takes long."""
    known: dict[tuple[str, int | None], Outcome] = {}

    def get(name, stages):
        if (name, stages) not in known:
            path = tmp_path_factory.mktemp("package") / f"{name}.pt2"
            known[name, stages] = export(network(name), "package", path, Options("fp32", stages, (64, 96)))
        return known[name, stages]

    return get


@pytest.fixture(scope="session")
def srn_package(packaged):
    return packaged("srn", 1).files[0]

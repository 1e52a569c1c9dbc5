"""VGG19 features: torchvision's layout and arithmetic, weights from a file, and clear errors without one."""

import pickle

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from unrain.engine.errors import UnrainError
from unrain.engine.nn.losses import CharbonnierLoss
from unrain.engine.nn.perceptual import PerceptualLoss, RefinementLoss, VGG19Features, layer_indices

# The indices and shapes of the convolutions in torchvision.models.vgg19().features.
CONVOLUTIONS = {
    0: (64, 3), 2: (64, 64), 5: (128, 64), 7: (128, 128),
    10: (256, 128), 12: (256, 256), 14: (256, 256), 16: (256, 256),
    19: (512, 256), 21: (512, 512), 23: (512, 512), 25: (512, 512),
    28: (512, 512), 30: (512, 512), 32: (512, 512), 34: (512, 512),
}  # fmt: skip


def state_dict(deepest=16):
    """Random weights in torchvision's layout, with a classifier that is to be ignored."""
    state = {"classifier.6.bias": torch.zeros(1000)}
    for index, (out, into) in CONVOLUTIONS.items():
        if index <= deepest:
            state[f"features.{index}.weight"] = torch.randn(out, into, 3, 3) * (2 / (9 * into)) ** 0.5
            state[f"features.{index}.bias"] = torch.randn(out) * 0.1
    return state


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(3)
    path = tmp_path_factory.mktemp("vgg") / "vgg19.pth"
    torch.save(state_dict(), path)
    return path


def straight(state, image, layers):
    """VGG19 as a plain sequence of functions over the state dict."""
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    x = (image - mean[:, None, None]) / std[:, None, None]
    found = {}
    for block, indices in enumerate(([0, 2], [5, 7], [10, 12, 14, 16]), 1):
        for position, index in enumerate(indices, 1):
            x = F.conv2d(x, state[f"features.{index}.weight"], state[f"features.{index}.bias"], padding=1)
            found[f"conv{block}_{position}"] = x
            x = x.relu()
            found[f"relu{block}_{position}"] = x
        x = F.max_pool2d(x, 2)
    return {layer: found[layer] for layer in layers}


def test_layers_have_torchvisions_indices():
    indices = layer_indices()
    assert {index for name, index in indices.items() if name.startswith("conv")} == set(CONVOLUTIONS)
    assert indices["conv3_4"] == 16 and indices["relu3_4"] == 17 and indices["relu5_4"] == 35


def test_the_whole_network_has_torchvisions_shapes(tmp_path):
    path = tmp_path / "vgg19.safetensors"
    save_file(state_dict(deepest=34), path)
    found = VGG19Features(path, ("relu5_4",))
    shapes = {name: tuple(p.shape) for name, p in found.features.named_parameters() if name.endswith("weight")}
    assert shapes == {f"{index}.weight": (*shape, 3, 3) for index, shape in CONVOLUTIONS.items()}
    assert sum(p.numel() for p in found.features.parameters()) == 20_024_384
    assert found(torch.rand(1, 3, 32, 32))["relu5_4"].shape == (1, 512, 2, 2)


def test_features_are_vgg19s(weights):
    layers = ("relu1_2", "conv2_1", "relu2_1", "relu3_4")
    image = torch.rand(2, 3, 20, 24)
    found = VGG19Features(weights, layers)(image)
    expected = straight(torch.load(weights, weights_only=True), image, layers)
    assert list(found) == list(layers)
    for layer in layers:
        assert torch.allclose(found[layer], expected[layer], atol=1e-5)


def test_refinement_is_l1_plus_feature_l1(weights):
    x, y = torch.rand(1, 3, 16, 16), torch.rand(1, 3, 16, 16)
    state = torch.load(weights, weights_only=True)
    features = [straight(state, image, ["relu3_4"])["relu3_4"] for image in (x, y)]
    expected = F.l1_loss(x, y) + F.l1_loss(*features)
    assert RefinementLoss(weights)(x, y).item() == pytest.approx(expected.item(), rel=1e-5)
    assert RefinementLoss(weights)(x, x) == 0


def test_perceptual_takes_any_distance_and_sums_the_layers(weights):
    x, y = torch.rand(1, 3, 16, 16), torch.rand(1, 3, 16, 16)
    both = VGG19Features(weights, ("relu1_1", "relu2_2"))
    apart = [PerceptualLoss(VGG19Features(weights, (layer,)), CharbonnierLoss())(x, y) for layer in both.layers]
    assert torch.allclose(PerceptualLoss(both, CharbonnierLoss())(x, y), apart[0] + apart[1])


def test_the_gradient_reaches_the_prediction_only(weights):
    loss = RefinementLoss(weights)
    x, y = (torch.rand(1, 3, 16, 16, requires_grad=True) for _ in range(2))
    loss.perceptual(x, y).backward()
    assert x.grad.abs().sum() > 0 and y.grad is None
    assert not any(p.requires_grad for p in loss.parameters())


def test_without_weights_the_error_says_what_to_do():
    for build in (VGG19Features, RefinementLoss):
        with pytest.raises(UnrainError, match=r"none are bundled.*vgg19"):
            build(None)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UnrainError, match=r"no VGG19 weights at .*nothing\.pth"):
        VGG19Features(tmp_path / "nothing.pth")


class Trap:
    def __reduce__(self):
        return (print, ("the trap was sprung",))


@pytest.mark.parametrize("content", ["text", "pickle", "list", "truncated"])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_hostile_file_is_an_error_not_code(tmp_path, weights, content, suffix, capsys):
    path = tmp_path / f"vgg{suffix}"
    if content == "text":
        path.write_text("these are not weights")
    elif content == "pickle":
        path.write_bytes(pickle.dumps(Trap(), protocol=2))
    elif content == "list":
        torch.save([1, 2], path)
    else:
        path.write_bytes(weights.read_bytes()[:5000])
    with pytest.raises(UnrainError, match=path.name):
        VGG19Features(path)
    assert "sprung" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("features.10.weight", None, "no entry features.10.weight"),
        ("features.5.weight", torch.zeros(128, 32, 3, 3), r"features.5.weight is \[128, 32, 3, 3\]"),
        ("features.0.bias", torch.zeros(64, dtype=torch.int64), "features.0.bias.*int64"),
    ],
)
def test_the_first_wrong_entry_is_named(tmp_path, key, value, message):
    state = state_dict()
    state.pop(key)
    if value is not None:
        state[key] = value
    torch.save(state, tmp_path / "vgg.pth")
    with pytest.raises(UnrainError, match=message):
        VGG19Features(tmp_path / "vgg.pth")


def test_an_unknown_layer_is_refused(weights):
    with pytest.raises(UnrainError, match="unknown VGG19 layer 'relu9_9'"):
        VGG19Features(weights, ("relu9_9",))

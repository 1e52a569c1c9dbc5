"""VGG19 features and the perceptual losses over them. No weights are bundled: they come from a file on your disk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from ..errors import UnrainError

# Convolutions of each block with their width; each is followed by ReLU, each block by a 2 x 2 max-pool.
BLOCKS = ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4))
WHERE = "pass torchvision's VGG19 state dict (vgg19-dcbb9e9d.pth, or the same keys as .safetensors) by path"


class VGG19Features(nn.Module):
    """ImageNet features of RGB images in [0, 1]: one tensor per layer name, such as "relu3_4" or "conv5_4".

    `weights` is the path of a state dict in torchvision's layout (`features.0.weight`, ...), .pth or .safetensors; the
    classifier's entries are ignored. The weights are frozen, gradients reach the image only. Modules have torchvision's
    indices, and only as many as the deepest layer needs.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, weights: str | Path | None, layers: Sequence[str] = ("relu3_4",)):
        super().__init__()
        if weights is None:
            raise UnrainError(f"the perceptual loss needs VGG19 weights, and none are bundled: {WHERE}")
        indices = layer_indices()
        unknown = [layer for layer in layers if layer not in indices]
        if not layers:
            raise UnrainError("name at least one VGG19 layer")
        if unknown:
            raise UnrainError(f"unknown VGG19 layer {unknown[0]!r}; choose among {', '.join(indices)}")
        self.layers = tuple(layers)
        self._wanted = {indices[layer]: layer for layer in layers}
        self.features = _convolutions(max(self._wanted) + 1)
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1), persistent=False)
        _fill(self.features, Path(weights))
        self.requires_grad_(False)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        x = (image - self.mean) / self.std
        found = {}
        for index, module in enumerate(self.features):
            x = module(x)
            if index in self._wanted:
                found[self._wanted[index]] = x
        return {layer: found[layer] for layer in self.layers}


class PerceptualLoss(nn.Module):
    """The distance between the VGG19 features of two images, summed over the layers; the target's carry no gradient.

    The papers name no layer; the default relu3_4 is the last at a quarter of the resolution. `distance` is L1 as in the
    stage-wise network; MLMCN takes `CharbonnierLoss()`, with a weight of 0.05 beside its Charbonnier loss.
    """

    def __init__(self, features: VGG19Features, distance: Callable[[Tensor, Tensor], Tensor] = F.l1_loss):
        super().__init__()
        self.features = features
        self.distance = distance

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        found = self.features(prediction)
        with torch.no_grad():
            wanted = self.features(target)
        terms = [self.distance(found[layer], wanted[layer]) for layer in self.features.layers]
        return sum(terms[1:], start=terms[0])


class RefinementLoss(nn.Module):
    """L1 + L1 between VGG19 features, equation (7) of the stage-wise network: the loss of its refined image."""

    def __init__(self, features: VGG19Features | str | Path | None):
        super().__init__()
        self.perceptual = PerceptualLoss(features if isinstance(features, VGG19Features) else VGG19Features(features))

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        return F.l1_loss(prediction, target) + self.perceptual(prediction, target)


def layer_indices() -> dict[str, int]:
    """The index in torchvision's `features` of each layer: {"conv1_1": 0, "relu1_1": 1, "conv1_2": 2, ...}."""
    indices, index = {}, 0
    for block, (_, count) in enumerate(BLOCKS, 1):
        for position in range(1, count + 1):
            indices[f"conv{block}_{position}"], indices[f"relu{block}_{position}"] = index, index + 1
            index += 2
        index += 1  # the pool
    return indices


def _convolutions(count: int) -> nn.Sequential:
    modules: list[nn.Module] = []
    channels = 3
    for width, convolutions in BLOCKS:
        for _ in range(convolutions):
            # Not in place: a layer asked for before its ReLU keeps its values.
            modules += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
            channels = width
        modules.append(nn.MaxPool2d(2))
    return nn.Sequential(*modules[:count])


def _fill(features: nn.Sequential, path: Path) -> None:
    """Copies the weights of the file in, after checking every key, shape and type."""
    stored = _read(path)
    wanted = features.state_dict()
    for key, tensor in wanted.items():
        value = stored.get(f"features.{key}")
        if not isinstance(value, Tensor):
            raise UnrainError(f"{path} has no entry features.{key}: it is not a VGG19 file; {WHERE}")
        if value.shape != tensor.shape or not value.is_floating_point():
            found = f"{list(value.shape)} of {value.dtype}"
            raise UnrainError(f"{path}: features.{key} is {found}, not {list(tensor.shape)} of floats; {WHERE}")
    features.load_state_dict({key: stored[f"features.{key}"].to(tensor.dtype) for key, tensor in wanted.items()})


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise UnrainError(f"no VGG19 weights at {path}: {WHERE}")
    try:
        stored = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except Exception as error:  # the unpickler raises whatever a broken file leads it to
        raise UnrainError(f"{path} cannot be read as weights ({type(error).__name__}): {WHERE}") from error
    if not isinstance(stored, dict):
        raise UnrainError(f"{path} holds a {type(stored).__name__}, not a state dict: {WHERE}")
    return stored

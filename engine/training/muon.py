"""Muon for convolutions: momentum whose singular values are all made one, so that every direction learns alike.

Of Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024), with the step scaled to the size of
Adam's (Liu et al., "Muon is scalable for LLM training", 2025), so that both take the same learning rate. Biases and the
last layer, which makes pictures, are left to Adam.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UnrainError
from .recipes import Recipe

# Of the quintic iteration: fast towards one rather than exact, singular values end within 0.7 and 1.2.
_QUINTIC = (3.4445, -4.7750, 2.0315)
_ROUNDS = 5
_MAPS = 16  # a layer with fewer channels on a side has pictures there
_LIKE_ADAM = 0.2  # root mean square of an Adam step, in learning rates


class MuonAdam(torch.optim.Optimizer):
    """Muon for the groups marked `muon`, Adam for the others."""

    def __init__(self, groups: Iterable[dict[str, Any]], rate: float, momentum: float = 0.95) -> None:
        super().__init__(list(groups), {"lr": rate, "momentum": momentum, "betas": (0.9, 0.999), "eps": 1e-8})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        for group in self.param_groups:
            move = self._muon if group["muon"] else self._adam
            for parameter in group["params"]:
                if parameter.grad is not None:
                    move(parameter, self.state[parameter], group)

    def _muon(self, parameter: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
        state["momentum"].lerp_(parameter.grad, 1 - group["momentum"])
        ahead = parameter.grad.lerp(state["momentum"], group["momentum"]).flatten(1)
        scale = _LIKE_ADAM * max(ahead.shape) ** 0.5
        parameter.add_(orthogonal(ahead).view_as(parameter), alpha=-group["lr"] * scale)

    def _adam(self, parameter: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        if not state:
            state["step"] = 0
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        state["step"] += 1
        (slow, slower), count = group["betas"], state["step"]
        state["exp_avg"].lerp_(parameter.grad, 1 - slow)
        state["exp_avg_sq"].lerp_(parameter.grad.square(), 1 - slower)
        spread = (state["exp_avg_sq"] / (1 - slower**count)).sqrt_().add_(group["eps"])
        parameter.addcdiv_(state["exp_avg"], spread, value=-group["lr"] / (1 - slow**count))


def orthogonal(matrix: Tensor) -> Tensor:
    """A matrix of the same singular vectors whose singular values are near one."""
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / (x.norm() + 1e-7)
    a, b, c = _QUINTIC
    for _ in range(_ROUNDS):
        square = x @ x.T
        x = torch.addmm(x, b * square + c * square @ square, x, beta=a)
    return x.T if tall else x


def optimiser_of(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """What the recipe asks for."""
    if recipe.optimiser == "adam":
        return torch.optim.Adam(model.parameters(), recipe.rate)
    if recipe.optimiser == "muon":
        return MuonAdam(_groups(model), recipe.rate)
    raise UnrainError(f"no optimiser is called {recipe.optimiser!r}; there are adam and muon.")


def _groups(model: nn.Module) -> list[dict[str, Any]]:
    """The weights of convolutions from feature maps to feature maps, and all other parameters."""
    inner, outer = [], []
    convolutions = [part for part in model.modules() if isinstance(part, nn.Conv2d)]
    hidden = {id(part.weight) for part in convolutions if min(part.in_channels, part.out_channels) >= _MAPS}
    for parameter in model.parameters():
        (inner if id(parameter) in hidden else outer).append(parameter)
    return [{"params": inner, "muon": True}, {"params": outer, "muon": False}]

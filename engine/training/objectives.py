"""What training minimises: one function per objective, from a network and a batch to a loss."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import UnrainError
from ..models import is_for_video
from ..nn.losses import CharbonnierLoss, EdgeLoss, SSIMLoss
from .recipes import Recipe

# MSPFN and MLMCN take eps = 1e-3 on pictures in [-1, 1]; ours are in [0, 1].
_EPS = 5e-4
# 40 dB, as good as a dry picture has to be. Pressing on beyond makes a network that leaves rain alone, to be safe.
_NEGLIGIBLE = 1e-4


class Objective(nn.Module):
    """The network and its loss as one module, so that gradients of several processes can be averaged around it."""

    def __init__(self, model: nn.Module, recipe: Recipe, vgg: Path | None = None) -> None:
        super().__init__()
        if recipe.objective not in OBJECTIVES:
            raise UnrainError(f"no objective is called {recipe.objective!r}; there are {', '.join(OBJECTIVES)}.")
        self.model, self.recipe = model, recipe
        self.ssim, self.edge, self.charbonnier = SSIMLoss(), EdgeLoss(_EPS), CharbonnierLoss(_EPS)
        self.perceptual = _perceptual(recipe, vgg)

    def forward(self, first: Tensor, second: Tensor, stages: int | None, precision: torch.dtype) -> Tensor:
        """The loss of a batch; `stages` is T of recurrent nets, `precision` that of the network (losses are fp32)."""
        context = partial(torch.autocast, first.device.type, precision, enabled=precision != torch.float32)
        return OBJECTIVES[self.recipe.objective](self, first, second, stages, context)


def _perceptual(recipe: Recipe, vgg: Path | None) -> nn.Module | None:
    if not recipe.perceptual or vgg is None:
        return None
    from ..nn.perceptual import PerceptualLoss, VGG19Features

    distance = F.l1_loss if recipe.objective == "stagewise" else CharbonnierLoss()
    return PerceptualLoss(VGG19Features(vgg), distance)


def _images(one: Objective, rainy: Tensor, stages: int | None, context: Callable[[], Any]) -> list[Tensor]:
    """The network's pictures in fp32, all stages of a recurrent net, the last one last."""
    with context():
        images = one.model.run(rainy, stages)[0] if hasattr(one.model, "run") else [one.model(rainy)]
    return [image.float() for image in images]


def _with_perceptual(one: Objective, loss: Tensor, image: Tensor, clean: Tensor) -> Tensor:
    return loss if one.perceptual is None else loss + one.recipe.perceptual * one.perceptual(image, clean)


def ssim(one: Objective, rainy: Tensor, clean: Tensor, stages: int | None, context: Callable[[], Any]) -> Tensor:
    """SRN and BRN: minus the SSIM of the last stage's picture (one minus it here, so that zero is perfect)."""
    return one.ssim(_images(one, rainy, stages, context)[-1], clean)


def l1_ssim(one: Objective, rainy: Tensor, clean: Tensor, stages: int | None, context: Callable[[], Any]) -> Tensor:
    """L1 + 0.3 (1 - SSIM) of the last picture, `log` times the mean log squared error of the patches, and `deep` times
    the mean L1 of the pictures of the stages before, which makes them fit to be shown when a deadline cuts the
    recurrence short."""
    *earlier, last = _images(one, rainy, stages, context)
    loss = F.l1_loss(last, clean) + 0.3 * one.ssim(last, clean)
    if one.recipe.log:
        loss = loss + one.recipe.log * log_error(last, clean)
    if earlier and one.recipe.deep:
        loss = loss + one.recipe.deep * torch.stack([F.l1_loss(image, clean) for image in earlier]).mean()
    return loss


def video(one: Objective, rainy: Tensor, clean: Tensor, stages: int | None, context: Callable[[], Any]) -> Tensor:
    """`l1_ssim` of single pictures [B, 3, H, W], and of clips [B, T, 3, H, W] that of every frame, carried from the
    first to the last, the later ones heavier, and a tenth of the L1 between the changes from frame to frame."""
    if not is_for_video(one.model):
        raise UnrainError("the objective 'video' needs a network with a state, such as wiper.")
    if rainy.dim() == 4:
        return l1_ssim(one, rainy, clean, stages, context)
    frames = rainy.shape[1]
    state = one.model.initial_state(rainy[:, 0])
    losses, images = [], []
    for number in range(frames):
        with context():
            image, state = one.model.step(rainy[:, number].contiguous(memory_format=torch.channels_last), state)
        images.append(image.float())
        losses.append((0.5 + number / (frames - 1)) * _frame_loss(one, images[-1], clean[:, number]))
    changes = torch.stack(images, 1).diff(dim=1), clean.diff(dim=1)
    return torch.stack(losses).mean() + 0.1 * F.l1_loss(*changes)


def _frame_loss(one: Objective, image: Tensor, clean: Tensor) -> Tensor:
    return F.l1_loss(image, clean) + 0.3 * one.ssim(image, clean) + one.recipe.log * log_error(image, clean)


def log_error(image: Tensor, clean: Tensor) -> Tensor:
    """The mean over patches of log10(squared error), level from 40 dB on: a tenth of the negative PSNR.

    An L1 mean is all but blind to a dry patch spoilt to 35 dB beside one of heavy rain; here each dB weighs the same.
    """
    error = (image - clean).square().mean((1, 2, 3))
    return torch.log10(error / _NEGLIGIBLE + 1).mean()


def stagewise(one: Objective, rainy: Tensor, clean: Tensor, stages: int | None, context: Callable[[], Any]) -> Tensor:
    """Equations (6) to (8): squared error of each stage's rain, L1 (and VGG19 features) of the refined picture."""
    if not hasattr(one.model, "refine"):
        raise UnrainError("the objective 'stagewise' needs the stagewise network.")
    with context():
        refined, state = one.model.run(rainy, stages)
    rain = (rainy - clean).repeat(1, state.rains.shape[1] // 3, 1, 1)
    stage_losses = F.mse_loss(state.rains.float(), rain) * (state.rains.shape[1] // 3)
    image = refined[-1].float()
    return _with_perceptual(one, stage_losses + F.l1_loss(image, clean), image, clean)


def charbonnier_edge(
    one: Objective, rainy: Tensor, clean: Tensor, stages: int | None, context: Callable[[], Any]
) -> Tensor:
    """MSPFN: Charbonnier, and 0.05 of it between the Laplacians."""
    image = _images(one, rainy, stages, context)[-1]
    return one.charbonnier(image, clean) + 0.05 * one.edge(image, clean)


def charbonnier(one: Objective, rainy: Tensor, clean: Tensor, stages: int | None, context: Callable[[], Any]) -> Tensor:
    """MLMCN: Charbonnier of the rain, which is that of the picture, and 0.05 of VGG19 features."""
    image = _images(one, rainy, stages, context)[-1]
    return _with_perceptual(one, one.charbonnier(image, clean), image, clean)


def timelapse(one: Objective, first: Tensor, second: Tensor, stages: int | None, context: Callable[[], Any]) -> Tensor:
    """Two rainy views of one scene, no clean picture: the losses of the authors' code, with its weights unless the
    recipe weighs the cross information otherwise.

    The memory is updated by the first view, read and updated again by the second, and kept.
    """
    from ..nn.timelapse_losses import BackgroundPredictionLoss, CrossedSelfConsistencyLoss, CrossInformationLoss
    from ..nn.whitening import BackgroundWhiteningLoss

    if not hasattr(one.model, "separate_views"):
        raise UnrainError("the objective 'timelapse' needs the timelapse network.")
    with context():
        one_view, other, items = one.model.separate_views(first, second)
    b1, b2, r1, r2 = (t.float() for t in (one_view.background, other.background, one_view.rain, other.rain))
    loss = BackgroundPredictionLoss()(b1, b2)
    loss = loss + one.recipe.cross * CrossInformationLoss()(first, second, b1, b2)
    loss = loss + CrossedSelfConsistencyLoss()(first, second, b1, b2, r1, r2)
    loss = loss + 0.5 * one.ssim(b1, b2)
    loss = loss + 0.01 * BackgroundWhiteningLoss()(one_view.features.float(), other.features.float())
    loss = loss + 0.01 * _compactness(one_view.query.float(), one.model.items)
    with torch.no_grad():
        one.model.items.copy_(items)
    return loss


def _compactness(query: Tensor, items: Tensor) -> Tensor:
    """Mean squared distance of each query [B, C, H, W] from its closest item (the authors' gathering loss)."""
    flat = query.movedim(1, -1).flatten(0, -2)
    return F.mse_loss(flat, items[(flat @ items.T).argmax(dim=1)])


OBJECTIVES: dict[str, Callable[..., Tensor]] = {
    "ssim": ssim,
    "l1-ssim": l1_ssim,
    "video": video,
    "stagewise": stagewise,
    "charbonnier-edge": charbonnier_edge,
    "charbonnier": charbonnier,
    "timelapse": timelapse,
}

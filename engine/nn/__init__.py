"""Modules: cells, memory, pyramid and losses, each over one fused operation."""

from .losses import CharbonnierLoss, EdgeLoss, MultiStageMSELoss, SSIMLoss
from .perceptual import PerceptualLoss, RefinementLoss, VGG19Features
from .timelapse_losses import BackgroundPredictionLoss, CrossedSelfConsistencyLoss, CrossInformationLoss
from .whitening import BackgroundWhiteningLoss

__all__ = [
    "BackgroundPredictionLoss",
    "BackgroundWhiteningLoss",
    "CharbonnierLoss",
    "CrossInformationLoss",
    "CrossedSelfConsistencyLoss",
    "EdgeLoss",
    "MultiStageMSELoss",
    "PerceptualLoss",
    "RefinementLoss",
    "SSIMLoss",
    "VGG19Features",
]

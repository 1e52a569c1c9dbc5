"""Modules: cells, memory, pyramid and losses, each over one fused operation."""

from .cells import ConvGRUCell, ConvGRUState, ConvLSTMCell, ConvLSTMState
from .losses import CharbonnierLoss, EdgeLoss, MultiStageMSELoss, SSIMLoss
from .memory import MemoryBank
from .perceptual import PerceptualLoss, RefinementLoss, VGG19Features
from .pyramid import GaussianPyramid
from .timelapse_losses import BackgroundPredictionLoss, CrossedSelfConsistencyLoss, CrossInformationLoss
from .whitening import BackgroundWhiteningLoss

__all__ = [
    "BackgroundPredictionLoss",
    "BackgroundWhiteningLoss",
    "CharbonnierLoss",
    "ConvGRUCell",
    "ConvGRUState",
    "ConvLSTMCell",
    "ConvLSTMState",
    "CrossInformationLoss",
    "CrossedSelfConsistencyLoss",
    "EdgeLoss",
    "GaussianPyramid",
    "MemoryBank",
    "MultiStageMSELoss",
    "PerceptualLoss",
    "RefinementLoss",
    "SSIMLoss",
    "VGG19Features",
]

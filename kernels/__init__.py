"""The fused operations, one folder each, behind one dispatch registry.

Every op runs on every machine: `unrain.kernels.info()` says which implementations this one has, and
`unrain.kernels.use(...)` picks one. Conventions are in the op's docstring; the maths is in its reference.py.
"""

from .charbonnier import charbonnier
from .conv3x3 import conv3x3
from .conv_gru import conv_gru
from .conv_lstm import PreparedWeight, conv_lstm, prepare_conv_lstm
from .frame_to_tensor import frame_to_tensor
from .gaussian_pyramid import gaussian_pyramid
from .gru_gates import gru_gates, gru_reset
from .lstm_gates import gate_permutation, lstm_gates
from .memory_read import memory_read
from .memory_update import memory_update
from .registry import BackendUnavailable, info, threads, use
from .ssim import ssim
from .tensor_to_frame import tensor_to_frame

__all__ = [
    "BackendUnavailable",
    "PreparedWeight",
    "charbonnier",
    "conv3x3",
    "conv_gru",
    "conv_lstm",
    "frame_to_tensor",
    "gate_permutation",
    "gaussian_pyramid",
    "gru_gates",
    "gru_reset",
    "info",
    "lstm_gates",
    "memory_read",
    "memory_update",
    "prepare_conv_lstm",
    "ssim",
    "tensor_to_frame",
    "threads",
    "use",
]

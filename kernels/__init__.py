"""The fused operations, one folder each, behind one dispatch registry.

Every op runs on every machine: `unrain.kernels.info()` says which implementations this one has, and
`unrain.kernels.use(...)` picks one. Conventions are in the op's docstring; the maths is in its reference.py.
"""

from .lstm_gates import gate_permutation, lstm_gates
from .registry import BackendUnavailable, info, threads, use

__all__ = ["BackendUnavailable", "gate_permutation", "info", "lstm_gates", "threads", "use"]

"""Engine and Stream: the fastest way this machine has, with bounded latency."""

from .engine import Engine

__all__ = ["Engine"]

"""Engine and Stream: the fastest way this machine has, with bounded latency."""

from .engine import Engine
from .status import Outcome, Status
from .stream import Stream

__all__ = ["Engine", "Outcome", "Status", "Stream"]

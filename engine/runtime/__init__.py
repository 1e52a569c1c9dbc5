"""Engine and Stream: the fastest way this machine has, with bounded latency."""

from .engine import Engine
from .stream.status import Outcome, Status
from .stream.stream import Stream

__all__ = ["Engine", "Outcome", "Status", "Stream"]

"""Ctrl-C ends a command in order: what is under way is finished or left whole, and impatience does not break that."""

import signal
import time
from typing import Any

PATIENCE = 10.0  # seconds; what still hangs then is interrupted anew by whoever presses again


class _Interrupt:
    """A signal's handler: raises KeyboardInterrupt, and then nothing more while the work is wound up."""

    def __init__(self) -> None:
        self._last = -PATIENCE

    def __call__(self, *_: Any) -> None:
        now = time.monotonic()
        if now - self._last >= PATIENCE:
            self._last = now
            raise KeyboardInterrupt


interrupt = _Interrupt()


def take_over() -> None:
    """For the life of this process; one that a shell started in the background goes on ignoring ctrl-C."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, interrupt)


def no_more() -> None:
    """All is done but the interpreter's own end, which ctrl-C would turn into a traceback."""
    if signal.getsignal(signal.SIGINT) is interrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)

"""A bounded queue between two threads that either of them can end."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from typing import Any


class Closed(Exception):
    """Nobody takes anything out any more."""


class Stalled(Exception):
    """Nothing has come for too long."""


class Mailbox:
    """Items in order. `newest`: a frame is never waited for; the oldest that still waits is dropped for it."""

    def __init__(self, room: int, newest: bool = False, stall_seconds: float | None = None) -> None:
        self._items: deque[tuple[Any, bool]] = deque()
        self._room, self._newest, self._stall_seconds = room, newest, stall_seconds
        self._lock = threading.Condition()
        self._ended = self._closed = False
        self.dropped = 0

    def put(self, item: Any, droppable: bool = False) -> None:
        with self._lock:
            if self._newest and droppable:
                self._drop_frames()
            else:
                self._lock.wait_for(lambda: len(self._items) < self._room or self._closed or self._newest)
            if self._closed:
                raise Closed
            self._items.append((item, droppable))
            self._lock.notify_all()

    def end(self) -> None:
        """Nothing will be put in any more."""
        with self._lock:
            self._ended = True
            self._lock.notify_all()

    def close(self) -> None:
        """Nothing will be taken out any more: what waits is dropped, and `put` raises Closed."""
        with self._lock:
            self._closed = True
            self._items.clear()
            self._lock.notify_all()

    def __iter__(self) -> Iterator[Any]:
        while True:
            with self._lock:
                if not self._lock.wait_for(self._has_news, self._stall_seconds):
                    raise Stalled
                if not self._items:
                    return
                item, _ = self._items.popleft()
                self._lock.notify_all()
            yield item

    def _has_news(self) -> bool:
        return bool(self._items) or self._ended or self._closed

    def _drop_frames(self) -> None:
        kept = [entry for entry in self._items if not entry[1]]
        self.dropped += len(self._items) - len(kept)
        self._items = deque(kept)

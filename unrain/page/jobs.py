"""Uploads wait in a queue for the one thread that owns the networks."""

from __future__ import annotations

import secrets
import shutil
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..engine.errors import UnrainError

WAITING, KEPT = 8, 8  # uploads that may arrive or wait, results that are kept for a page that has not asked yet


class Cancelled(Exception):
    """The page has gone, or its user has had enough."""


@dataclass
class Job:
    """One upload. Its folder holds nothing but `upload`, and what the work leaves beside it."""

    folder: Path
    choices: Mapping[str, str]
    id: str = field(default_factory=lambda: secrets.token_urlsafe(16))
    state: str = "arriving"  # then waiting, then running, then done or failed
    done: int = 0  # frames
    total: int | None = None
    error: str | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    files: dict[str, Path] = field(default_factory=dict)  # "before" and "after"
    cancelled: threading.Event = field(default_factory=threading.Event)

    @property
    def upload(self) -> Path:
        return self.folder / "upload"

    def step(self, total: int | None = None) -> None:
        """One more frame is done."""
        if self.cancelled.is_set():
            raise Cancelled
        self.done += 1
        self.total = total

    def forget(self) -> None:
        self.cancelled.set()
        shutil.rmtree(self.folder, ignore_errors=True)


class Jobs:
    """`work(job)` runs for one job after the other, in a thread of its own."""

    def __init__(self, work: Callable[[Job], None]) -> None:
        self._work = work
        self._jobs: dict[str, Job] = {}  # in the order they came
        self._news = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="unrain-page", daemon=True)
        self._thread.start()

    def take(self, job: Job) -> bool:
        """Keeps a place for an upload that begins to arrive; False when there is none."""
        with self._news:
            if sum(each.state in ("arriving", "waiting") for each in self._jobs.values()) >= WAITING:
                return False
            self._jobs[job.id] = job
            return True

    def arrived(self, job: Job) -> None:
        """It is whole: its turn comes."""
        with self._news:
            job.state = "waiting"
            finished = [each for each in self._jobs.values() if each.state in ("done", "failed")]
            for old in finished[:-KEPT]:
                self._jobs.pop(old.id).forget()
            self._news.notify_all()

    def find(self, name: str) -> Job | None:
        with self._news:
            return self._jobs.get(name)

    def drop(self, job: Job) -> None:
        """Forgets it: what it wrote is removed, and work under way ends at the next frame."""
        with self._news:
            self._jobs.pop(job.id, None)
        job.forget()

    def describe(self, job: Job) -> dict[str, Any]:
        with self._news:
            before = [each for each in self._jobs.values() if each.state in ("waiting", "running")]
            ahead = before.index(job) if job in before else 0
        answer = {"state": job.state, "ahead": ahead, "done": job.done, "total": job.total}
        return {**answer, "error": job.error, "facts": job.facts}

    def close(self, seconds: float) -> None:
        """Ends the work at its next frame, and waits for that no longer than `seconds`."""
        with self._news:
            self._closed = True
            jobs = list(self._jobs.values())
            self._news.notify_all()
        for job in jobs:
            job.cancelled.set()
        self._thread.join(seconds)
        for job in jobs:
            job.forget()

    def _next(self) -> Job | None:
        with self._news:
            while not self._closed:
                job = next((each for each in self._jobs.values() if each.state == "waiting"), None)
                if job is not None:
                    job.state = "running"
                    return job
                self._news.wait()
        return None

    def _run(self) -> None:
        while (job := self._next()) is not None:
            try:
                self._work(job)
                state = "done"
            except Cancelled:
                state = "failed"
            except UnrainError as error:
                # A page never learns where its upload lay.
                state, job.error = "failed", str(error).replace(str(job.upload), "the file")
            except Exception as error:  # whatever a file or a backend leads to, the next upload must find us at work
                state, job.error = "failed", f"{type(error).__name__}: {error}".replace(str(job.folder), "")
            job.state = state
            if job.cancelled.is_set():  # it was forgotten while files were still being written
                job.forget()

"""`unrain run --ray`: an archive of pictures on a Ray cluster, or on a local one that is started for it.

One row of a Ray Data set is one picture. Workers write into a staging folder inside the output folder, and a picture
gets its name by a hard link, which fails where that name exists: whatever is there is whole and was put there once,
also when a task is run twice or two runs share an archive. A restarted run does what is missing. The cluster's machines
must see the same folders under the same paths, and have unrain installed.
"""

import logging
import os
import shutil
import socket
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

from ..engine.console import complain, progress_bar
from ..engine.errors import UnrainError
from ..opening import frame_function, prepare_engine
from .plan import Job
from .run_picture import Result, derain_picture

STAGING = ".unrain-staging"
# One row a block while that makes no more blocks than this: a worker that dies takes its block with it.
_MOST_BLOCKS = 5_000
_TELL_EVERY = 10.0  # seconds, where stderr is no terminal


@dataclass(frozen=True)
class Work:
    """What every worker is told once."""

    name: str
    weights: Path | None
    stages: int | None
    device: str
    threads: int | None
    backend: str
    precision: str
    settings: dict[str, Any]  # tile, max_memory and strength of the Engine
    max_pixels: int
    quality: int
    overwrite: bool
    staging: Path


def derain_on_ray(
    jobs: list[Job], output: Path, address: str | None, **work: Any
) -> tuple[list[Result], dict[str, Any]]:
    """Every job's result, in the order in which they ended, and what is to be said of the run as a whole."""
    if fcntl is None:
        raise UnrainError("--ray needs a system with Unix file locks, such as Linux; leave it out here")
    ray = _ray()
    try:
        # Ray prints news of its workers to stdout, which is for results.
        with redirect_stdout(sys.stderr), staging_folder(output) as staging:
            _connect(ray, address)
            return _derain(ray, jobs, Work(staging=staging, **work))
    finally:
        ray.shutdown()
        logging.disable(logging.NOTSET)


def _derain(ray: Any, jobs: list[Job], work: Work) -> tuple[list[Result], dict[str, Any]]:
    workers, resources = _workers(ray.cluster_resources(), work)
    results: dict[int, Result] = {}
    pixels, started = 0, time.monotonic()
    told = started
    with progress_bar() as bar:
        task = bar.add_task("derain", total=len(jobs))
        for end in _ends(ray, jobs, results, work, workers, resources):
            result = Result(**{key: _or_none(end[key]) for key in ("input", "output", "status", *_OPTIONAL)})
            results[int(end["number"])] = result
            pixels += (result.width or 0) * (result.height or 0)
            if result.error:
                complain(result.error)
            seconds = time.monotonic() - started
            rate = f"{len(results) / seconds:.1f}/s"
            bar.update(task, completed=len(results), description=f"derain {rate}")
            if bar.disable and time.monotonic() - told > _TELL_EVERY:
                told = time.monotonic()
                print(f"{len(results)} of {len(jobs)}, {rate}", file=sys.stderr)
    seconds = time.monotonic() - started
    for number, job in enumerate(jobs):
        if number not in results:
            lost = f"{job.source} ended its worker twice (it ran out of memory, perhaps)"
            complain(lost)
            results[number] = Result(str(job.source), str(job.target), "failed", error=lost)
    done = sum(result.status == "done" for result in results.values())
    summary = {
        "workers": workers,
        "seconds": round(seconds, 1),
        "pictures_per_second": round(done / seconds, 2),
        "megapixels_per_second": round(pixels / 1e6 / seconds, 2),
    }
    return list(results.values()), summary


def _ends(
    ray: Any, jobs: list[Job], results: dict[int, Any], work: Work, workers: int, resources: dict[str, float]
) -> Iterator[dict[str, Any]]:
    """The rows as they end. What a dead worker took with it gets a second chance, each row alone."""
    for most_blocks in (_MOST_BLOCKS, len(jobs)):
        rows = [_row(number, job) for number, job in enumerate(jobs) if number not in results]
        if not rows:
            return
        data = ray.data.from_items(rows, override_num_blocks=min(len(rows), most_blocks))
        pool = ray.data.ActorPoolStrategy(min_size=1, max_size=workers, max_tasks_in_flight_per_actor=1)
        # Ray's own retries have no end, and what kills a worker kills the next one too.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ends = data.map(Worker, fn_constructor_args=(work,), compute=pool, max_task_retries=0, **resources)
        yield from _rows_of(ends)


def _rows_of(ends: Any) -> Iterator[dict[str, Any]]:
    """The rows as they end; an error of the cluster is one line."""
    try:
        yield from ends.iter_rows()
    except UnrainError:
        raise
    except Exception as error:
        raise UnrainError(f"Ray gave up: {_last_line(error)}") from error


def _last_line(error: BaseException | None) -> str:
    """Of the first that says anything: Ray wraps an error in others without words."""
    while error is not None:
        for each in (getattr(error, "cause", None), error):
            text = str(each or "").strip()
            if text:
                return text.splitlines()[-1]
        error = error.__cause__ or error.__context__
    return "it does not say why"


_OPTIONAL = ("width", "height", "ms", "error")


def _row(number: int, job: Job) -> dict[str, Any]:
    places = {"source": job.source, "target": job.target, "compared": job.compared}
    return {"number": number, **{key: str(path.absolute()) if path else "" for key, path in places.items()}}


def _or_none(value: Any) -> Any:
    """Columns have one type each, so that what is not known is empty or nothing there."""
    return value or None


class Worker:
    """Loads the network once, and derains one picture a call."""

    def __init__(self, work: Work) -> None:
        import torch

        self.work = work
        torch.set_num_threads(work.threads or 1)
        engine, _ = prepare_engine(
            work.name,
            work.weights,
            work.stages,
            work.device,
            work.threads or 1,
            work.backend,
            work.precision,
            trial_seconds=None,
            settings=work.settings,
        )
        self.derain = frame_function(engine)
        self.folder = work.staging / f"{socket.gethostname()}-{os.getpid()}"

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        job = Job(Path(row["source"]), Path(row["target"]), Path(row["compared"]) if row["compared"] else None)
        result = derain_picture(self._staged(job), self.derain, self.work.max_pixels, self.work.quality)
        result.output = str(job.target)
        if result.status == "done":
            try:
                published = [publish(self.folder / path.name, path, self.work.overwrite) for path in job.outputs]
                result.status = "done" if any(published) else "skipped"
            except OSError as error:
                result.status, result.error = "failed", f"{job.target} cannot be written: {error.strerror}"
        values = asdict(result)
        blank = {"width": 0, "height": 0, "ms": 0.0, "error": ""}
        return {"number": row["number"]} | {
            key: values[key] or blank.get(key) for key in ("input", "output", "status", *_OPTIONAL)
        }

    def _staged(self, job: Job) -> Job:
        self.folder.mkdir(parents=True, exist_ok=True)
        target, *compared = (self.folder / path.name for path in job.outputs)
        return Job(job.source, target, compared[0] if compared else None)


def publish(staged: Path, target: Path, overwrite: bool) -> bool:
    """Give a whole file its name; False, and the file is dropped, where another has the name already."""
    try:
        if overwrite:
            os.replace(staged, target)
        else:
            os.link(staged, target)
        return True
    except FileExistsError:
        return False
    finally:
        staged.unlink(missing_ok=True)


@contextmanager
def staging_folder(output: Path) -> Iterator[Path]:
    """A folder for files that are not whole yet, gone at the end. What killed runs left behind is removed first.

    A run holds a lock on its folder; the system lets go of it when the run ends, in whatever way.
    """
    root = output.absolute() / STAGING
    folder = root / f"{socket.gethostname()}-{os.getpid()}-{time.time_ns():x}"
    folder.mkdir(parents=True)
    with _locked(folder) as mine:
        assert mine
        for other in root.iterdir():
            if other != folder:
                with _locked(other) as abandoned:
                    if abandoned:
                        shutil.rmtree(other, ignore_errors=True)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            if not any(root.iterdir()):
                root.rmdir()


@contextmanager
def _locked(folder: Path) -> Iterator[bool]:
    """Whether this process could take the folder's lock; it is let go at the end."""
    try:
        with (folder / "lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            yield True
    except FileNotFoundError:  # removed meanwhile
        yield False


def _workers(resources: dict[str, float], work: Work) -> tuple[int, dict[str, float]]:
    """How many workers the cluster has room for, and what each takes: a GPU, or as many cores as it has threads."""
    if work.device != "cpu" and resources.get("GPU", 0) >= 1:
        return int(resources["GPU"]), {"num_gpus": 1}
    threads = work.threads or 1
    return max(int(resources.get("CPU", 1) // threads), 1), {"num_cpus": threads}


def _connect(ray: Any, address: str | None) -> None:
    """Join the cluster at `address` or in RAY_ADDRESS, else the one on this machine, else start one here."""
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        ray.init(address=address, **quiet)
    except ConnectionError as error:
        raise UnrainError(f"no Ray cluster answers at {address or os.environ.get('RAY_ADDRESS')}") from error
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.max_errored_blocks = -1  # the rest goes on
    logging.disable(logging.ERROR)  # tracebacks of dead workers: what they took with them is named at the end


def _ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    try:
        import ray.data
    except ImportError as error:
        raise UnrainError('--ray needs Ray Data: pip install "unrain[ray]"') from error
    return ray

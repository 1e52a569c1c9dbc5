"""Which pictures a run reads and where each result goes, settled before any work is done.

The rules on what a run may write are here for clips too (`run_video.py` plans those): no file that is read is written
to, under whatever name, and no file is written twice.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from ..engine.errors import UnrainError
from ..engine.images import FORMATS, format_of


class Planned(Protocol):
    """What the rules must know of a job, of whatever kind."""

    @property
    def source(self) -> Path | str: ...

    @property
    def writes(self) -> list[Path]:
        """Every name that it writes under, if only for a while; the result's comes first."""


AnyJob = TypeVar("AnyJob", bound=Planned)


@dataclass(frozen=True)
class Job:
    source: Path
    target: Path
    compared: Path | None = None  # where the side-by-side picture goes

    @property
    def outputs(self) -> list[Path]:
        return [self.target, *([self.compared] if self.compared else [])]

    @property
    def writes(self) -> list[Path]:
        return self.outputs  # they grow under names that nothing else has


def plan(
    inputs: list[Path],
    output: str,
    *,
    recursive: bool = False,
    suffix: str = "",
    ext: str = "auto",
    compare: bool = False,
) -> list[Job]:
    """One job per picture. `output` is a file when one file is given and it ends in a picture suffix, else a folder."""
    inputs = list(dict.fromkeys(inputs))
    for path in inputs:
        if not path.exists():
            raise UnrainError(f"{path} does not exist")
    if _is_file(inputs, output):
        if suffix or ext != "auto":
            raise UnrainError(f"{output} names the result; leave --suffix and --ext out, or give a folder")
        format_of(Path(output))
        jobs = [_job(inputs[0], Path(output), compare)]
    else:
        jobs = _into_folder(inputs, Path(output), recursive, suffix, ext, compare)
    refuse_clashes(jobs)
    return jobs


def _is_file(inputs: list[Path], output: str) -> bool:
    one_file = len(inputs) == 1 and not inputs[0].is_dir()
    return one_file and not output.endswith(("/", "\\")) and not Path(output).is_dir() and bool(Path(output).suffix)


def _job(source: Path, target: Path, compare: bool) -> Job:
    return Job(source, target, target.with_stem(f"{target.stem}-compare") if compare else None)


def _into_folder(inputs: list[Path], folder: Path, recursive: bool, suffix: str, ext: str, compare: bool) -> list[Job]:
    if folder.exists() and not folder.is_dir():
        raise UnrainError(f"{folder} is a file; a folder is needed for these results")
    ending = "" if ext == "auto" else f".{ext.lstrip('.').lower()}"
    jobs = []
    for root in inputs:
        for source in _pictures(root, folder, recursive) if root.is_dir() else [root]:
            below = source.parent.relative_to(root) if root.is_dir() else Path()
            target = folder / below / f"{source.stem}{suffix}{ending or source.suffix}"
            format_of(target)
            jobs.append(_job(source, target, compare))
    return without_earlier_results(jobs)


def _pictures(root: Path, output: Path, recursive: bool) -> list[Path]:
    walk = root.rglob("*") if recursive else root.iterdir()
    found = sorted(p for p in walk if p.suffix.lower() in FORMATS and not p.name.startswith(".") and p.is_file())
    found = not_inside(output, root, found)
    if not found:
        more = "" if recursive else "; --recursive looks into its folders"
        raise UnrainError(f"{root} holds no pictures ({' '.join(FORMATS)}){more}")
    return found


def holds_pictures(folder: Path, recursive: bool) -> bool:
    walk = folder.rglob("*") if recursive else folder.iterdir()
    return any(p.suffix.lower() in FORMATS and not p.name.startswith(".") for p in walk)


def not_inside(output: Path, root: Path, found: list[Path]) -> list[Path]:
    """What of a folder's files is no result, where the results go to a folder inside it."""
    inside = output.resolve()
    if inside == root.resolve():
        return found
    return [path for path in found if inside not in path.resolve().parents]


def without_earlier_results(jobs: list[AnyJob]) -> list[AnyJob]:
    """With the results written beside the inputs, those of an earlier run are no inputs."""
    results = {path.resolve() for job in jobs if job.writes[0] != Path(job.source) for path in job.writes}
    return [job for job in jobs if Path(job.source).resolve() not in results] or jobs


def refuse_clashes(jobs: Sequence[Planned]) -> None:
    """Raises where a job would write over what it, or another, reads or writes."""
    sources = {_identity(Path(job.source)): job.source for job in jobs}
    writers: dict[Hashable, Planned] = {}
    for job in jobs:
        for path in job.writes:
            lost = sources.get(_identity(path))
            if lost is not None:
                own = _identity(Path(job.source)) == _identity(path) or str(lost) == str(job.source)
                result = "its own result" if own else f"the result of {job.source}"
                raise UnrainError(f"{lost} would be overwritten by {result}; give another name, folder or --suffix")
            other = writers.setdefault(_identity(path), job)
            if other is not job and other.source != job.source:
                raise UnrainError(f"{other.source} and {job.source} would both be written to {path}; run them apart")


def _identity(path: Path) -> Hashable:
    """The file itself, whatever its name and however many links lead to it; else the place where it will be."""
    try:
        found = path.stat()
    except OSError:
        return path.resolve()
    return found.st_dev, found.st_ino

"""Which pictures a run reads and where each result goes, settled before any work is done."""

from dataclasses import dataclass
from pathlib import Path

from ..errors import UnrainError
from ..images import FORMATS, format_of


@dataclass(frozen=True)
class Job:
    source: Path
    target: Path
    compared: Path | None = None  # where the side-by-side picture goes

    @property
    def outputs(self) -> list[Path]:
        return [self.target, *([self.compared] if self.compared else [])]


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
    _refuse_clashes(jobs)
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
    # With the results written beside the inputs, those of an earlier run are no inputs.
    results = {path.resolve() for job in jobs if job.target != job.source for path in job.outputs}
    return [job for job in jobs if job.source.resolve() not in results] or jobs


def _pictures(root: Path, output: Path, recursive: bool) -> list[Path]:
    walk = root.rglob("*") if recursive else root.iterdir()
    found = sorted(p for p in walk if p.suffix.lower() in FORMATS and not p.name.startswith(".") and p.is_file())
    inside = output.resolve()
    if inside != root.resolve():
        found = [p for p in found if inside not in p.resolve().parents]
    if not found:
        more = "" if recursive else "; --recursive looks into its folders"
        raise UnrainError(f"{root} holds no pictures ({' '.join(FORMATS)}){more}")
    return found


def holds_pictures(folder: Path, recursive: bool) -> bool:
    walk = folder.rglob("*") if recursive else folder.iterdir()
    return any(p.suffix.lower() in FORMATS and not p.name.startswith(".") for p in walk)


def _refuse_clashes(jobs: list[Job]) -> None:
    writers: dict[Path, Path] = {}
    for job in jobs:
        for path in job.outputs:
            if path.resolve() == job.source.resolve():
                raise UnrainError(f"{path} would be overwritten by its own result; give another folder or a --suffix")
            other = writers.setdefault(path.resolve(), job.source)
            if other != job.source:
                raise UnrainError(f"{other} and {job.source} would both be written to {path}; run them apart")

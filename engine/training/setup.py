"""From a data folder and a few words to a run that can start, or one line that says why it cannot."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UnrainError
from ..evaluation.pairs import CLEAN_FOLDERS, RAINY_FOLDERS, find_pairs
from ..images import FORMATS
from ..models import find
from .cache import pack, pack_pairs
from .clips import clips_of
from .data import CleanSource, PairSource, Source, StaticSource, TimeLapseSource
from .progress import HeldOut, drawn_held_out, generated_held_out
from .rain import DISTRIBUTIONS
from .recipes import Recipe, recipe_for
from .trainer import Run, read_state, recipe_of

KINDS = ("auto", "clean", "pairs", "timelapse")
_NAMED_CLEAN = re.compile(r"no[-_]?rain.+|.+[-_](norain|no_rain|clean|gt|target)", re.I)


def prepare(
    model: str,
    data: Path,
    out: Path,
    recipe: str = "short",
    kind: str = "auto",
    changes: dict[str, Any] | None = None,
    cache: Path | None = None,
    hold_out: int = 20,
    resume: bool = False,
) -> Run:
    """A run of the named recipe, with `changes` to its fields. A resumed run keeps the recipe it was started with."""
    find(model)
    last = out / "last.pt"
    if last.exists() and not resume:
        raise UnrainError(f"{out} already holds a run; add --resume to go on with it, or name another folder.")
    base = recipe_of(read_state(last)) if resume else recipe_for(model, recipe)
    plan = replace(base, **(changes or {}))
    source, held_out = open_data(data, kind, plan, cache or out.parent / "cache", hold_out)
    if "rain" in (changes or {}) and isinstance(source, PairSource | TimeLapseSource):
        raise UnrainError(f"{data} holds rain of its own; --rain is for clean pictures, which get generated rain.")
    out.mkdir(parents=True, exist_ok=True)
    return Run(model, plan, source, held_out, out)


def open_data(data: Path, kind: str, recipe: Recipe, cache: Path, hold_out: int) -> tuple[Source, HeldOut]:
    """The training patches in a folder, and the held-out ones."""
    if kind not in KINDS:
        raise UnrainError(f"no kind of data is called {kind!r}; choose {', '.join(KINDS)}.")
    if not data.is_dir():
        raise UnrainError(f"{data} is not a folder; --data wants the folder that holds the training pictures.")
    if recipe.rain not in DISTRIBUTIONS:
        raise UnrainError(f"no rain is called {recipe.rain!r}; choose {', '.join(DISTRIBUTIONS)}.")
    views = recipe.objective == "timelapse"
    kind = recognise(data) if kind == "auto" else kind
    if views and kind == "pairs":
        raise UnrainError(f"{data} holds pairs; the timelapse network learns from scenes or from clean pictures.")
    if kind == "timelapse" and not views:
        raise UnrainError(f"{data} holds scenes without clean pictures; only the timelapse network learns from them.")
    if kind == "clean":
        train, held = split(pictures_in(data), hold_out)
        scenes = CleanSource(pack(train, cache), rain=recipe.rain)
        if recipe.frames:
            return clips_of(scenes, recipe.frames), generated_held_out(pack(held, cache))
        return (StaticSource(scenes) if views else scenes), generated_held_out(pack(held, cache))
    if kind == "timelapse":
        folders = _scene_folders(data)
        keep = max(min(hold_out, len(folders) // 5), 1)
        train, held = (folders[:-keep], folders[-keep:]) if len(folders) > 1 else (folders, folders)
        return _scenes(train, cache), drawn_held_out(_scenes(held, cache))
    pairs = {pair.rainy: pair for pair in find_pairs(data)}
    train, held = ([pairs[file] for file in files] for files in split(list(pairs), hold_out))
    return PairSource(pack_pairs(train, cache)), drawn_held_out(PairSource(pack_pairs(held, cache)))


def recognise(data: Path) -> str:
    """Folders named for the two sides, or names for them: pairs. Other pictures: clean. Other folders: scenes."""
    if any((data / name).is_dir() for name in RAINY_FOLDERS + CLEAN_FOLDERS):
        return "pairs"
    files = [file for file in data.iterdir() if file.suffix.lower() in FORMATS]
    if files:
        return "pairs" if any(_NAMED_CLEAN.fullmatch(file.stem) for file in files) else "clean"
    if any(folder.is_dir() for folder in data.iterdir()):
        return "timelapse"
    raise UnrainError(f"{data} holds no pictures ({', '.join(FORMATS)}) and no folders of them.")


def pictures_in(folder: Path) -> list[Path]:
    files = sorted(file for file in folder.iterdir() if file.suffix.lower() in FORMATS)
    if not files:
        raise UnrainError(f"{folder} holds no pictures ({', '.join(FORMATS)}).")
    return files


def scene_of(file: Path) -> str:
    """Tiles (name_t01) and numbered frames (name_0017) of one scene share a name and stay on one side of a split."""
    return re.sub(r"(_t\d+|[_-]\d{1,6})$", "", file.stem)


def split(files: Sequence[Path], wanted: int) -> tuple[list[Path], list[Path]]:
    """(to train on, held out): whole scenes are held out up to `wanted` pictures or a fifth of all, but one at least.

    A single scene is on both sides: there is nothing else to measure on.
    """
    groups: dict[str, list[Path]] = {}
    for file in files:
        groups.setdefault(scene_of(file), []).append(file)
    names = sorted(groups)
    if len(names) == 1:
        return list(files), list(files)
    held: list[Path] = []
    for number in np.random.default_rng(20).permutation(len(names)):
        if len(held) >= wanted:
            break
        if not held or len(held) + len(groups[names[number]]) <= len(files) // 5:
            held += groups[names[number]]
    outside = set(held)
    return [file for file in files if file not in outside], sorted(held)


def _scene_folders(data: Path) -> list[Path]:
    folders = sorted(folder for folder in data.iterdir() if folder.is_dir())
    if not folders:
        raise UnrainError(f"{data} holds no scenes: a folder of pictures for each is wanted.")
    for folder in folders:
        if len(pictures_in(folder)) < 2:
            raise UnrainError(f"{folder} holds one picture; a time-lapse scene needs at least two.")
    return folders


def _scenes(folders: Sequence[Path], cache: Path) -> TimeLapseSource:
    groups = [pictures_in(folder) for folder in folders]
    pictures = pack([file for files in groups for file in files], cache)
    scenes, start = [], 0
    for files in groups:
        scene = tuple(range(start, start + len(files)))
        wrong = next((n for n in scene if pictures.shapes[n] != pictures.shapes[start]), None)
        if wrong is not None:
            raise UnrainError(f"{pictures.names[wrong]} has another size than the rest of its scene.")
        scenes.append(scene)
        start += len(files)
    return TimeLapseSource(pictures, tuple(scenes))

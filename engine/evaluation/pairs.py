"""Finds the (rainy, clean) pairs of a data set in the layouts they are published in."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from ..errors import UnrainError
from ..images import FORMATS, READABLE, read_image

RAINY_FOLDERS = ("input", "rainy", "rain", "rainy_image", "rainy_images", "rain_image", "rain_images", "lq", "data")
CLEAN_FOLDERS = ("target", "clean", "norain", "no_rain", "gt", "ground_truth", "groundtruth", "hq", "label")

# Words around the part of a name that a rainy and a clean picture share: rain-001, 001_in, norain-001x2, 12_GT, 12gt.
_CLEAN_WORD = re.compile(
    r"^(?:no[-_]?rain|clean|gt|target)[-_ ]?(.+)$|^(.+?)[-_ ]?(?:no[-_]?rain|clean|gt|target)$", re.I
)
_RAINY_WORD = re.compile(r"^(?:rainy|rain|input)[-_ ]?(.+)$|^(.+?)[-_ ](?:rainy|rain|input|in)$", re.I)
_SCALE = re.compile(r"x2$", re.I)
_VARIANT = re.compile(r"^(.+)_\d+$")  # 901_14 is the fourteenth rain on 901

Half = Literal["left", "right"]


@dataclass(frozen=True)
class Pair:
    """One rainy picture and its clean one: two files, or the two halves of one file. A photo has no clean one."""

    name: str
    rainy: Path
    clean: Path | None
    rainy_half: Half | None = None

    def read(self) -> tuple[np.ndarray, np.ndarray | None]:
        """Both pictures as uint8 RGB [H, W, 3], of one size."""
        rainy = read_image(self.rainy)
        if self.clean is None:
            return rainy, None
        if self.rainy_half is not None:
            left, right = np.split(rainy, 2, axis=1)
            rainy, clean = (left, right) if self.rainy_half == "left" else (right, left)
        else:
            clean = read_image(self.clean)
        if rainy.shape != clean.shape:
            raise _different_sizes(self, rainy.shape[1::-1], clean.shape[1::-1])
        return rainy, clean


def find_pairs(where: str | Path, clean: str | Path | None = None, rainy_half: Half = "right") -> list[Pair]:
    """The pairs under `where`, in natural order of their names. Recognised, in this order:

    * `where` and `clean`, two folders;
    * `where`, a text file with a rainy and a clean path in each line (SPA-Data), relative to the file;
    * a folder with a rainy and a clean folder inside: input/target, rain/norain, rainy_image/ground_truth and the like
      (Rain100, Rain12, Rain1400 whose 901_1 ... 901_14 belong to one 901, SPA-Data's test set);
    * a folder with both in it: rain-001.png and norain-001.png, 001_in.png and 001_GT.png;
    * a folder of pictures that hold both side by side (Rain800): both orders are around, so say which half is the rainy
      one.

    Names are matched without their suffix. UnrainError names the first picture without its other half, the first pair
    that differs in size, or the folder that holds none.
    """
    where = Path(where)
    if not where.exists():
        raise UnrainError(f"no data set at {where}")
    if clean is not None:
        pairs = _match(_pictures(where), _pictures(Path(clean)))
    elif where.is_file():
        pairs = _from_list(where)
    else:
        pairs = _from_folder(where, rainy_half)
    for pair in pairs:
        _check_sizes(pair)
    return pairs


def find_photos(folder: str | Path) -> list[Pair]:
    """The pictures of a folder, of whose scenes no clean ones exist, in natural order of their names."""
    return [Pair(path.name, path, None) for path in _pictures(Path(folder))]


def holds_photos(folder: str | Path) -> bool:
    """Whether it is a folder of pictures in none of the layouts that have clean ones."""
    folder = Path(folder)
    if not folder.is_dir():
        return False
    inside = list(folder.iterdir())
    if any(path.is_dir() and path.name.lower() in (*RAINY_FOLDERS, *CLEAN_FOLDERS) for path in inside):
        return False
    files = [path for path in inside if path.suffix.lower() in FORMATS and not path.name.startswith(".")]
    if not files or any(_CLEAN_WORD.match(path.stem) for path in files):
        return False
    return not _is_side_by_side(min(files, key=lambda path: _natural(path.name)))


def _from_folder(folder: Path, rainy_half: Half) -> list[Pair]:
    inside = {path.name.lower(): path for path in sorted(folder.iterdir()) if path.is_dir()}
    rainy = next((inside[name] for name in RAINY_FOLDERS if name in inside), None)
    clean = next((inside[name] for name in CLEAN_FOLDERS if name in inside), None)
    if rainy and clean:
        return _match(_pictures(rainy), _pictures(clean))
    for found, missing, names in ((rainy, "clean", CLEAN_FOLDERS), (clean, "rainy", RAINY_FOLDERS)):
        if found:
            raise UnrainError(f"{folder} has {found.name}/ but no {missing} folder beside it ({', '.join(names)})")
    files = _pictures(folder)
    clean_files = [path for path in files if _CLEAN_WORD.match(path.stem)]
    rainy_files = [path for path in files if not _CLEAN_WORD.match(path.stem)]
    if clean_files and rainy_files:
        return _match(rainy_files, clean_files)
    if _is_side_by_side(files[0]):
        return [Pair(path.stem, path, path, rainy_half) for path in files]
    raise UnrainError(
        f"{folder}: {files[0].name} has no clean picture; expected two folders such as input/ and target/, names "
        "such as rain-001 and norain-001, or pictures with both halves side by side"
    )


def _from_list(file: Path) -> list[Pair]:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (UnicodeDecodeError, OSError) as error:
        raise UnrainError(f"{file} is neither a folder nor a text list of pairs") from error
    pairs = []
    for number, line in enumerate(lines, 1):
        words = line.split()
        if not words:
            continue
        if len(words) != 2:
            raise UnrainError(f"{file}, line {number}: expected a rainy and a clean path, found {len(words)} words")
        # SPA-Data's list starts its paths with a slash although they are relative.
        rainy, clean = (file.parent / word.lstrip("/") for word in words)
        for path in (rainy, clean):
            if not path.is_file():
                raise UnrainError(f"{file}, line {number}: no file {path}")
        pairs.append(Pair(rainy.stem, rainy, clean))
    if not pairs:
        raise UnrainError(f"{file} lists no pairs")
    return pairs


def _match(rainy: Sequence[Path], clean: Sequence[Path]) -> list[Pair]:
    by_stem = {path.stem.lower(): path for path in clean}
    by_key = {_key(path.stem): path for path in clean}
    pairs, used = [], set()
    for path in rainy:
        key = _key(path.stem)
        variant = _VARIANT.match(key)
        partner = by_stem.get(path.stem.lower()) or by_key.get(key) or (by_key.get(variant[1]) if variant else None)
        if partner is None:
            raise UnrainError(f"{path} has no clean picture in {clean[0].parent}")
        used.add(partner)
        pairs.append(Pair(path.stem, path, partner))
    for path in clean:
        if path not in used:
            raise UnrainError(f"{path} has no rainy picture in {rainy[0].parent}")
    return pairs


def _key(stem: str) -> str:
    """The part of a name that both pictures share."""
    stem = _SCALE.sub("", stem)
    for word in (_CLEAN_WORD, _RAINY_WORD):
        found = word.match(stem)
        if found:
            return (found[1] or found[2]).lower()
    return stem.lower()


def _pictures(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise UnrainError(f"{folder} is not a folder")
    files = [path for path in folder.iterdir() if path.suffix.lower() in FORMATS and not path.name.startswith(".")]
    if not files:
        raise UnrainError(f"{folder} holds no pictures ({' '.join(FORMATS)})")
    return sorted(files, key=lambda path: _natural(path.name))


def _natural(name: str) -> list[tuple[int, int | str]]:
    """Sorts 2.png before 10.png."""
    return [(0, int(part)) if part.isdigit() else (1, part.lower()) for part in re.split(r"(\d+)", name) if part]


def _size(path: Path) -> tuple[int, int]:
    try:
        with Image.open(path, formats=READABLE) as image:
            return image.size
    except (OSError, Image.DecompressionBombError, SyntaxError, ValueError) as error:
        raise UnrainError(f"{path} cannot be read as a picture: {error}") from error


def _check_sizes(pair: Pair) -> None:
    """Reads the headers only."""
    rainy = _size(pair.rainy)
    if pair.rainy_half is not None:
        if rainy[0] % 2:
            raise UnrainError(f"{pair.rainy} is {rainy[0]} pixels wide: two pictures side by side need an even width")
    elif sorted(rainy) != sorted(clean := _size(pair.clean)):  # a header does not tell which way up; `read` does
        raise _different_sizes(pair, rainy, clean)


def _different_sizes(pair: Pair, rainy: Sequence[int], clean: Sequence[int]) -> UnrainError:
    return UnrainError(
        f"{pair.rainy} is {rainy[0]}x{rainy[1]}, but its clean picture {pair.clean} is {clean[0]}x{clean[1]}"
    )


def _is_side_by_side(path: Path) -> bool:
    """Whether the two halves of a picture show the same scene."""
    width, height = _size(path)
    if width % 2 or width < height:
        return False
    grey = np.asarray(Image.fromarray(read_image(path)).convert("L").resize((64, 32), Image.Resampling.BOX), np.float64)
    left, right = grey[:, :32] - grey[:, :32].mean(), grey[:, 32:] - grey[:, 32:].mean()
    return float((left * right).sum()) > 0.7 * float(np.sqrt((left**2).sum() * (right**2).sum())) > 0

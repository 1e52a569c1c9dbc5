"""Decoded pictures in one file of bytes that training maps into memory, so that no JPEG is opened in the loop."""

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import UnrainError
from ..images import read_image

if TYPE_CHECKING:
    from ..evaluation.pairs import Pair

SMALLEST = 32


class Pictures:
    """uint8 pictures of any sizes and C channels; `pictures[i]` is a read-only [H, W, C] view."""

    def __init__(self, names: Sequence[str], shapes: Sequence[Sequence[int]], pixels: np.ndarray) -> None:
        self.names, self.shapes = list(names), [tuple(shape) for shape in shapes]
        self._pixels = pixels
        self._starts = np.concatenate([[0], np.cumsum([np.prod(shape) for shape in self.shapes])]).astype(np.int64)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> np.ndarray:
        return self._pixels[self._starts[index] : self._starts[index + 1]].reshape(self.shapes[index])


def pack(files: Sequence[Path], folder: Path) -> Pictures:
    """The RGB pictures of these files, decoded once into `folder` and found there again until a file changes."""
    return _packed(folder, files, "pictures", [str(file) for file in files], lambda n: read_image(files[n]))


def pack_pairs(pairs: "Sequence[Pair]", folder: Path) -> Pictures:
    """Pairs as pictures of six channels: the rainy RGB, then the clean one."""
    files = [file for pair in pairs for file in (pair.rainy, pair.clean)]
    halves = "-".join(sorted({str(pair.rainy_half) for pair in pairs}))
    return _packed(folder, files, f"pairs {halves}", [str(pair.rainy) for pair in pairs], lambda n: _both(pairs[n]))


def _both(pair: "Pair") -> np.ndarray:
    return np.concatenate(pair.read(), axis=2)


def _packed(
    folder: Path, files: Sequence[Path], kind: str, names: Sequence[str], read: Callable[[int], np.ndarray]
) -> Pictures:
    facts = [kind, *((str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in files)]
    key = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:20]
    index, pixels = folder / f"{key}.json", folder / f"{key}.bytes"
    if not index.exists():
        _write(index, pixels, names, read)
    return Pictures(names, json.loads(index.read_text()), np.memmap(pixels, np.uint8, "r"))


def _write(index: Path, pixels: Path, names: Sequence[str], read: Callable[[int], np.ndarray]) -> None:
    index.parent.mkdir(parents=True, exist_ok=True)
    shapes = []
    draft = pixels.with_suffix(f".{os.getpid()}.part")
    try:
        with draft.open("wb") as out:
            for number, name in enumerate(names):
                picture = read(number)
                height, width = picture.shape[:2]
                if min(height, width) < SMALLEST:
                    raise UnrainError(
                        f"{name} is {width} x {height} pixels, training needs {SMALLEST} x {SMALLEST} at least: "
                        "take it out of the folder."
                    )
                shapes.append(picture.shape)
                out.write(np.ascontiguousarray(picture).data)
        draft.replace(pixels)
        # The index comes last: where it is, the pixels are complete.
        draft.write_text(json.dumps(shapes))
        draft.replace(index)
    finally:
        draft.unlink(missing_ok=True)

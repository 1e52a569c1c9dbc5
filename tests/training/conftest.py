"""Small folders of pictures in the shapes that training takes."""

import numpy as np
import pytest
from PIL import Image


def picture(seed, height=48, width=56):
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (6, 7, 3), dtype=np.uint8))
    return np.asarray(small.resize((width, height), Image.Resampling.BICUBIC))


def write(path, seed, **size):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture(seed, **size)).save(path)


@pytest.fixture
def clean_folder(tmp_path):
    for number in range(6):
        write(tmp_path / "clean" / f"scene{'abcdef'[number]}.png", number)
    return tmp_path / "clean"


@pytest.fixture
def pairs_folder(tmp_path):
    for number in range(6):
        for side in ("input", "target"):
            write(tmp_path / "pairs" / side / f"{'abcdef'[number]}.png", number + (side == "input"))
    return tmp_path / "pairs"


@pytest.fixture
def scenes_folder(tmp_path):
    for scene in range(3):
        for moment in range(3):
            write(tmp_path / "scenes" / f"place{scene}" / f"{moment}.png", 10 * scene + moment)
    return tmp_path / "scenes"

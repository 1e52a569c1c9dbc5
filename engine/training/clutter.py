"""Dry things that look like rain, drawn on clean pictures so that they are kept: text, wires, fences, grass, snow."""

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .patterns import PATTERNS

_WORDS = ("STOP", "EXIT 12", "km/h", "Hotel", "ilIl|/!", "A 113", "Nr. 7", "taxi", "rain or shine", "0123456789")


def add_clutter(picture: np.ndarray, rng: np.random.Generator, kind: str | None = None) -> np.ndarray:
    """A copy of a uint8 RGB picture with one kind of clutter on it, drawn at random from KINDS if it is not given."""
    draw = STREET[kind or str(rng.choice(list(KINDS)))]
    return draw(picture, rng)


def _ink(rng: np.random.Generator) -> tuple[int, int, int]:
    """Mostly black, white or grey, as signs and wires are, sometimes a colour."""
    if rng.random() < 0.7:
        level = int(rng.choice([0, 20, 60, 160, 230, 255]))
        return level, level, level
    return tuple(int(v) for v in rng.integers(0, 256, 3))


def text(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    image = Image.fromarray(picture)
    draw = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(1, 5))):
        font = ImageFont.load_default(int(rng.integers(8, 30)))
        place = (int(rng.integers(-10, image.width)), int(rng.integers(-5, image.height)))
        draw.text(place, str(rng.choice(_WORDS)), fill=_ink(rng), font=font)
    return np.array(image)


def wires(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Sagging lines from edge to edge, thinner than a pixel or a few wide: drawn four times larger and reduced."""
    height, width = picture.shape[:2]
    mask = Image.new("L", (width * 4, height * 4))
    draw = ImageDraw.Draw(mask)
    reach = np.linspace(-0.1, 1.1, 33)
    for _ in range(int(rng.integers(1, 5))):
        start, end = rng.uniform(-0.2, 1.2, 2)
        curve = start + (end - start) * reach + rng.uniform(0, 0.15) * 4 * reach * (1 - reach)
        across, along = (
            (curve * 4 * height, reach * 4 * width) if rng.random() < 0.6 else (reach * 4 * height, curve * 4 * width)
        )
        draw.line(list(zip(along.tolist(), across.tolist(), strict=True)), fill=255, width=int(rng.integers(2, 10)))
    return _paint(picture, mask.resize((width, height), Image.Resampling.BOX), rng)


def fence(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Evenly spaced bars, upright or leaning, sometimes crossed into a mesh."""
    height, width = picture.shape[:2]
    mask = Image.new("L", (width * 4, height * 4))
    draw = ImageDraw.Draw(mask)
    pitch, bar = int(rng.integers(20, 90)), int(rng.integers(3, 14))
    lean = float(rng.uniform(-0.1, 0.1)) if rng.random() < 0.6 else float(rng.uniform(-1, 1))
    shift = int(abs(lean) * height * 4) + pitch
    for sign in (1, -1) if rng.random() < 0.3 else (1,):
        for x in range(-shift, width * 4 + shift, pitch):
            draw.line([(x, 0), (x + sign * lean * height * 4, height * 4)], fill=255, width=bar)
    return _paint(picture, mask.resize((width, height), Image.Resampling.BOX), rng)


def grass(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Blades, hair, straw or twigs: many thin bent strokes in the picture's own colours, lighter or darker."""
    height, width = picture.shape[:2]
    image = Image.fromarray(picture).resize((width * 3, height * 3), Image.Resampling.BILINEAR)
    draw = ImageDraw.Draw(image)
    colours = picture[rng.integers(0, height, 4), rng.integers(0, width, 4)] * rng.uniform(0.3, 2.0, (4, 1))
    lean, length = rng.normal(0, 0.4), float(rng.uniform(8, 40)) * 3
    along = np.linspace(0, 1, 7)
    for _ in range(int(rng.integers(10, 60) * height * width / 4000)):
        tip = length * rng.uniform(0.5, 1.5)
        x = rng.uniform(0, width * 3) + tip * ((lean + rng.normal(0, 0.25)) * along + rng.normal(0, 0.4) * along**2)
        y = rng.uniform(0, height * 3 + tip) - tip * along
        colour = colours[int(rng.integers(4))] * rng.uniform(0.7, 1.3)
        ink = tuple(int(v) for v in colour.clip(0, 255))
        draw.line(list(zip(x.tolist(), y.tolist(), strict=True)), fill=ink, width=int(rng.integers(1, 8)))
    return np.array(image.resize((width, height), Image.Resampling.BOX))


def snow(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Round bright flecks, sharp and soft, as of snow, gravel or glitter."""
    height, width = picture.shape[:2]
    mask = np.zeros((height, width), np.float32)
    count = int(rng.integers(5, 80) * height * width / 5000)
    rows, columns = rng.integers(0, height, count), rng.integers(0, width, count)
    mask[rows, columns] = rng.uniform(80, 255, count)
    layer = Image.fromarray(mask.astype(np.uint8))
    grown = layer.resize((width * 2, height * 2), Image.Resampling.BICUBIC).resize(
        (width, height), Image.Resampling.BOX
    )
    cover = np.asarray(layer if rng.random() < 0.3 else grown, dtype=np.float32)[..., None] / 255
    cover = np.clip(cover * float(rng.uniform(1.0, 2.0)), 0, 1)
    return (picture * (1 - cover) + 245 * cover + 0.5).astype(np.uint8)


def _paint(picture: np.ndarray, mask: Image.Image, rng: np.random.Generator) -> np.ndarray:
    ink = np.array(_ink(rng), np.float32)
    cover = np.asarray(mask, dtype=np.float32)[..., None] / 255
    return (picture * (1 - cover) + ink * cover + 0.5).astype(np.uint8)


KINDS = {"text": text, "wires": wires, "fence": fence, "grass": grass, "snow": snow}
# What a street has of it besides.
STREET = {**KINDS, **PATTERNS}
# What is most easily taken for rain, so drawn twice as often.
LIKE_RAIN = ("fence", "grass", "snow", "louvres")

"""Regular things that stand in a street and look like rain: crossings, lane markings, rails, lattices, louvres, cloth.

All are one drawing: bands of a phase that runs over the picture in any direction and scale, straight, in perspective or
wavy, blended over what is there, everywhere or in a part of it.
"""

import numpy as np


def stripes(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Even bands at any angle, from two pixels apart to half the picture."""
    cover = _bands(_phase(picture, rng, _pitch(rng)), float(rng.uniform(0.15, 0.85)), rng)
    return _over(picture, cover * _part(picture, rng), rng)


def lattice(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Two sets of narrow bands across each other."""
    pitch, angle = float(np.exp(rng.uniform(np.log(5), np.log(40)))), float(rng.uniform(0, np.pi))
    duty, across = float(rng.uniform(0.08, 0.4)), float(rng.choice([np.pi / 2, rng.uniform(0.6, 2.5)]))
    one, other = (_bands(_phase(picture, rng, pitch, turn), duty, rng) for turn in (angle, angle + across))
    return _over(picture, np.maximum(one, other) * _part(picture, rng), rng)


def crossing(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """White bars on the ground, narrower towards the horizon: a zebra crossing, or a gap between two rows of dashes."""
    rows, columns = _grid(picture)
    horizon = -float(rng.uniform(0.05, 1.5)) * len(rows)
    depth = (len(rows) - horizon) / (rows - horizon)
    across = (columns - float(rng.uniform(-0.5, 1.5)) * columns.size) * (rows - horizon) ** -1
    along = np.log(depth)
    phase = across * float(rng.uniform(4, 30)) if rng.random() < 0.6 else along * float(rng.uniform(4, 30))
    cover = _bands(phase + 0 * columns, float(rng.uniform(0.3, 0.7)), rng)
    top, bottom = np.sort(rng.uniform(0, 1.2, 2)) * len(rows)
    ground = ((rows >= top) & (rows <= max(bottom, top + 0.3 * len(rows)))).astype(np.float32)
    level = float(rng.uniform(150, 255))
    return _blend(picture, cover * ground * float(rng.uniform(0.5, 1)), (level, level, level * rng.uniform(0.8, 1)))


def lanes(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Lines that meet at a vanishing point, some of them dashed."""
    rows, columns = _grid(picture)
    side = len(rows)
    horizon, centre = float(rng.uniform(-1.0, 0.5)) * side, float(rng.uniform(-0.5, 1.5)) * side
    below = np.maximum(rows - horizon, 1e-3)
    cover = np.zeros(picture.shape[:2], np.float32)
    for _ in range(int(rng.integers(1, 6))):
        slope, width = float(rng.normal(0, 1.0)), float(rng.uniform(0.01, 0.06))
        line = _inside(columns - centre - slope * below, width * below + 0.5)
        if rng.random() < 0.5:
            line = line * _bands(np.log(below) * float(rng.uniform(2, 8)) + 0 * columns, 0.5, rng)
        cover = np.maximum(cover, line * (rows > horizon))
    level = float(rng.uniform(150, 255))
    return _blend(picture, cover * float(rng.uniform(0.4, 1)), (level, level, level * rng.uniform(0.4, 1)))


def rails(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A few parallel bars from edge to edge, with posts, lit along one side."""
    rows, columns = _grid(picture)
    angle = float(rng.normal(0, 0.4)) + (np.pi / 2 if rng.random() < 0.3 else 0)
    row, column = rng.uniform(0, len(rows)), rng.uniform(0, columns.size)
    across = np.cos(angle) * (rows - row) - np.sin(angle) * (columns - column)
    along = np.sin(angle) * (rows - row) + np.cos(angle) * (columns - column)
    gap, width = float(rng.uniform(5, 25)), float(rng.uniform(0.6, 5))
    for number in range(int(rng.integers(1, 4))):
        place = across - number * (gap + width)
        picture = _over(picture, _inside(place, width), rng)
        picture = _blend(picture, _inside(place + width / 2, 0.4 + width / 8) * 0.6, (250.0,) * 3)
    posts = _inside((along % float(rng.uniform(15, 90))) - 5, float(rng.uniform(0.6, 3))) * (across > 0)
    return _over(picture, posts, rng)


def louvres(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Slats that are bright on one edge and fade to the other: blinds, shutters, corrugated sheet, steps."""
    phase = _phase(picture, rng, _pitch(rng)) % 1
    slat = (phase if rng.random() < 0.5 else np.abs(2 * phase - 1)) ** float(rng.uniform(0.5, 3))
    return _over(picture, slat.astype(np.float32) * _part(picture, rng), rng)


def cloth(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Bands that follow folds, of two or three pitches at once."""
    rows, columns = _grid(picture)
    fold = sum(
        float(rng.uniform(0.1, 1.5)) * np.sin(rows * rng.uniform(0, 0.15) + columns * rng.uniform(0, 0.15) + n)
        for n in range(3)
    )
    base = _phase(picture, rng, _pitch(rng)) + fold * float(rng.uniform(0.1, 0.8))
    cover = np.zeros(picture.shape[:2], np.float32)
    for _ in range(int(rng.integers(1, 4))):
        bands = _bands(base * float(rng.uniform(0.4, 2)), float(rng.uniform(0.1, 0.6)), rng)
        cover = np.maximum(cover, bands * float(rng.uniform(0.3, 1)))
    return _over(picture, cover * _part(picture, rng), rng)


def _grid(picture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    height, width = picture.shape[:2]
    return np.arange(height, dtype=np.float32)[:, None] + 0.5, np.arange(width, dtype=np.float32)[None] + 0.5


def _pitch(rng: np.random.Generator) -> float:
    return float(np.exp(rng.uniform(np.log(2.2), np.log(48))))


def _phase(picture: np.ndarray, rng: np.random.Generator, pitch: float, angle: float | None = None) -> np.ndarray:
    """Periods from a corner, of `pitch` pixels each; half of the time they shrink across the picture."""
    rows, columns = _grid(picture)
    angle = float(rng.uniform(0, np.pi)) if angle is None else angle
    run = np.cos(angle) * columns + np.sin(angle) * rows
    if rng.random() < 0.5:
        tilt = rng.uniform(-0.6, 0.6, 2) / len(rows)
        run = run / (1.3 + tilt[0] * rows + tilt[1] * columns)
    return (run / pitch + float(rng.random())).astype(np.float32)


def _bands(phase: np.ndarray, duty: float, rng: np.random.Generator) -> np.ndarray:
    """1 inside the first `duty` of each period, with edges from one pixel's width to soft."""
    slope = np.maximum(np.hypot(*np.gradient(phase)), 1e-4)
    edge = slope * float(rng.choice([1.0, 1.0, rng.uniform(1, 4)]))
    distance = duty / 2 - np.abs((phase % 1) - 0.5)
    # Bands finer than the pixels that show them are seen as their mean.
    sharp = np.clip(distance / edge + 0.5, 0, 1)
    visible = np.clip(2 - 3 * slope, 0, 1)
    return (sharp * visible + duty * (1 - visible)).astype(np.float32)


def _inside(distance: np.ndarray, width: np.ndarray | float) -> np.ndarray:
    """1 within half of `width` of a line, with edges one pixel wide."""
    return np.clip(width / 2 - np.abs(distance) + 0.5, 0, 1).astype(np.float32)


def _part(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Where a pattern is: half of the time everywhere, else on one side of a line or in a disc."""
    if rng.random() < 0.5:
        return np.ones(picture.shape[:2], np.float32)
    rows, columns = _grid(picture)
    side = len(rows)
    row, column = rng.uniform(0.2, 0.8, 2) * side
    if rng.random() < 0.5:
        angle = float(rng.uniform(0, 2 * np.pi))
        return np.clip(np.cos(angle) * (rows - row) + np.sin(angle) * (columns - column), 0, 1).astype(np.float32)
    radius = float(rng.uniform(0.2, 0.6)) * side
    return np.clip(radius - np.hypot(rows - row, columns - column), 0, 1).astype(np.float32)


def _over(picture: np.ndarray, cover: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Laid over in white, black, grey or a colour, more or less opaque."""
    if rng.random() < 0.7:
        ink = (float(rng.choice([0, 20, 60, 110, 160, 200, 230, 255])),) * 3
    else:
        ink = tuple(float(v) for v in rng.uniform(0, 255, 3))
    return _blend(picture, cover * float(rng.uniform(0.15, 1)), ink)


def _blend(picture: np.ndarray, cover: np.ndarray, ink: tuple[float, ...]) -> np.ndarray:
    cover = cover[..., None]
    return (picture * (1 - cover) + np.array(ink, np.float32) * cover + 0.5).clip(0, 255).astype(np.uint8)


PATTERNS = {
    "stripes": stripes,
    "lattice": lattice,
    "crossing": crossing,
    "lanes": lanes,
    "rails": rails,
    "louvres": louvres,
    "cloth": cloth,
}

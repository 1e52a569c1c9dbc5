"""Small charts as SVG, the same bytes for the same numbers, or as PNG by pillow."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Protocol
from xml.sax.saxutils import escape

from ..errors import UnrainError
from ..files import write

WIDTH, HEIGHT = 760, 430
LEFT, RIGHT, TOP, BOTTOM = 74, 210, 40, 56
NOTE_WIDTH, NOTE_HEIGHT = 5.6, 12.0  # of a character, and of a line
COLOURS = ("#1f6feb", "#d1242f", "#1a7f37", "#9a6700", "#8250df", "#57606a", "#0a7ea4", "#bf3989")

Point = tuple[float, float]


@dataclass(frozen=True)
class Series:
    name: str
    points: Sequence[Point]
    line: bool = True
    dots: bool = True
    dashed: bool = False


@dataclass(frozen=True)
class Chart:
    title: str
    x_title: str
    y_title: str
    series: Sequence[Series]
    x_log: bool = False
    y_log: bool = False
    notes: Sequence[tuple[float, float, str]] = field(default_factory=tuple)  # x, y, text


class Canvas(Protocol):
    def line(self, points: Sequence[Point], colour: str, width: float, dashed: bool = False) -> None: ...
    def dot(self, x: float, y: float, colour: str) -> None: ...
    def text(
        self, x: float, y: float, text: str, anchor: str = "start", size: int = 12, upright: bool = True
    ) -> None: ...


def save(chart: Chart, path: Path) -> None:
    """Written as what the name ends in."""
    suffix = path.suffix.lower()
    if suffix == ".svg":
        write(path, svg(chart))
    elif suffix == ".png":
        canvas = Raster()
        draw(chart, canvas)
        canvas.image.resize((WIDTH, HEIGHT), 1).save(path)
    else:
        raise UnrainError(f"{path} must end in .svg or .png")


def svg(chart: Chart) -> str:
    canvas = Vector()
    draw(chart, canvas)
    return canvas.document()


def draw(chart: Chart, canvas: Canvas) -> None:
    points = [point for each in chart.series for point in each.points]
    if not points:
        raise UnrainError(f"there is nothing to draw in {chart.title!r}")
    x_ticks = ticks([x for x, _ in points], chart.x_log)
    y_ticks = ticks([y for _, y in points], chart.y_log)
    to_x = scale(x_ticks, chart.x_log, LEFT, WIDTH - RIGHT)
    to_y = scale(y_ticks, chart.y_log, HEIGHT - BOTTOM, TOP)
    canvas.text(LEFT, 22, chart.title, size=15)
    for tick in x_ticks:
        canvas.line([(to_x(tick), TOP), (to_x(tick), HEIGHT - BOTTOM)], "#d8dee4", 1)
        canvas.text(to_x(tick), HEIGHT - BOTTOM + 18, label(tick), "middle")
    for tick in y_ticks:
        canvas.line([(LEFT, to_y(tick)), (WIDTH - RIGHT, to_y(tick))], "#d8dee4", 1)
        canvas.text(LEFT - 8, to_y(tick) + 4, label(tick), "end")
    canvas.text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 14, chart.x_title, "middle")
    canvas.text(18, (TOP + HEIGHT - BOTTOM) / 2, chart.y_title, "middle", upright=False)
    for number, each in enumerate(chart.series):
        colour = COLOURS[number % len(COLOURS)]
        placed = [(to_x(x), to_y(y)) for x, y in each.points]
        if each.line:
            canvas.line(placed, colour, 2, each.dashed)
        if each.dots:
            for x, y in placed:
                canvas.dot(x, y, colour)
        height = TOP + 10 + 18 * number
        if each.line:
            canvas.line([(WIDTH - RIGHT + 12, height), (WIDTH - RIGHT + 32, height)], colour, 3, each.dashed)
        else:
            canvas.dot(WIDTH - RIGHT + 22, height, colour)
        canvas.text(WIDTH - RIGHT + 38, height + 4, each.name, size=11)
    dots = [(to_x(x), to_y(y)) for each in chart.series if each.dots for x, y in each.points]
    write_notes(canvas, [(to_x(x), to_y(y), text) for x, y, text in chart.notes], dots)


def write_notes(canvas: Canvas, notes: Sequence[tuple[float, float, str]], dots: Sequence[Point]) -> None:
    """Each beside its dot, or as near as the others leave room, with a line to the dot where it is farther off."""
    taken = [(x - 5, y - 5, x + 5, y + 5) for x, y in dots]
    for x, y, text in sorted(notes, key=lambda note: (note[1], note[0])):
        wide = NOTE_WIDTH * len(text)
        places = [
            (left, y + NOTE_HEIGHT * step)
            for step in sorted(range(-14, 15), key=lambda step: (abs(step), step))
            for left in (x + 9, x - 9 - wide, x + 26, x - 26 - wide)
            if left > LEFT and left + wide < WIDTH - RIGHT and TOP < y + NOTE_HEIGHT * step < HEIGHT - BOTTOM
        ]
        boxes = [(left, middle - NOTE_HEIGHT / 2, left + wide, middle + NOTE_HEIGHT / 2) for left, middle in places]
        free = (box for box in boxes if not any(overlap(box, other) for other in taken))
        left, top, right, bottom = box = next(free, (x + 9, y - NOTE_HEIGHT / 2, x + 9 + wide, y + NOTE_HEIGHT / 2))
        taken.append(box)
        middle = (top + bottom) / 2
        if abs(middle - y) > NOTE_HEIGHT or min(abs(left - x), abs(right - x)) > 10:
            canvas.line([(x, y), (left - 2 if left > x else right + 2, middle)], "#8c959f", 0.7)
        canvas.text(left, middle + 3.5, text, size=10)


def overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def ticks(values: Sequence[float], logarithmic: bool) -> list[float]:
    """Round numbers from at or below the least to at or above the greatest."""
    least, most = min(values), max(values)
    if logarithmic:
        first, last = math.floor(math.log10(least) + 1e-9), math.ceil(math.log10(most) - 1e-9)
        if most / least <= 100:
            steps = [part * 10.0**power for power in range(first, last + 1) for part in (1, 2, 5)]
            low = max(step for step in steps if step <= least * (1 + 1e-9))
            return [step for step in steps if low <= step < most] + [min(step for step in steps if step >= most)]
        return [10.0**power for power in range(first, max(last, first + 1) + 1)]
    step = 10.0 ** math.floor(math.log10(most or 1.0))
    step = next(step * part for part in (0.1, 0.2, 0.25, 0.5, 1.0, 2.0) if most / (step * part) <= 8)
    return [step * number for number in range(math.ceil(most / step - 1e-9) + 1)]


def scale(ends: Sequence[float], logarithmic: bool, start: float, stop: float) -> Callable[[float], float]:
    change = math.log10 if logarithmic else float
    low, high = change(ends[0]), change(ends[-1])
    return lambda value: start + (change(value) - low) / (high - low) * (stop - start)


def label(value: float) -> str:
    for unit, name in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e4, "k")):
        if value >= unit:
            return f"{value / (1e3 if name == 'k' else unit):.3g}{name}"
    return f"{value:.0f}" if value >= 1000 else f"{value:.3g}"


class Vector:
    def __init__(self) -> None:
        self.parts: list[str] = []

    def line(self, points: Sequence[Point], colour: str, width: float, dashed: bool = False) -> None:
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        dashes = ' stroke-dasharray="6 4"' if dashed else ""
        self.parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="{width}"{dashes}/>')

    def dot(self, x: float, y: float, colour: str) -> None:
        self.parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"/>')

    def text(self, x: float, y: float, text: str, anchor: str = "start", size: int = 12, upright: bool = True) -> None:
        turn = "" if upright else f' transform="rotate(-90 {x:.1f} {y:.1f})"'
        self.parts.append(
            f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}"{turn}>{escape(text)}</text>'
        )

    def document(self) -> str:
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}" '
            'font-family="Helvetica, Arial, sans-serif" fill="#1f2328">'
        )
        return "\n".join([head, f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>', *self.parts, "</svg>", ""])


class Raster:
    """Drawn at twice the size, for the edges."""

    def __init__(self) -> None:
        from PIL import Image, ImageDraw

        self.image = Image.new("RGB", (2 * WIDTH, 2 * HEIGHT), "#ffffff")
        self.pen = ImageDraw.Draw(self.image)

    def line(self, points: Sequence[Point], colour: str, width: float, dashed: bool = False) -> None:
        for (x0, y0), (x1, y1) in pairwise(points):
            pieces = max(1, int(math.hypot(x1 - x0, y1 - y0) / 10)) if dashed else 1
            for piece in range(pieces):
                begin, end = piece / pieces, (piece + (0.6 if dashed else 1)) / pieces
                ends = [(2 * (x0 + (x1 - x0) * t), 2 * (y0 + (y1 - y0) * t)) for t in (begin, end)]
                self.pen.line(ends, fill=colour, width=round(2 * width))

    def dot(self, x: float, y: float, colour: str) -> None:
        self.pen.ellipse([2 * x - 7, 2 * y - 7, 2 * x + 7, 2 * y + 7], fill=colour)

    def text(self, x: float, y: float, text: str, anchor: str = "start", size: int = 12, upright: bool = True) -> None:
        from PIL import Image, ImageDraw, ImageFont

        font = ImageFont.load_default(2 * size)
        place = {"start": "ls", "middle": "ms", "end": "rs"}[anchor]
        if upright:
            self.pen.text((2 * x, 2 * y), text, fill="#1f2328", font=font, anchor=place)
            return
        width = round(self.pen.textlength(text, font=font))
        strip = Image.new("RGB", (width, 3 * size), "#ffffff")
        ImageDraw.Draw(strip).text((0, 2 * size), text, fill="#1f2328", font=font, anchor="ls")
        turned = strip.rotate(90, expand=True)
        self.image.paste(turned, (round(2 * x) - 2 * size, round(2 * y) - width // 2))

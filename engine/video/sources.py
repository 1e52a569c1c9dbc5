"""What the words on a command line name: a clip, a camera, a network stream, raw frames, or none of these."""

from __future__ import annotations

import re
from fractions import Fraction
from pathlib import Path

from ..errors import UnrainError

CLIPS = (
    ".mp4",
    ".mov",
    ".m4v",
    ".mkv",
    ".webm",
    ".avi",
    ".mpg",
    ".mpeg",
    ".ts",
    ".mts",
    ".m2ts",
    ".3gp",
    ".flv",
    ".wmv",
)
PIPE = "-"
SCHEMES = ("rtsp", "rtsps", "rtmp", "rtmps", "http", "https", "udp", "tcp", "rtp", "srt")
_CAMERA = re.compile(r"camera:(\d+)|(/dev/video\d+)")


def check_scheme(name: str) -> None:
    scheme = name.partition("://")[0].lower()
    if scheme not in SCHEMES:
        raise UnrainError(f"{name} cannot be read: {scheme}:// is none of {' '.join(SCHEMES)}")


def is_clip(name: str | Path) -> bool:
    """A file, by its suffix."""
    return "://" not in str(name) and Path(name).suffix.lower() in CLIPS


def is_live(name: str) -> bool:
    """A camera or a network stream: its frames do not wait."""
    return camera(name) is not None or "://" in name


def camera(name: str) -> str | None:
    """The device of "camera:0" or "/dev/video0"; None for anything else."""
    found = _CAMERA.fullmatch(name)
    return None if found is None else found[2] or f"/dev/video{found[1]}"


def parse_size(text: str) -> tuple[int, int]:
    """Of "1280x720": (720, 1280)."""
    found = re.fullmatch(r"(\d+)x(\d+)", text.strip().lower())
    if found is None or min(int(found[1]), int(found[2])) < 8:
        raise UnrainError(f"--size must be WIDTHxHEIGHT, like 1280x720 and at least 8x8; got {text!r}")
    return int(found[2]), int(found[1])


def parse_rate(text: str) -> Fraction:
    """Frames per second of "30", "29.97" or "30000/1001"."""
    try:
        rate = Fraction(text).limit_denominator(100_000)
    except (ValueError, ZeroDivisionError):
        rate = Fraction(0)
    if not 0 < rate <= 1000:
        raise UnrainError(f"--rate must be frames per second, like 30 or 30000/1001; got {text!r}")
    return rate

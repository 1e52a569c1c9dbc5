"""PyAV, imported when a video is, and only then; and how it is asked to turn one pixel format into another."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from ..errors import UnrainError


def pyav() -> ModuleType:
    try:
        import av
    except ImportError as error:
        raise UnrainError(f"video needs PyAV: pip install 'unrain[video]' ({error})") from error
    return av


def exact() -> dict[str, Any]:
    """Options of `reformat`. FFmpeg's quick way is two codes off, and darker with every pass; this one is not."""
    from av.video.reformatter import Interpolation

    flags = ("BILINEAR", "ACCURATE_RND", "FULL_CHR_H_INT", "FULL_CHR_H_INP")
    if not all(hasattr(Interpolation, name) for name in flags):
        return {}
    interpolation = Interpolation[flags[0]]
    for name in flags[1:]:
        interpolation |= Interpolation[name]
    return {"interpolation": interpolation}

"""PyAV, imported when a video is, and only then."""

from __future__ import annotations

from types import ModuleType

from ..errors import UnrainError


def pyav() -> ModuleType:
    try:
        import av
    except ImportError as error:
        raise UnrainError(f"video needs PyAV: pip install 'unrain[video]' ({error})") from error
    return av

"""Raw frames through a pipe, so that FFmpeg and GStreamer can stand on either side."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np

from ..errors import UnrainError
from .frames import Frame, Video
from .packages import exact, pyav

FORMATS = ("rgb24", "bgr24", "nv12")
RATE = Fraction(30)  # raw frames do not say


def frame_bytes(size: tuple[int, int], pix_fmt: str) -> int:
    height, width = size
    return height * width * 3 // 2 if pix_fmt == "nv12" else height * width * 3


def check(size: tuple[int, int], pix_fmt: str) -> None:
    if pix_fmt not in FORMATS:
        raise UnrainError(f"--pix-fmt must be one of {', '.join(FORMATS)}; got {pix_fmt!r}")
    if pix_fmt == "nv12" and (size[0] % 2 or size[1] % 2):
        raise UnrainError(f"nv12 needs even sides, got {size[1]}x{size[0]}")


def to_rgb(data: np.ndarray, size: tuple[int, int], pix_fmt: str) -> np.ndarray:
    """Bytes of one frame -> RGB [H, W, 3]; of rgb24, the very bytes."""
    height, width = size
    if pix_fmt == "rgb24":
        return data.reshape(height, width, 3)
    if pix_fmt == "bgr24":
        return np.ascontiguousarray(data.reshape(height, width, 3)[..., ::-1])
    nv12 = pyav().VideoFrame.from_ndarray(data.reshape(height * 3 // 2, width), format="nv12")
    return nv12.to_ndarray(format="rgb24", src_colorspace=_matrix(height), **exact())


def from_rgb(rgb: np.ndarray, pix_fmt: str) -> np.ndarray:
    if pix_fmt == "rgb24":
        return np.ascontiguousarray(rgb)
    if pix_fmt == "bgr24":
        return np.ascontiguousarray(rgb[..., ::-1])
    frame = pyav().VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")
    return frame.to_ndarray(format="nv12", dst_colorspace=_matrix(rgb.shape[0]), **exact())


def _matrix(height: int) -> str:
    """Raw frames do not say how their colours are coded. The usual guess, the same on the way in and out."""
    return "ITU709" if height >= 720 else "ITU601"


class RawSource:
    """Frames of one size from a file descriptor, until it ends."""

    live = False
    stall_seconds: float | None = None  # a pipe may be as slow as it likes

    def __init__(self, descriptor: int, size: tuple[int, int], pix_fmt: str, rate: Fraction = RATE) -> None:
        check(size, pix_fmt)
        self.video = Video(size, rate, time_base=1 / rate)
        self.cut_short: str | None = None
        self._file, self._pix_fmt = io.FileIO(descriptor, closefd=False), pix_fmt

    def __iter__(self) -> Iterator[Frame]:
        wanted = frame_bytes(self.video.size, self._pix_fmt)
        number = 0
        while True:
            data = bytearray(wanted)
            got = self._fill(memoryview(data))
            if got < wanted:
                if got:
                    self.cut_short = (
                        f"the input ended inside frame {number + 1}, {got} of {wanted} bytes: "
                        "are --size and --pix-fmt right?"
                    )
                return
            rgb = to_rgb(np.frombuffer(data, np.uint8), self.video.size, self._pix_fmt)
            yield Frame(rgb, number, float(number / self.video.rate), raw=data)
            number += 1

    def _fill(self, view: memoryview) -> int:
        got = 0
        while got < len(view):
            more = self._file.readinto(view[got:])
            if more is None:
                raise UnrainError("the input is a pipe that does not wait for its writer; open it without O_NONBLOCK")
            if more == 0:
                break
            got += more
        return got

    def close(self) -> None:
        """The descriptor is its owner's."""


class RawSink:
    """Frames into a file descriptor. One that went through raw goes out as it came in."""

    def __init__(self, descriptor: int, pix_fmt: str, size: tuple[int, int]) -> None:
        check(size, pix_fmt)
        self._descriptor, self._pix_fmt = descriptor, pix_fmt

    def write(self, frame: Frame, picture: np.ndarray) -> None:
        untouched = picture is frame.rgb and frame.raw is not None
        view = memoryview(frame.raw if untouched else from_rgb(picture, self._pix_fmt)).cast("B")  # type: ignore[arg-type]
        while len(view):
            view = view[os.write(self._descriptor, view) :]

    def copy(self, packet: Any) -> None:
        """Raw frames have no sound."""

    def finish(self) -> None:
        """Nothing is held back."""

    leave = finish

"""Video files, V4L2 cameras and network streams, through PyAV."""

from __future__ import annotations

import errno
import math
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UnrainError
from .frames import Colour, Frame, Video
from .matroska import is_cut_off
from .packages import exact, pyav

OPEN_SECONDS, STALL_SECONDS = 15.0, 10.0  # how long a camera or a network stream may keep us waiting
RATE = Fraction(30)  # of a source that does not say
# What a file may be, whatever it is called. FFmpeg also reads lists of other files, and follows them.
_FORMATS = "mov,matroska,avi,mpeg,mpegvideo,mpegts,flv,asf,asf_o"


class ContainerSource:
    """Upright RGB frames of the first video stream, and the packets of every audio stream."""

    def __init__(
        self, name: str, live: bool, size: tuple[int, int] | None = None, rate: Fraction | None = None
    ) -> None:
        self.name, self.live = name, live
        self.cut_short: str | None = None
        self._container = self._open(size, rate)
        if name.startswith("http") and self._container.duration:
            self.live = False  # a file, somewhere else
        self.stall_seconds = STALL_SECONDS if self.live else None
        try:
            self._stream = self._video_stream()
            audio = [] if self.live else list(self._container.streams.audio)
            self._packets = self._container.demux(self._stream, *audio)
            self._end = 0.0  # seconds, of what was read of any stream
            self._last_pts: int | None = None
            self._count = 0
            self._items = self._decode()
            self._waiting = self._up_to_first_frame()
            self.video = self._describe(self._waiting[-1], audio)
        except BaseException:
            self._container.close()
            raise

    def __iter__(self) -> Iterator[Any]:
        for item in self._chain():
            if isinstance(item, pyav().VideoFrame):
                yield self._frame(item)
            else:
                yield item

    def close(self) -> None:
        self._container.close()

    def _open(self, size: tuple[int, int] | None, rate: Fraction | None) -> Any:
        av = pyav()
        options: dict[str, str] = {}
        form, timeout, name = None, None, self.name
        if name.startswith("/dev/"):
            form, timeout = "v4l2", (OPEN_SECONDS, STALL_SECONDS)
            if size is not None:
                options["video_size"] = f"{size[1]}x{size[0]}"
            if rate is not None:
                options["framerate"] = str(rate)
        elif "://" in name:
            timeout = (OPEN_SECONDS, STALL_SECONDS)
            if name.startswith("rtsp"):
                options["rtsp_transport"] = "tcp"
        else:
            # A playlist or a reference movie must not make us open anything else.
            options |= {"protocol_whitelist": "file", "format_whitelist": _FORMATS}
            name = f"file:{Path(name)}"
        try:
            return av.open(name, format=form, options=options, timeout=timeout)
        except (av.FFmpegError, OSError, ValueError) as error:
            if "format_whitelist" in options and getattr(error, "errno", None) == errno.EINVAL:
                raise UnrainError(f"{self.name} cannot be opened as video: it is no clip, whatever its name") from error
            raise UnrainError(f"{self.name} cannot be opened as video: {_reason(error)}") from error

    def _video_stream(self) -> Any:
        pictures = pyav().stream.Disposition.attached_pic
        for stream in self._container.streams.video:
            if not stream.disposition & pictures and stream.codec_context is not None:
                stream.thread_type = "AUTO"
                return stream
        raise UnrainError(f"{self.name} holds no video")

    def _up_to_first_frame(self) -> list[Any]:
        """What comes before the first frame, and that frame: only it tells rotation and colours."""
        waiting = []
        for item in self._items:
            waiting.append(item)
            if isinstance(item, pyav().VideoFrame):
                return waiting
        reason = f": {self.cut_short}" if self.cut_short else ""
        raise UnrainError(f"{self.name} holds no frame that can be decoded{reason}")

    def _describe(self, first: Any, audio: list[Any]) -> Video:
        stream = self._stream
        rotation = round(getattr(first, "rotation", 0) / 90) * 90 % 360
        height, width = first.height, first.width
        if rotation % 180:
            height, width = width, height
        rate = stream.average_rate or stream.guessed_rate or RATE
        frames = stream.frames or None
        if frames is None and not self.live and self._container.duration:
            frames = round(self._container.duration / 1e6 * rate)
        colour = Colour(
            *(int(getattr(first, key)) for key in ("colorspace", "color_range", "color_primaries", "color_trc"))
        )
        base = stream.time_base or 1 / rate
        return Video((height, width), rate, base, frames, rotation, colour, audio, dict(self._container.metadata))

    def _chain(self) -> Iterator[Any]:
        while self._waiting:
            yield self._waiting.pop(0)
        yield from self._items

    def _decode(self) -> Iterator[Any]:
        """Decoded frames and packets of sound; what cannot be read or decoded ends it, with a line why."""
        av = pyav()
        try:
            for packet in self._packets:
                self._note_end(packet)
                if packet.stream is not self._stream:
                    if packet.dts is not None:
                        yield packet
                    continue
                for frame in packet.decode():
                    self._count += 1
                    yield frame
        except (av.FFmpegError, OSError) as error:
            self.cut_short = f"{self.name} cannot be read beyond frame {self._count}: {_reason(error)}"
            return
        expected = self._stream.frames
        if not self.live and expected and self._count < expected:
            self.cut_short = f"{self.name} ends after {self._count} of {expected} frames"
        elif self._count and not self.live and is_cut_off(Path(self.name)) and self._end < self._said_end():
            told = f" of about {self.video.frames}" if self.video.frames else ""
            self.cut_short = f"{self.name} ends after {self._count}{told} frames: the file is not whole"

    def _note_end(self, packet: Any) -> None:
        if packet.pts is not None:
            self._end = max(self._end, float((packet.pts + (packet.duration or 0)) * packet.time_base))

    def _said_end(self) -> float:
        """Seconds; half a frame less than the file says, whose clock may be coarse."""
        said = (self._container.duration or math.inf) / 1e6
        return said + (self._container.start_time or 0) / 1e6 - 0.5 / float(self.video.rate)

    def _frame(self, frame: Any) -> Frame:
        rgb = frame.to_ndarray(format="rgb24", **exact())
        if self.video.rotation:
            rgb = np.ascontiguousarray(np.rot90(rgb, self.video.rotation // 90))
        pts = frame.pts
        if pts is None:
            step = max(round(1 / (self.video.rate * self.video.time_base)), 1)
            pts = 0 if self._last_pts is None else self._last_pts + step
        if self._last_pts is not None:  # a broken clock must not stop the encoder
            pts = max(pts, self._last_pts + 1)
        self._last_pts = pts
        return Frame(rgb, pts, float(pts * self.video.time_base), frame.duration or None)


def _reason(error: BaseException) -> str:
    number = getattr(error, "errno", None)
    if number in (errno.ETIMEDOUT, errno.EAGAIN) or type(error).__name__ in ("ExitError", "TimeoutError"):
        return f"nothing came for {STALL_SECONDS:.0f} seconds"
    return str(getattr(error, "strerror", None) or error).splitlines()[0]

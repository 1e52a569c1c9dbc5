"""H.264 into a file: times, rotation, colours and sound as in the source."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UnrainError
from .frames import Frame, Video
from .packages import exact, pyav

SUFFIXES = (".mp4", ".mov", ".m4v", ".mkv", ".ts")  # AVI stores no times
_LARGEST_BASE = 65535  # MPEG-4's own clock, where there is no H.264


def part_of(path: Path) -> Path:
    """The name that a result has while it grows."""
    return path.with_name(f"{path.stem}.part{path.suffix}")


class VideoSink:
    """One video file. It grows under a name with `.part`, playable at any moment, and gets its own name at the end."""

    def __init__(self, path: Path, video: Video, quality: int = 18, compare: bool = False) -> None:
        if path.suffix.lower() not in SUFFIXES:
            raise UnrainError(f"{path} is no video file this can write: use one of {' '.join(SUFFIXES)}")
        self.path, self.part = path, part_of(path)
        self.dropped_audio: list[str] = []  # codecs that this kind of file cannot hold
        self._video, self._compare, self._turn = video, compare, 0
        self._container = self._open()
        self._stream = self._add_video(quality)
        self._audio = {} if compare else self._add_audio()
        self._frames = 0

    def write(self, frame: Frame, picture: np.ndarray) -> None:
        if picture.shape[:2] != self._video.size:  # the source has changed its size; the file cannot
            picture = self._fitted(picture)
        if self._compare:
            before = frame.rgb if frame.rgb.shape == picture.shape else self._fitted(frame.rgb)
            picture = np.concatenate([before, picture], axis=1)
        if self._turn:
            picture = np.rot90(picture, -self._turn // 90)
        av, colour = pyav(), self._video.colour
        rgb = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
        coded = rgb.reformat(
            format=self._stream.pix_fmt,
            dst_colorspace=colour.space if colour.space != 2 else None,
            dst_color_range=colour.range or None,
            **exact(),
        )
        coded.pts, coded.time_base = frame.pts, self._video.time_base
        if frame.duration and hasattr(type(coded), "duration"):
            coded.duration = frame.duration
        with self._told():
            self._container.mux(self._stream.encode(coded))
        self._frames += 1

    def copy(self, packet: Any) -> None:
        target = self._audio.get(packet.stream.index)
        if target is not None:
            packet.stream = target
            self._container.mux(packet)

    def finish(self) -> None:
        self.leave()
        if self._frames:
            self.part.replace(self.path)

    def leave(self) -> None:
        try:
            if self._frames:
                with self._told():
                    self._container.mux(self._stream.encode())
        finally:
            with self._told():
                self._container.close()
            if not self._frames:
                self.part.unlink(missing_ok=True)

    @contextmanager
    def _told(self) -> Iterator[None]:
        """What the encoder cannot hold, and what the disk cannot, in one line."""
        try:
            yield
        except (pyav().FFmpegError, ValueError) as error:
            raise UnrainError(f"{self.path} cannot be written: {getattr(error, 'strerror', None) or error}") from error

    def _open(self) -> Any:
        av = pyav()
        # Fragments while it grows, so that a kill leaves a playable file; one ordinary index at the end.
        options = {"movflags": "hybrid_fragmented+delay_moov", "flush_packets": "1"} if self._is_mp4() else {}
        try:
            # Without "file:" a colon in a relative name would end the name of a protocol.
            container = av.open(f"file:{self.part}", "w", options=options)
        except (av.FFmpegError, OSError, ValueError) as error:
            raise UnrainError(f"{self.path} cannot be written: {getattr(error, 'strerror', None) or error}") from error
        container.metadata.update(self._video.metadata)
        return container

    def _is_mp4(self) -> bool:
        return self.path.suffix.lower() in (".mp4", ".mov", ".m4v")

    def _add_video(self, quality: int) -> Any:
        av, video = pyav(), self._video
        h264 = "libx264" in av.codecs_available
        options = {"crf": str(quality), "preset": "veryfast"} if h264 else {"qscale": "3"}
        stream = self._container.add_stream("libx264" if h264 else "mpeg4", rate=video.rate, options=options)
        height, width = video.size
        width *= 2 if self._compare else 1
        if video.rotation and hasattr(stream, "set_display_rotation") and self._is_mp4() and not self._compare:
            self._turn = video.rotation
            stream.set_display_rotation(video.rotation)
            if video.rotation % 180:
                height, width = width, height
        stream.height, stream.width = height, width
        # 4:2:0 cannot hold an odd side; MPEG-4 has nothing else.
        stream.pix_fmt = "yuv444p" if h264 and (height % 2 or width % 2) else "yuv420p"
        context, colour = stream.codec_context, video.colour
        base = video.time_base
        if h264 or base.denominator <= _LARGEST_BASE:
            context.time_base = base
        context.colorspace, context.color_range = colour.space, colour.range
        context.color_primaries, context.color_trc = colour.primaries, colour.transfer
        return stream

    def _add_audio(self) -> dict[int, Any]:
        av, added = pyav(), {}
        for source in self._video.audio:
            try:
                added[source.index] = self._container.add_stream_from_template(source)
            except (av.FFmpegError, ValueError):
                self.dropped_audio.append(source.codec_context.name)
        return added

    def _fitted(self, picture: np.ndarray) -> np.ndarray:
        height, width = self._video.size
        frame = pyav().VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
        return frame.reformat(width=width, height=height).to_ndarray(format="rgb24")

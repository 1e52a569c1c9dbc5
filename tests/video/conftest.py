"""Small clips made on the spot, and weights of a small network."""

from fractions import Fraction

import numpy as np
import pytest
import torch

from unrain import build

av = pytest.importorskip("av", reason="video needs PyAV: pip install 'unrain[video]'")


def picture(number, height, width):
    """A smooth picture that moves: H.264 keeps it to a few codes."""
    rows, columns = np.mgrid[:height, :width]
    waves = (rows + 2 * number) / 9.0, (columns - number) / 13.0, (rows + columns) / 17.0
    return np.stack([128 + 60 * np.sin(wave) for wave in waves], -1).astype(np.uint8)


@pytest.fixture
def make_clip(tmp_path):
    """`make_clip("a.mp4", ...)`: its path. Times are in milliseconds, those of a camera of 10 frames a second."""

    def make(name, frames=12, size=(48, 64), rotation=0, sound=False, pix_fmt="yuv420p", times=None, colour=2):
        path = tmp_path / name
        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx264", rate=10, options={"crf": "5"})
            stream.height, stream.width, stream.pix_fmt = *size, pix_fmt
            stream.gop_size = 4
            stream.codec_context.time_base = Fraction(1, 1000)
            stream.codec_context.colorspace = colour
            if rotation:
                stream.set_display_rotation(rotation)
            voice = container.add_stream("aac", rate=16000, layout="mono") if sound else None
            for number in range(frames):
                rgb = av.VideoFrame.from_ndarray(picture(number, *size), format="rgb24")
                frame = rgb.reformat(format=pix_fmt, dst_colorspace=colour if colour != 2 else None)
                frame.pts, frame.time_base = (times or range(0, 100 * frames, 100))[number], Fraction(1, 1000)
                container.mux(stream.encode(frame))
                if voice:
                    wave = (np.sin(np.arange(1600) / 20) * 8000).astype(np.int16)[None]
                    block = av.AudioFrame.from_ndarray(wave, format="s16", layout="mono")
                    block.rate, block.pts = 16000, 1600 * number
                    container.mux(voice.encode(block))
            container.mux(stream.encode())
            if voice:
                container.mux(voice.encode())
        return path

    return make


@pytest.fixture(scope="session")
def weights(saved):
    """A small srn that changes hardly anything."""
    torch.manual_seed(0)
    model = build("srn", channels=8, blocks=1, stages=2)
    with torch.no_grad():
        model.branch.f_out.weight.mul_(1e-3)
        model.branch.f_out.bias.zero_()
    return saved(model)


@pytest.fixture
def look():
    """What a player would find in a file: pictures as stored, their times, rotation, sound."""
    return _look


def _look(path):
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = list(container.decode(stream))
        said = stream.frames
    with av.open(str(path)) as container:
        sound = [
            (packet.pts * packet.time_base, bytes(packet))
            for packet in (container.demux(audio=0) if container.streams.audio else [])
            if packet.dts is not None
        ]
    return {
        "said": said,
        "times": [round(float(frame.time), 3) for frame in frames],
        "size": (frames[0].height, frames[0].width),
        "rotation": frames[0].rotation,
        "colour": int(frames[0].colorspace),
        "format": frames[0].format.name,
        "pictures": [frame.to_ndarray(format="rgb24") for frame in frames],
        "sound": sound,
    }

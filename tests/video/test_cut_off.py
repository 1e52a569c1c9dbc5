"""Clips that break off, in containers that count no frames: told from whole ones of unusual lengths."""

import numpy as np
import pytest

from unrain.engine.video.container import ContainerSource
from unrain.engine.video.frames import Frame
from unrain.engine.video.matroska import is_cut_off

av = pytest.importorskip("av", reason="video needs PyAV: pip install 'unrain[video]'")


def read(path):
    """How many frames there are, and what the source says in the end."""
    source = ContainerSource(str(path), live=False)
    try:
        return sum(isinstance(item, Frame) for item in source), source.cut_short
    finally:
        source.close()


@pytest.mark.parametrize("suffix", [".mkv", ".webm"])
@pytest.mark.parametrize("sound", [False, True])
def test_a_matroska_file_that_breaks_off_is_told_with_its_numbers(make_clip, tmp_path, suffix, sound):
    whole = make_clip("whole.mkv", frames=20, sound=sound)
    data = whole.read_bytes()
    short = tmp_path / f"short{suffix}"
    short.write_bytes(data[: len(data) // 2])
    count, said = read(short)
    assert 0 < count < 20
    total = 21 if sound else 20  # the sound is a little longer, and only the whole file's length is known
    assert said == f"{short} ends after {count} of about {total} frames: the file is not whole"


def test_a_file_that_only_lost_its_index_is_whole(make_clip, tmp_path):
    data = make_clip("whole.mkv", frames=20).read_bytes()
    short = tmp_path / "short.mkv"
    short.write_bytes(data[:-20])
    assert is_cut_off(short) and read(short) == (20, None)


@pytest.mark.parametrize("frames", [1, 2, 12])
@pytest.mark.parametrize("sound", [False, True])
def test_whole_files_are_no_false_alarm(make_clip, frames, sound):
    assert read(make_clip("a.mkv", frames=frames, sound=sound)) == (frames, None)


def test_a_variable_rate_with_a_long_last_frame_is_no_false_alarm(make_clip):
    assert read(make_clip("a.mkv", frames=6, times=[0, 40, 45, 900, 910, 7000])) == (6, None)


def test_sound_longer_than_the_pictures_is_no_false_alarm(tmp_path):
    path = tmp_path / "long.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        voice = container.add_stream("aac", rate=16000, layout="mono")
        for number in range(5):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 40 * number, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        for number in range(30):
            block = av.AudioFrame.from_ndarray(np.zeros((1, 1600), np.int16), format="s16", layout="mono")
            block.rate, block.pts = 16000, 1600 * number
            container.mux(voice.encode(block))
        container.mux(voice.encode())
    assert read(path) == (5, None)


def test_a_stream_that_never_knew_its_length_is_no_false_alarm(make_clip, tmp_path):
    """Written to a pipe: the segment says that its size is not known."""
    whole, streamed = make_clip("whole.mkv", frames=8), tmp_path / "streamed.mkv"
    with av.open(str(whole)) as source, av.open(str(streamed), "w", options={"live": "1"}) as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                target.mux(packet)
    assert not is_cut_off(streamed) and read(streamed) == (8, None)


@pytest.mark.parametrize(
    "content",
    [b"", b"\x1a\x45\xdf\xa3", b"\x1a\x45\xdf\xa3" + bytes(100), b"\x1a\x45\xdf\xa3\xff" + b"\xff" * 90, b"RIFF"],
)
def test_what_is_no_matroska_file_is_not_said_to_be_cut_off(tmp_path, content):
    path = tmp_path / "x.mkv"
    path.write_bytes(content)
    assert not is_cut_off(path)

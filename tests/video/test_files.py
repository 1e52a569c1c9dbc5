"""Clips in, clips out: what must survive, and what happens to clips that are broken."""

import os
from pathlib import Path

import numpy as np
import pytest

from unrain.engine.errors import UnrainError
from unrain.engine.runtime.stream.status import Outcome, Status
from unrain.engine.video.container import ContainerSource
from unrain.engine.video.frames import Frame
from unrain.engine.video.pipeline import derain_all
from unrain.engine.video.raw import RawSource
from unrain.engine.video.writer import VideoSink


def untouched(frame, seconds):
    """A network that changes nothing, but gives a picture of its own."""
    return frame.copy(), Status(Outcome.OK, 1.0, 1)


def through(source_path, target, **options):
    source = ContainerSource(str(source_path), live=False)
    sink = VideoSink(target, source.video)
    report = derain_all(source, untouched, [sink], **options)
    sink.finish()
    return report


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov", ".ts"])
def test_a_clip_keeps_its_frames_times_size_and_sound(make_clip, tmp_path, look, suffix):
    clip = make_clip("in.mp4", sound=True)
    report = through(clip, tmp_path / f"out{suffix}")
    before, after = look(clip), look(tmp_path / f"out{suffix}")
    assert report.frames == 12 and report.cut_short is None
    assert len(after["times"]) == 12 and after["size"] == (48, 64)
    start = (
        after["times"][0] - before["times"][0]
    )  # some files have no times below zero, or start their clock elsewhere
    assert abs(start) < {".mp4": 0.001, ".mov": 0.001, ".ts": 10}.get(suffix, 0.2)
    np.testing.assert_allclose(np.array(after["times"]) - start, before["times"], atol=0.006)
    for a, b in zip(before["pictures"], after["pictures"], strict=True):
        assert np.abs(a.astype(int) - b).mean() < 3
    if suffix in (".mp4", ".mov", ".mkv"):
        assert [data for _, data in after["sound"]] == [data for _, data in before["sound"]]
        np.testing.assert_allclose(
            [float(at) - start for at, _ in after["sound"]], [float(at) for at, _ in before["sound"]], atol=0.002
        )
    if suffix in (".mp4", ".mov"):
        assert after["said"] == 12


def test_a_variable_rate_stays_variable(make_clip, tmp_path, look):
    times = [0, 40, 45, 200, 260, 261, 400, 1900, 1933, 1966, 2000, 2500]
    clip = make_clip("in.mp4", times=times)
    through(clip, tmp_path / "out.mp4")
    assert look(tmp_path / "out.mp4")["times"] == [time / 1000 for time in times]


@pytest.mark.parametrize("frames", [1, 2, 3])
def test_clips_of_very_few_frames_lose_none(make_clip, tmp_path, look, frames):
    report = through(make_clip("in.mp4", frames=frames), tmp_path / "out.mp4")
    assert report.frames == frames == len(look(tmp_path / "out.mp4")["times"]) and report.cut_short is None


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_rotation_is_kept_and_the_network_sees_the_picture_upright(make_clip, tmp_path, look, rotation):
    clip = make_clip("in.mp4", rotation=rotation)
    before = look(clip)
    assert before["rotation"] % 360 == rotation
    source = ContainerSource(str(clip), live=False)
    assert source.video.size == ((64, 48) if rotation % 180 else (48, 64))
    first = next(item for item in source if isinstance(item, Frame))
    # Counter-clockwise by that angle, as FFmpeg means it.
    assert np.abs(first.rgb.astype(int) - np.rot90(before["pictures"][0], rotation // 90)).mean() < 3
    source.close()
    through(clip, tmp_path / "out.mp4")
    after = look(tmp_path / "out.mp4")
    assert after["rotation"] == before["rotation"] and after["size"] == (48, 64)
    assert np.abs(after["pictures"][3].astype(int) - before["pictures"][3]).mean() < 3
    through(clip, tmp_path / "out.mkv")  # which knows no rotation: the picture itself is turned
    turned = look(tmp_path / "out.mkv")
    assert turned["rotation"] == 0 and turned["size"] == ((64, 48) if rotation % 180 else (48, 64))


@pytest.mark.parametrize("size", [(47, 64), (48, 63), (47, 63)])
def test_odd_sides_are_kept(make_clip, tmp_path, look, size):
    through(make_clip("in.mp4", size=size, pix_fmt="yuv444p"), tmp_path / "out.mp4")
    assert look(tmp_path / "out.mp4")["size"] == size


@pytest.mark.parametrize("colour", [1, 2, 5])
def test_colours_are_coded_as_they_were(make_clip, tmp_path, look, colour):
    clip = make_clip("in.mp4", colour=colour)
    through(clip, tmp_path / "out.mp4")
    before, after = look(clip), look(tmp_path / "out.mp4")
    assert before["colour"] == after["colour"] == colour
    difference = after["pictures"][5].astype(int) - before["pictures"][5]
    assert np.abs(difference.mean((0, 1))).max() < 1


def test_two_pictures_side_by_side(make_clip, tmp_path, look):
    source = ContainerSource(str(make_clip("in.mp4", rotation=90)), live=False)
    sink = VideoSink(tmp_path / "out.mp4", source.video, compare=True)
    derain_all(source, lambda frame, _: (255 - frame, Status(Outcome.OK, 1.0, 1)), [sink])
    sink.finish()
    after = look(tmp_path / "out.mp4")
    assert after["size"] == (64, 96)
    left, right = after["pictures"][0][:, :48].astype(int), after["pictures"][0][:, 48:]
    assert np.abs(left - (255 - right)).mean() < 4


def test_it_stops_after_so_many_frames(make_clip, tmp_path, look):
    report = through(make_clip("in.mp4"), tmp_path / "out.mp4", max_frames=5)
    assert report.frames == 5 and len(look(tmp_path / "out.mp4")["times"]) == 5 and report.cut_short is None


def test_a_clip_that_ends_too_early_is_played_up_to_there(make_clip, tmp_path, look):
    import av

    whole, cut = make_clip("in.mp4", frames=40, size=(96, 128)), tmp_path / "cut.mp4"
    with av.open(str(whole)) as a, av.open(str(tmp_path / "fast.mp4"), "w", options={"movflags": "faststart"}) as b:
        stream = b.add_stream_from_template(a.streams.video[0])
        for packet in a.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                b.mux(packet)
    data = (tmp_path / "fast.mp4").read_bytes()
    cut.write_bytes(data[: len(data) * 2 // 3])
    report = through(cut, tmp_path / "out.mp4")
    assert 0 < report.frames < 40
    assert report.cut_short is not None and str(cut) in report.cut_short and "\n" not in report.cut_short
    assert len(look(tmp_path / "out.mp4")["times"]) == report.frames


@pytest.mark.parametrize("content", [b"", b"no video at all", b"\x00\x00\x00\x20ftypisom" + bytes(500)])
def test_what_is_no_video_is_one_line(tmp_path, content):
    (tmp_path / "bad.mp4").write_bytes(content)
    with pytest.raises(UnrainError, match=r"bad\.mp4") as caught:
        ContainerSource(str(tmp_path / "bad.mp4"), live=False)
    assert "\n" not in str(caught.value)


def test_a_playlist_opens_nothing_else(make_clip, tmp_path):
    make_clip("secret.ts")
    (tmp_path / "list.mp4").write_text(f"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:1/{tmp_path}/secret.ts\n")
    with pytest.raises(UnrainError):
        ContainerSource(str(tmp_path / "list.mp4"), live=False)


def test_an_unfinished_result_is_playable_under_its_own_name(make_clip, tmp_path, look):
    source = ContainerSource(str(make_clip("in.mp4")), live=False)
    sink = VideoSink(tmp_path / "out.mp4", source.video)
    for frame in source:
        sink.write(frame, frame.rgb)
    sink.leave()
    source.close()
    assert not (tmp_path / "out.mp4").exists()
    assert len(look(tmp_path / "out.part.mp4")["times"]) == 12


@pytest.mark.parametrize("name", ["out.gif", "out.avi", "out"])
def test_other_files_are_refused(make_clip, tmp_path, name):
    source = ContainerSource(str(make_clip("in.mp4")), live=False)
    with pytest.raises(UnrainError, match="no video file"):
        VideoSink(tmp_path / name, source.video)
    source.close()


@pytest.mark.parametrize(
    "text",
    [
        "ffconcat version 1.0\nfile secret.mp4\n",
        "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nsecret.mp4\n#EXT-X-ENDLIST\n",
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
        "no clip at all",
    ],
    ids=["ffconcat", "playlist", "session", "text"],
)
def test_a_list_of_other_files_is_no_clip(make_clip, tmp_path, text):
    """Whatever it is called, only what it holds itself may be read."""
    make_clip("secret.mp4")
    (tmp_path / "clip.mp4").write_text(text)
    with pytest.raises(UnrainError, match=r"clip\.mp4 cannot be opened as video: ") as raised:
        ContainerSource(str(tmp_path / "clip.mp4"), live=False)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", ["12:30.mp4", "udp:x.mkv", "%d.mp4"])
def test_a_colon_in_a_name_is_part_of_the_name(make_clip, tmp_path, look, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    through(make_clip("in.mp4"), Path(name))
    assert len(look(tmp_path / name)["times"]) == 12


def test_raw_frames_are_read_where_the_system_has_no_readv(monkeypatch):
    monkeypatch.delattr(os, "readv", raising=False)  # as on Windows
    reading, writing = os.pipe()
    frames = [np.full((8, 8, 3), value, np.uint8) for value in (1, 2)]
    os.write(writing, b"".join(frame.tobytes() for frame in frames) + b"half")
    os.close(writing)
    source = RawSource(reading, (8, 8), "rgb24")
    assert [int(frame.rgb.mean()) for frame in source] == [1, 2] and "4 of 192 bytes" in source.cut_short
    os.close(reading)


def test_a_pipe_that_does_not_wait_is_not_a_pipe_that_has_ended():
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    with pytest.raises(UnrainError, match="a pipe that does not wait"):
        next(iter(RawSource(reading, (8, 8), "rgb24")))
    os.close(reading), os.close(writing)

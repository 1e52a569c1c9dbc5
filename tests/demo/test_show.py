"""The demo: rain and clip are the same every time, and with any weights it leaves its pictures and its table."""

import hashlib
import itertools

import numpy as np
import pytest

import unrain
from unrain import Engine
from unrain.demo import show
from unrain.engine.images import read_image
from unrain.engine.models.checkpoint import save
from unrain.engine.pictures import FOLDER, SHOWERS


def test_demo_writes_before_and_after_and_one_table(tmp_path, monkeypatch, capsys):
    av = pytest.importorskip("av")
    model = unrain.build("stagewise")
    model.stages = 1
    save(model, tmp_path / "w.safetensors")
    monkeypatch.setattr(show, "FRAMES", 3)
    monkeypatch.setattr(show, "SHOWERS", show.SHOWERS[2:])
    assert show.main(["--out", str(tmp_path / "out"), "--weights", str(tmp_path / "w.safetensors")]) == 0
    table = capsys.readouterr().out
    rainy = read_image(tmp_path / "out" / "chelsea-rainy.png")
    dry = read_image(tmp_path / "out" / "chelsea-stagewise.png")
    both = read_image(tmp_path / "out" / "chelsea-stagewise-compare.png")
    assert np.array_equal(both[:, : rainy.shape[1]], rainy) and np.array_equal(both[:, -rainy.shape[1] :], dry)
    assert "chelsea" in table and "451 x 300" in table
    with av.open(str(tmp_path / "out" / "pan-stagewise.mp4")) as clip:
        frames = [frame.to_ndarray(format="rgb24") for frame in clip.decode(video=0)]
    assert len(frames) == 3 and frames[0].shape == (show.HEIGHT, 2 * show.WIDTH + 4, 3)
    assert "ms/frame" in table and "frames/s" in table and "gain" in table and "clip" in table


def test_a_network_made_for_video_carries_its_state_through_the_clip(tmp_path, monkeypatch):
    engine = Engine(unrain.load("wiper-s"), backend="eager", precision="fp32")
    pan = show.pan
    monkeypatch.setattr(show, "pan", lambda scene: itertools.islice(pan(scene), 4))
    carried = show._clip("wiper-s", engine, tmp_path)
    monkeypatch.setattr(type(engine), "made_for_video", False)
    anew = show._clip("wiper-s", engine, tmp_path)
    assert carried[:3] == anew[:3] and carried[-2] != anew[-2]
    assert float(carried[4]) > 0


def test_without_weights_it_says_so_in_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(show, "WEIGHTS", tmp_path)
    assert show.main(["--out", str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1 and "no weights are shipped" in error
    assert not (tmp_path / "out").exists()


def test_showers_lower_the_psnr_by_a_visible_amount():
    from unrain.engine.evaluation.metrics import psnr_rgb
    from unrain.engine.training.rain import add_rain, shower

    for file, severity, seed in SHOWERS:
        clean = read_image(FOLDER / file)
        rainy = add_rain(clean, shower(severity, seed), seed)
        assert 15 < psnr_rgb(rainy, clean) < 32, file


def test_the_pan_moves_and_stays_inside():
    frames = list(show.pan(read_image(FOLDER / "china.jpg")))
    assert len(frames) == show.FRAMES and all(frame.shape == (show.HEIGHT, show.WIDTH, 3) for frame in frames)
    assert all(not np.array_equal(a, b) for a, b in itertools.pairwise(frames))


def test_bundled_pictures_are_small_and_credited():
    pictures = [path for path in FOLDER.iterdir() if path.suffix in (".png", ".jpg")]
    credits = (FOLDER / "CREDITS.md").read_text()
    assert {path.name for path in pictures} == {file for file, _, _ in SHOWERS}
    assert sum(path.stat().st_size for path in pictures) < 1_500_000
    for path in pictures:
        assert path.name in credits
        assert hashlib.sha256(path.read_bytes()).hexdigest()[:12] in credits
        assert max(read_image(path).shape) <= 640

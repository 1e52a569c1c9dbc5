"""`unrain train` and wrong data: one line that names the file, and no traceback."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unrain.cli.main import main
from unrain.engine.models import load


def train(data, out, *more):
    words = ["train", "stagewise", "--data", data, "-o", out, "--steps", "2", "--batch", "2", "--patch", "32"]
    return main([str(word) for word in [*words, "--workers", "0", "--hold-out", "1", *more]])


def complaint(capsys):
    text = capsys.readouterr().err.strip()
    assert "Traceback" not in text and len(text.splitlines()) == 1, text
    return text


def test_trains_from_the_command_line(clean_folder, tmp_path, capsys):
    assert train(clean_folder, tmp_path / "runs" / "a") == 0
    assert "dB on held-out pictures" in capsys.readouterr().out
    assert load(tmp_path / "runs" / "a" / "best.safetensors").name == "stagewise"
    assert (tmp_path / "runs" / "cache").is_dir()
    assert train(clean_folder, tmp_path / "runs" / "a", "--resume") == 1
    assert "is finished at step 2" in complaint(capsys)
    assert train(clean_folder, tmp_path / "runs" / "a", "--resume", "--steps", "3") == 0


def test_trains_from_pairs(pairs_folder, tmp_path):
    assert train(pairs_folder, tmp_path / "run") == 0


def test_rain_of_ones_own_takes_no_other(pairs_folder, tmp_path, capsys):
    assert train(pairs_folder, tmp_path / "run", "--rain", "wide") == 1
    assert "--rain is for clean pictures" in complaint(capsys)


def missing(folder):
    return folder / "nowhere", "nowhere is not a folder"


def empty(folder):
    (folder / "empty").mkdir()
    return folder / "empty", "holds no pictures"


def unpaired(folder):
    (folder / "pairs" / "target" / "c.png").unlink()
    return folder / "pairs", r"c.png has no clean picture"


def mismatched(folder):
    Image.new("RGB", (60, 61)).save(folder / "pairs" / "input" / "b.png")
    return folder / "pairs", "b.png is 60x61"


def torn(folder):
    file = folder / "clean" / "sceneb.png"
    file.write_bytes(file.read_bytes()[:200])
    return folder / "clean", "sceneb.png cannot be read"


def tiny(folder):
    Image.fromarray(np.zeros((20, 20, 3), np.uint8)).save(folder / "clean" / "scenec.png")
    return folder / "clean", "scenec.png is 20 x 20"


@pytest.mark.parametrize("spoil", [missing, empty, unpaired, mismatched, torn, tiny])
def test_wrong_data_is_one_line_with_the_name(spoil, clean_folder, pairs_folder, tmp_path, capsys):
    data, words = spoil(tmp_path)
    assert train(data, tmp_path / "run") == 1
    assert words in complaint(capsys)
    assert not Path(tmp_path / "run" / "last.pt").exists()


def test_wrong_words_are_one_line(clean_folder, tmp_path, capsys):
    for more, words in ((("--kind", "video"), "no kind of data"), (("--recipe", "quick"), "no recipe")):
        assert train(clean_folder, tmp_path / "run", *more) == 1
        assert words in complaint(capsys)

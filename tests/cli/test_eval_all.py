"""`unrain eval all`: one table for each data set, and the README's table of quality made of it."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from unrain.cli import eval_all
from unrain.cli.main import main
from unrain.engine.images import read_image, write_image
from unrain.engine.models import WEIGHTS
from unrain.page.wiping import BUNDLED

ROOT = Path(__file__).resolve().parents[2]
SOME = ["srn", "stagewise"]  # the quickest


@pytest.fixture(autouse=True)
def some(monkeypatch):
    monkeypatch.setattr(eval_all, "shipped", lambda: SOME)


def test_all_are_those_that_are_shipped(monkeypatch):
    monkeypatch.undo()
    assert set(eval_all.shipped()) == {path.stem for path in WEIGHTS.glob("*.safetensors")}


@pytest.fixture
def sets(tmp_path):
    """Two pairs, a pair that is dry, and a photo."""
    scene = read_image(BUNDLED)
    for name, extra in (("wet", 12), ("dry", 0)):
        for number in range(2):
            clean = np.minimum(scene[40 * number : 40 * number + 24, :32], 240)
            write_image(tmp_path / name / "target" / f"{number}.png", clean.copy())
            write_image(tmp_path / name / "input" / f"{number}.png", clean + np.uint8(extra))
    write_image(tmp_path / "photos" / "1.png", scene[:96, :192].copy())
    return [str(tmp_path / name) for name in ("wet", "dry", "photos")]


@pytest.fixture
def quality():
    spec = importlib.util.spec_from_file_location("quality", ROOT / "docs" / "figures" / "quality.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_all_weights_over_all_sets(sets, capsys, quality):
    assert main(["eval", "all", *sets, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert list(answer["sets"]) == ["wet", "dry", "photos"]
    for name, found in answer["sets"].items():
        assert list(found["weights"]) == SOME and found["pictures"] == (1 if name == "photos" else 2)
    assert list(answer["sets"]["photos"]["rainy"]) == ["niqe"] and answer["sets"]["dry"]["rainy"]["psnr_y"] == "inf"
    wet = answer["sets"]["wet"]
    assert main(["eval", "srn", sets[0], "--json"]) == 0
    alone = json.loads(capsys.readouterr().out)["mean"]
    assert wet["weights"]["srn"]["psnr_y"] == alone["output"]["psnr_y"]
    assert wet["rainy"]["ssim_y"] == alone["rainy"]["ssim_y"]
    rows = quality.measured(answer["sets"], "srn")
    assert rows[0] == ("wet", f"{wet['rainy']['psnr_y']:.2f}", f"{alone['output']['psnr_y']:.2f}")
    assert rows[1][:2] == ("dry", "") and rows[2][0] == "photos, niqe (less is better)"


def test_the_table_for_a_reader(sets, capsys):
    assert main(["eval", "all", sets[0], sets[2], "--limit", "1"]) == 0
    told = capsys.readouterr().out
    assert "wet: 1 picture," in told and "niqe (less is better)" in told and told.count("stagewise ") == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["srn", "{0}", "{1}"], "one data set at a time"),
        (["all", "{0}", "{0}"], "have one name"),
        (["all", "{0}", "--stages", "2"], "all takes no"),
        (["all", "{0}", "nowhere"], "no data set at nowhere"),
    ],
)
def test_what_makes_no_sense_is_one_line(sets, capsys, words, said):
    assert main(["eval", *(word.format(*sets) for word in words)]) == 1
    err = capsys.readouterr().err
    assert said in err and err.count("\n") == 1


def test_what_was_measured_goes_before_what_a_card_says(quality, tmp_path, monkeypatch):
    means = {"psnr_y": 34.5, "ssim_y": 0.9, "seconds": 1.0}
    sets = {"Rain100L": {"pictures": 100, "rainy": {"psnr_y": 26.9, "ssim_y": 0.8}, "weights": {"srn": means}}}
    (tmp_path / "quality.json").write_text(json.dumps({"quantise": "truncate", "sets": sets}))
    monkeypatch.setattr(quality, "MEASURED", tmp_path / "quality.json")
    (row,) = (line for line in quality.table().splitlines() if "weights/srn.md" in line)
    assert row.split(" | ")[1:4] == ["Rain100L", "26.90", "34.50"]
    assert sum("in heavy rain" in line for line in quality.table().splitlines()) == len(list(WEIGHTS.glob("*.md")))

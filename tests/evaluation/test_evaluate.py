"""Evaluation runs and their reports."""

import csv
import json
import math
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from unrain.engine.errors import UnrainError
from unrain.engine.evaluation.evaluate import derain_uint8, evaluate, evaluate_video, quantised
from unrain.engine.evaluation.metrics import metric
from unrain.engine.evaluation.page import write_page
from unrain.engine.evaluation.pairs import find_pairs


@pytest.fixture
def pairs(tmp_path):
    """Six pairs whose rain, a grey offset, is heavier from picture to picture."""
    rng = np.random.default_rng(0)
    for number in range(6):
        clean = rng.integers(20, 180, (40, 52, 3), dtype=np.uint8)
        for folder, image in (("target", clean), ("input", clean + np.uint8(6 * number + 6))):
            (tmp_path / folder).mkdir(exist_ok=True)
            Image.fromarray(image).save(tmp_path / folder / f"{number}.png")
    return find_pairs(tmp_path)


def darker(x):
    """Takes 6 levels off: perfect on the first picture."""
    return x - 6 / 255


class Darker(nn.Module):
    def __init__(self):
        super().__init__()
        self.offset = nn.Parameter(torch.tensor(6 / 255))
        self.frozen = nn.Dropout(0.9).eval()

    def forward(self, x):
        assert not torch.is_grad_enabled() and not self.training
        return x - self.offset


def test_values_are_those_of_the_metrics(pairs):
    report = evaluate(darker, pairs, ("psnr_y", "ssim_y"), quantise="round")
    for pair, row in zip(pairs, report.rows, strict=True):
        rainy, clean = pair.read()
        for key in ("psnr_y", "ssim_y"):
            assert row.rainy[key] == metric(key)(rainy, clean)
            assert row.output[key] == metric(key)(rainy - np.uint8(6), clean)
    assert report.output["ssim_y"] == pytest.approx(np.mean([row.output["ssim_y"] for row in report.rows]))
    assert report.output["psnr_y"] == math.inf  # the first picture is perfect
    assert (report.model, report.quantise) == ("darker", "round")


def test_a_module_runs_in_eval_mode_and_is_left_as_it_was(pairs):
    model = Darker()
    model.train()
    model.frozen.eval()
    evaluate(model, pairs[:1])
    assert model.training and not model.frozen.training


def test_a_module_is_left_as_it_was_after_an_error(pairs):
    model = Darker()
    model.offset.data.fill_(torch.nan)
    with pytest.raises(UnrainError, match=r"0\.png: the model's output holds NaN"):
        evaluate(model, pairs)
    assert model.training


def test_a_half_precision_module_gets_half_precision(pairs):
    report = evaluate(Darker().to(torch.bfloat16), pairs[:2])
    assert report.output["psnr_y"] > report.rainy["psnr_y"]


def test_none_measures_the_input(pairs):
    report = evaluate(None, pairs)
    assert report.rainy == report.output and report.model == "rainy input"


def test_quantisation_truncates_or_rounds_and_clamps():
    image = torch.tensor([-0.5, 0.0, 100.4 / 255, 100.6 / 255, 1.0, 1.5]).view(1, 1, 6).expand(3, 1, 6)
    assert quantised(image, "truncate")[0, :, 0].tolist() == [0, 0, 100, 100, 255, 255]
    assert quantised(image, "round")[0, :, 1].tolist() == [0, 0, 100, 101, 255, 255]
    with pytest.raises(UnrainError, match="truncate"):
        quantised(image, "floor")


def test_every_level_survives_the_identity_when_rounded():
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, 2)
    assert np.array_equal(derain_uint8(lambda x: x, levels, "round"), levels)


def test_a_wrong_answer_is_refused(pairs):
    with pytest.raises(UnrainError, match="must give a tensor"):
        evaluate(lambda x: x[..., 1:], pairs)
    with pytest.raises(UnrainError, match="not list"):
        evaluate(lambda x: [x], pairs)


def test_nothing_to_do_is_refused(pairs):
    with pytest.raises(UnrainError, match="no pairs"):
        evaluate(darker, [])
    with pytest.raises(UnrainError, match="at least one metric"):
        evaluate(darker, pairs, ())
    with pytest.raises(UnrainError, match="two frames"):
        evaluate_video(darker, pairs[:1])


def test_the_worst_come_first(pairs):
    report = evaluate(darker, pairs, examples=3)
    assert [example.row.name for example in report.worst] == ["5", "4", "3"]
    rainy, clean = pairs[5].read()
    worst = report.worst[0]
    assert np.array_equal(worst.rainy, rainy) and np.array_equal(worst.clean, clean)
    assert evaluate(darker, pairs, examples=0).worst == []


def test_progress_is_told_of_every_picture(pairs):
    seen = []
    evaluate(darker, pairs, progress=lambda done, total, row: seen.append((done, total, row.name)))
    assert seen == [(number + 1, 6, str(number)) for number in range(6)]


def test_video_measures_flicker(pairs):
    # Each frame has another offset, 6 levels apart, so darkening all alike takes the error off but not its change.
    report = evaluate_video(darker, pairs, quantise="round")
    assert report.flicker["rainy"].change_error == pytest.approx(6 * 219 / 255, abs=1e-9)
    assert report.flicker["output"].change_error == pytest.approx(6 * 219 / 255, abs=1e-9)
    means = iter([6 * number + 6 for number in range(6)])
    steady = evaluate_video(lambda x: x - next(means) / 255, pairs, quantise="round")
    assert steady.flicker["output"].change_error == 0
    assert "flicker" in steady.to_dict() and evaluate(None, pairs).to_dict()["flicker"] is None


class Counting(nn.Module):
    """Takes 6 levels more off each frame than off the one before, as its state tells it."""

    def initial_state(self, x):
        return (torch.zeros_like(x),)

    def step(self, x, state):
        taken = state[0] + 6 / 255
        return x - taken, (taken,)

    def forward(self, x):
        return self.step(x, self.initial_state(x))[0]


def test_video_carries_a_networks_own_state(pairs):
    carried, anew = (evaluate_video(Counting(), pairs, quantise="round", carry=carry) for carry in (True, False))
    assert carried.model == anew.model == "Counting"
    assert all(math.isinf(row.output["psnr_rgb"]) for row in carried.rows)
    assert carried.flicker["output"].change_error == 0 < anew.flicker["output"].change_error
    assert [math.isinf(row.output["psnr_rgb"]) for row in anew.rows] == [True] + 5 * [False]
    # Every run begins anew.
    again = evaluate_video(Counting(), pairs[1:], quantise="round")
    assert not math.isinf(again.rows[0].output["psnr_rgb"])


def test_json(pairs, tmp_path):
    report = evaluate(darker, pairs, quantise="round")
    report.write_json(tmp_path / "out" / "report.json")
    read = json.loads((tmp_path / "out" / "report.json").read_text(), parse_constant=pytest.fail)
    assert read["mean"]["output"]["psnr_y"] == "inf" and float(read["rows"][0]["output"]["psnr_y"]) == math.inf
    assert read["rows"][3]["output"]["ssim_y"] == report.rows[3].output["ssim_y"]
    assert read["quantise"] == "round" and read["pictures"] == 6 and "BT.601" in read["definitions"]["psnr_y"]


def test_csv(pairs, tmp_path):
    report = evaluate(darker, pairs)
    report.write_csv(tmp_path / "report.csv")
    with (tmp_path / "report.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == ["0", "1", "2", "3", "4", "5", "mean"]
    assert float(rows[2]["ssim_rgb"]) == pytest.approx(report.rows[2].output["ssim_rgb"], abs=1e-6)
    assert float(rows[-1]["rainy_psnr_y"]) == pytest.approx(report.rainy["psnr_y"], abs=1e-6)


class Page(HTMLParser):
    """Collects the tags, and checks that every one is closed."""

    VOID = ("meta", "img", "input")

    def __init__(self, text):
        super().__init__()
        self.tags, self._open = [], []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def all(self, name):
        return [attributes for tag, attributes in self.tags if tag == name]


@pytest.mark.parametrize("video", [False, True])
def test_html_is_one_accessible_page_without_network(pairs, tmp_path, video):
    measure = evaluate_video if video else evaluate
    report = measure(darker, pairs, examples=4, name='<script>alert("x")</script>', data="a & b")
    write_page(report, tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert "alert(" in text and '<script>alert("x")' not in text and "a &amp; b" in text
    assert len(page.all("script")) == 1 and not page.all("link")
    # Nothing is fetched: every picture is inside, and no address of any kind appears.
    assert all(image["src"].startswith("data:image/jpeg;base64,") for image in page.all("img"))
    assert not re.search(r"https?://|//[a-z]|url\(|@import", re.sub(r"base64,[^\"]*", "", text))
    assert len(page.all("img")) == 12 and all(image["alt"] for image in page.all("img"))
    sliders = [tag for tag in page.all("input") if tag["type"] == "range"]
    assert len(sliders) == 4 and all(tag["aria-label"] for tag in sliders)
    assert page.all("html")[0]["lang"] == "en" and len(page.all("th")) > 6
    assert ("Temporal flicker" in text) is video
    assert text.count('<th scope="row">') >= 6 + 3


def test_files_are_written_whole_or_not_at_all(pairs, tmp_path):
    report = evaluate(None, pairs[:1])
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "x").mkdir()
    with pytest.raises(UnrainError, match="cannot be written"):
        report.write_json(tmp_path / "taken" / "x")
    assert [path.name for path in (tmp_path / "taken").iterdir()] == ["x"]


def test_rain100l_input_has_the_published_psnr(shared):
    """26.90 dB is what the untouched input of the 100 pairs, cropped to 480 x 320, measures in Y."""
    report = evaluate(None, find_pairs(shared("data/eval/Rain100L")), ("psnr_y",), examples=0)
    assert len(report.rows) == 100
    assert report.rainy["psnr_y"] == pytest.approx(26.90, abs=0.005)

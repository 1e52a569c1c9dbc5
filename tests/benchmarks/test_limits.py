"""What is counted from shapes, and the charts it ends in."""

import pytest
import terminal
import torch
from book import Book
from case import Outcome
from PIL import Image
from torch import nn

from unrain.engine.benchmark import backends, chart, limits, results
from unrain.engine.benchmark.roofline import roofline
from unrain.engine.errors import UnrainError


def test_operations_and_bytes_of_a_convolution_are_counted_from_its_shape():
    model = nn.Conv2d(3, 8, 3, padding=1, bias=False)
    assert limits.operations(model, 10, 12) == 2 * 9 * 3 * 8 * 10 * 12
    assert limits.layer_traffic(model, 10, 12) == 4 * (3 * 120 + 9 * 3 * 8 + 8 * 120)
    assert limits.layer_traffic(model, 10, 12, "bf16") == 2 * (3 * 120 + 9 * 3 * 8 + 8 * 120)
    assert limits.traffic(model, 10, 12) == 2 * 3 * 120 * 4 + 9 * 3 * 8 * 4
    assert next(model.parameters()).device == torch.device("cpu"), "the network is left as it was"


def test_a_network_that_makes_tensors_on_the_spot_is_counted():
    class Remembers(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(4, 3, 3, padding=1, bias=False)

        def forward(self, x):
            return self.conv(torch.cat((x, torch.zeros(x.shape[0], 1, *x.shape[2:])), 1))

    model = Remembers()
    assert limits.operations(model, 10, 12) == 2 * 9 * 4 * 3 * 10 * 12
    assert limits.winograd_saves(model, 10, 12) * 4 == limits.operations(model, 10, 12) * 3
    assert limits.layer_traffic(model, 10, 12) == 4 * (4 * 120 + 9 * 4 * 3 + 3 * 120)


def test_the_limit_is_whichever_takes_longer():
    machine = limits.Limits(1e9, {"fp32": 1e10, "bf16": 2e10})
    assert machine.milliseconds(1e7, 1e3) == pytest.approx(1.0)
    assert machine.milliseconds(1e7, 1e3, "bf16") == pytest.approx(0.5)
    assert machine.milliseconds(1e3, 1e6) == pytest.approx(1.0)
    assert (machine.bound(1e7, 1e3), machine.bound(1e3, 1e6)) == ("arithmetic", "memory")


def test_a_busy_moment_does_not_make_the_limit_small(monkeypatch):
    """Every race looks at the machine again; the best of all looks is held against the first row as well."""
    seen = iter([1e9, 8e9, 3e9])
    monkeypatch.setattr(limits, "_copy_rate", lambda device, tries: next(seen))
    monkeypatch.setattr(limits, "_matrix_rate", lambda device, precision, tries: 1e10)
    book = Book()
    for case in ("first", "second", "third"):
        book.look("cpu")
        book.add("kernels", case, "unrain", Outcome([1.0, 1.0, 1.0]), "cpu", traffic=4_000_000)
    assert book.limits["cpu"].copy == 8e9
    assert [row["limit_share"] for row in book.rows()["kernels"]] == [0.5, 0.5, 0.5]


def test_winograds_multiplications_are_counted_as_winograds():
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, stride=2), nn.Conv2d(8, 3, 1)).eval()
    assert limits.winograd_saves(model, 12, 16) == 2 * 9 * 3 * 8 * 12 * 16 * 3 // 4
    count = backends.counted(model, torch.empty(1, 3, 12, 16))
    plain, ours = count(backends.Row("eager", "fp32")), count(backends.Row("auto", "auto", runs="fused bf16"))
    assert plain["algorithm"] is None and ours["algorithm"] == "winograd" and ours["precision"] == "bf16"
    assert plain["operations"] - ours["operations"] == limits.winograd_saves(model, 12, 16)


@pytest.mark.parametrize(
    ("share", "words"),
    [(None, ""), (0.004, "under 1%"), (0.42, "42%"), (1.0, "100%"), (1.001, "past it"), (8.3, "past it")],
)
def test_no_percentage_that_cannot_be(share, words):
    assert results.percent(share) == words


def printed(**row):
    row = {"contender": "eager", "ours": False, "median_ms": 2.0, "reason": None, "bound": "memory", **row}
    return {"limit_share": 0.5, "goal": 1.5, **row}


def test_a_case_without_our_time_says_why_and_prints_no_nan():
    absent = printed(contender="unrain", ours=True, median_ms=None, reason="wrong: off by 1", limit_share=None)
    alone = terminal.lines([printed(limit_share=8.3)])
    assert alone[-1] == "no times: no row of ours was asked for" and "past the limit by memory" in alone[0]
    beside = terminal.lines([absent, printed()])
    assert beside[0].endswith("wrong: off by 1") and beside[-1] == "no times: nothing of ours has a time"
    assert not any("nan" in line or " x" in line or "goal" in line for line in (*alone, *beside))
    ours = terminal.lines([printed(contender="unrain", ours=True, median_ms=1.0, goal=None), printed()])
    assert len(ours) == 2 and "2.00 x" in ours[1] and "goal 1.50: reached" in ours[1]


def document():
    rows = [
        {"case": "gates x", "contender": "unrain", "ours": True, "median_ms": 1.0, "traffic": 1e7, "operations": 1e6},
        {"case": "gates x", "contender": "eager", "ours": False, "median_ms": 3.0, "traffic": 1e7, "operations": 1e6},
        {"case": "gates x", "contender": "odd", "ours": False, "median_ms": None, "traffic": 1e7, "operations": 1e6},
    ]
    machine = {"copy_bytes_per_second": 2e10, "operations_per_second": {"fp32": 1e11}}
    return {"suite": "kernels", "facts": {"cpu": "Test & Co"}, "limits": machine, "rows": rows}


def test_the_roofline_shows_roofs_and_dots():
    drawn = roofline(document())
    names = {each.name: each.points for each in drawn.series}
    assert names["unrain"] == [(0.1, 1e9)] and len(names["others"]) == 1
    assert (5.0, 1e11) in names["limit, fp32"]  # where memory and arithmetic take as long
    text = chart.svg(drawn)
    assert text == chart.svg(roofline(document())) and "Test &amp; Co" in text and text.endswith("</svg>\n")


def test_a_chart_is_saved_as_its_name_says(tmp_path):
    for name in ("a.svg", "a.png"):
        chart.save(roofline(document()), tmp_path / name)
    picture = Image.open(tmp_path / "a.png")
    assert picture.size == (chart.WIDTH, chart.HEIGHT) and len(picture.convert("RGB").getcolors(1 << 20)) > 5
    with pytest.raises(UnrainError, match=r"\.svg or \.png"):
        chart.save(roofline(document()), tmp_path / "a.gif")


def test_nothing_to_draw_is_an_error():
    empty = document()
    empty["rows"] = empty["rows"][2:]
    with pytest.raises(UnrainError, match="no timed row"):
        roofline(empty)


@pytest.mark.parametrize(
    ("values", "expected"), [([3, 7.5], [0, 1, 2, 3, 4, 5, 6, 7, 8]), ([1, 60], [0, 10, 20, 30, 40, 50, 60])]
)
def test_ticks_are_round_and_reach_around_the_values(values, expected):
    assert chart.ticks(values, logarithmic=False) == pytest.approx(expected)


def test_logarithmic_ticks_are_powers_of_ten():
    assert chart.ticks([2, 700], logarithmic=True) == [1, 10, 100, 1000]
